"""A turn of the loop: what visitors said becomes the next champion, if that is better than the present one.

    tunesmith turn                                   # by conf/experiment/turn.yaml: feedback/, DPO
    tunesmith turn learn.folder=null learn.dataset=owner/feedback train=kto

Learns, and goes on from the champion's adapter through the stages of DVC; then promotes. What visitors say meanwhile is
the next turn's. A turn that was interrupted or killed is gone on with by the same command, on the same records.
"""

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from common.errors import UserError
from common.files import atomic_path, sha256
from common.words import counted
from pipeline.commands import promote
from pipeline.comparison.champion import champions_adapter
from pipeline.core.adopted import meeting
from pipeline.core.composition import CONF, compose
from pipeline.core.config import Config, TrackingSettings, load
from pipeline.core.inputs import link_inputs, named
from pipeline.core.paths import ADAPTER, CHAMPION, EVALUATION, LINEAGE, TURN, TURN_RECORD
from pipeline.core.records import Lineage
from pipeline.learning.forgotten import Forgotten, Traces
from pipeline.learning.manifest import LearnManifest
from pipeline.learning.sources import NothingToLearn, kept_by, of_folder
from pipeline.learning.turn import (
    RECORDS,
    STATE,
    Start,
    Turn,
    TurnRecord,
    Version,
    alone,
    end,
    freeze,
    last_turn,
    turn_under_way,
)
from pipeline.report.record import Evaluation
from pipeline.stages.compose import write_params
from pipeline.stages.learn import UNNAMED, learn
from pipeline.tracking.registry import champion, is_there, mlflow_client, previous

if TYPE_CHECKING:  # seconds to import
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

EXPERIMENT = "experiment=turn"
HAS_LEARNT = "has learnt what is forgotten, and is not gone on from"
STAGES = ("learn", "prepare", "data_report", "train", "export", "evaluate", "report")
NOT_TRIED = ("learn", "tracking", "runtime", "experiment")  # settings that change nothing of what comes out
FROM = {
    "champion": "the champion",
    "earlier": "one before the champion",
    "adapter": f"{ADAPTER}, as it was evaluated",
    "base": "the base",
}


def run(overrides: Sequence[str], reproduce: Callable[[list[str]], int]) -> bool:
    """Take a turn, or go on with the one that is under way; return whether there is another champion.

    Args:
        overrides: settings, as in conf/; experiment=turn, where they name no other.
        reproduce: runs `dvc repro` with these arguments, and gives its status.

    Raises:
        NothingToLearn: nobody said anything new.
        UserError: the champion is who it was; the same command goes on.
    """
    arguments = [*([] if any(one.startswith("experiment=") for one in overrides) else [EXPERIMENT]), *overrides]
    with alone():
        turn = gone_on_with(arguments) or begun(arguments)
        composed = compose(CONF, settings_of(arguments, turn.start))
        config = load(composed)
        write_params(composed)
        link_inputs(named(config))
        if status := reproduce(["--single-item", *STAGES]):
            raise UserError(f"`dvc repro` ended with status {status}, see above; the same command goes on from there")
        outcome = judged(turn, config)
        end(outcome)
    print(f"{outcome.why}\nrecord: {TURN_RECORD}")
    return outcome.promoted


def settings_of(arguments: Sequence[str], start: Start) -> list[str]:
    """Return the overrides of a turn's stages: what was given, the records of the turn and what it goes on from."""
    return [
        *arguments,
        f"learn.folder={RECORDS}",
        "learn.dataset=null",
        f"train.start_adapter={'null' if start == 'base' else CHAMPION}",
    ]


def gone_on_with(arguments: list[str]) -> Turn | None:
    """Return the turn that is under way with these arguments; None where a new one is to begin."""
    turn = turn_under_way()
    if turn is None:
        return None
    if turn.arguments != arguments:
        why = "it was begun with other settings"
    elif sha256(RECORDS) != turn.records or (turn.start_digest and sha256(CHAMPION) != turn.start_digest):
        why = "what it began with has changed"
    else:
        print(f"on with the turn that began at {turn.began}: {described(turn)}")
        return turn
    print(f"the turn that began at {turn.began} is not gone on with, since {why}: a new one begins")
    return None


def begun(arguments: list[str]) -> Turn:
    """Begin a turn: keep apart what there is to learn and what to go on from, and look whether that is new.

    Raises:
        NothingToLearn: it is not.
        UserError: records, champion or settings are not what they should be.
    """
    end()
    config = load(compose(CONF, arguments))
    if notice := meeting(CONF, config.experiment):
        print(notice)
    require_usable(config)
    try:
        turn = kept_apart(arguments, config)
        named(load(compose(CONF, settings_of(arguments, turn.start))))  # all of it is here
    except UserError:
        end()
        raise
    turn.write(STATE)
    print(described(turn))
    return turn


def require_usable(config: Config) -> None:
    """Refuse settings by which there can be no turn. Raises UserError."""
    if config.train.start_adapter is not None:
        raise UserError(f"train.start_adapter is {config.train.start_adapter}, and a turn goes on from the champion")
    if not (config.tracking.enabled or is_there(config.tracking)):
        raise UserError("tracking.enabled is false, and there is no MLflow yet whose registry a champion could be in")


def kept_apart(arguments: list[str], config: Config) -> Turn:
    """Copy the records and what training goes on from, and return the turn that they make. Raises as `begun`."""
    kept = kept_by(config.learn)
    if kept is None:
        raise NothingToLearn(f"{UNNAMED}; name one, as learn.folder=feedback")
    freeze(kept)
    manifest = learnt(config)
    before = known_champion(config.tracking)
    key = tried(manifest, config)
    require_new(key, before)
    start = placed_start(config.tracking, before)
    return Turn(
        schema_version=1,
        arguments=arguments,
        began=now(),
        source=kept.name,
        records=sha256(RECORDS),
        rows=manifest.digest,
        pairs=sum(split.pairs for split in manifest.splits.values()),
        labels=sum(split.labels for split in manifest.splits.values()),
        start=start,
        start_digest=None if start == "base" else sha256(CHAMPION),
        before=before,
        tried=key,
    )


def described(turn: Turn) -> str:
    """Return in a line what a turn learns, and what it goes on from."""
    of = f"{counted(turn.pairs, 'pair')} and {counted(turn.labels, 'label')} of {turn.source}"
    version = f", version {turn.before.version} of {turn.before.name}" if turn.before else ""
    return f"{of}, from {FROM[turn.start]}{version}"


def learnt(config: Config) -> LearnManifest:
    """Return what the frozen records become, without a word: the stage says it again. Raises UserError as that."""
    with TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        return learn(of_folder(RECORDS), config.learn, Path(), Path(folder))


def require_new(key: str, before: Version | None) -> None:
    """Refuse to learn the same once more. Raises NothingToLearn."""
    last = last_turn()
    if last and (last.tried, last.after) == (key, before):
        raise NothingToLearn(
            f"nobody said anything new since the turn that ended at {last.ended}: {last.why} (without {TURN_RECORD} "
            "it is taken again)"
        )


def known_champion(tracking: TrackingSettings) -> Version | None:
    """Return the champion; None where there has never been one. Raises UserError where it is gone."""
    before, last = champion_of(tracking), last_turn()
    if before is None and last and last.after:
        raise vanished(last.after)
    return before


def vanished(version: Version) -> UserError:
    """Return the error of a champion that is in the registry no more."""
    return UserError(
        f"the champion, version {version.version} of {version.name}, is gone from MLflow's registry, and nothing takes "
        f"its place unseen; give a version the alias `champion` in MLflow, or remove {TURN} and {TURN_RECORD}"
    )


def placed_start(tracking: TrackingSettings, before: Version | None) -> Start:
    """Put what training goes on from into models/champion, and return what it is of.

    The champion's adapter; without a champion models/adapter, as it was evaluated, which is what visitors were
    answered by; and where there is none, the base. Nothing is gone on from that has learnt what is forgotten.

    Raises:
        UserError: the champion has no adapter; or models/adapter is not what was evaluated.
    """
    forgotten = Forgotten.there(Path()).traces
    if before is not None:
        with mlflow_client(tracking) as client:
            return placed_champion(client, client.get_model_version(before.name, before.version), forgotten)
    if not (ADAPTER / LINEAGE).is_file():
        return "base"
    if forgotten.learnt_by(Lineage.read(ADAPTER / LINEAGE)):
        print(f"{ADAPTER} {HAS_LEARNT}")
        return "base"
    if Lineage.read(ADAPTER / LINEAGE).fingerprint != Evaluation.read(EVALUATION).fingerprint:
        raise UserError(f"{EVALUATION} is not of {ADAPTER}, which a first turn goes on from; `tunesmith repro` first")
    with atomic_path(CHAMPION) as temporary:
        shutil.copytree(ADAPTER, temporary)
    return "adapter"


def placed_champion(client: "MlflowClient", version: "ModelVersion | None", forgotten: Traces) -> Start:
    """Put the adapter of a champion into models/champion, or of the latest before it that may be gone on from.

    Raises:
        UserError: the version has no adapter.
    """
    start: Start = "champion"
    seen: set[int] = set()  # since a rollback's champion has the other one before it
    while version is not None and int(version.version) not in seen:
        seen.add(int(version.version))
        champions_adapter(version, CHAMPION)
        if not forgotten.learnt_by(Lineage.read(CHAMPION / LINEAGE)):
            return start
        print(f"version {version.version} of {version.name} {HAS_LEARNT}")
        version, start = previous(client, version), "earlier"
    shutil.rmtree(CHAMPION)
    return "base"


def tried(manifest: LearnManifest, config: Config) -> str:
    """Return the digest of rows and settings: from one champion on, a turn's outcome follows from these."""
    settings = {name: value for name, value in asdict(config).items() if name not in NOT_TRIED}
    return hashlib.sha256(json.dumps([manifest.digest, settings], sort_keys=True).encode()).hexdigest()[:16]


def judged(turn: Turn, config: Config) -> TurnRecord:
    """Promote what was made if it is better, and return what came of it.

    Raises:
        UserError: the champion is gone, or MLflow fails.
    """
    if turn.before and champion_of(config.tracking) is None:
        raise vanished(turn.before)
    try:
        found = promote.promote(config, None, force=False)
    except promote.NotPromoted as error:
        found = str(error)
    after = champion_of(config.tracking)
    promoted = after != turn.before
    stays = f"the champion stays, version {after.version} of {after.name}" if after else "there is no champion"
    why = f"promoted: version {after.version} of {after.name}" if promoted and after else stays
    return TurnRecord(
        **turn.model_dump() | {"ended": now(), "after": after, "promoted": promoted},
        why=f"{why}: {found}" if found else why,
    )


def champion_of(tracking: TrackingSettings) -> Version | None:
    """Return the champion as the registry has it now."""
    if not is_there(tracking):
        return None
    with mlflow_client(tracking) as client:
        found = champion(client, tracking.experiment)
    if found is None:
        return None
    return Version(name=found.name, version=str(found.version), sha256=found.tags.get("sha256"))


def now() -> str:
    """Return the time."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
