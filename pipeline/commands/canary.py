"""A candidate is tried on visitors beside the champion, and becomes it if they find it better.

    tunesmith canary start --quantization Q8_0   # of the last evaluation; --version 3: one that is registered
    tunesmith canary status                      # what visitors say so far
    tunesmith canary watch                       # looks every minute, until that tells them apart
    tunesmith canary end                         # without a decision; --promote: with the candidate as the champion

The server is told by SERVE_CANARY. conf/canary says when it is decided, and what follows.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from common.errors import UserError
from pipeline.canary.look import FINDINGS, Source, View, look, not_understood, record_of, standing, told, why_of
from pipeline.canary.record import Action, CanaryRecord
from pipeline.canary.registry import STARTED, Canary, begin, carry_out, conclude, running
from pipeline.commands.promote import enter, evaluated, own_objections, size_of
from pipeline.core.composition import CONF, compose
from pipeline.core.config import CanarySettings, Config, load
from pipeline.core.paths import CANARY_REPORT
from pipeline.tracking.registry import (
    CANDIDATE,
    CHAMPION,
    candidate,
    champion,
    mlflow_client,
    numbered,
    require_file,
    version_of_file,
)
from serve.feedback.records import now

if TYPE_CHECKING:  # seconds to import
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

SECONDS = 60.0  # between two looks


def start(overrides: Sequence[str], quantization: str | None, number: int | None) -> None:
    """Let a version be tried beside the champion.

    Args:
        overrides: settings, as in conf/.
        quantization: the type of the evaluated GGUF to try; else conf/compare's rule decides.
        number: of a version to try instead, which is registered already.

    Raises:
        UserError: there is no champion, or a candidate already; the version did not pass, has no file, or is the
            champion's; MLflow fails.
    """
    config = load(compose(CONF, list(overrides)))
    name = config.tracking.experiment
    with mlflow_client(config.tracking) as client:
        against = champion(client, name)
        if against is None or "sha256" not in against.tags:
            raise UserError(f"{name} has no champion that `tunesmith promote` made, to be held against; make one")
        refuse_another(client, name)
        version = registered(client, name, number) if number else evaluated_version(client, config, quantization)
        if version.tags["sha256"] == against.tags["sha256"]:
            raise UserError(f"{version.tags['file']} is the champion's own file, version {against.version}")
        begin(client, version, against, now())
    print(f"version {version.version} of {name}, {version.tags['file']}, is tried against version {against.version}")
    print(f"serve both: SERVE_MODELS=models:/{name}@{CHAMPION} SERVE_CANARY=models:/{name}@{CANDIDATE} tunesmith serve")
    print("let it be decided: tunesmith canary watch")


def status(overrides: Sequence[str], source: Source) -> None:
    """Print what visitors say so far, and change nothing.

    Raises:
        UserError: there is no canary, its records cannot be read, or MLflow fails.
    """
    config = load(compose(CONF, list(overrides)))
    with mlflow_client(config.tracking) as client:
        canary = required(client, config)
    show(canary, look(canary, source, config.canary), config.canary)
    if canary.is_decided or canary.has_lost_its_champion:
        print("`tunesmith canary watch` does what is left to do")


def watch(overrides: Sequence[str], source: Source, seconds: float = SECONDS, once: bool = False) -> None:
    """Look at what visitors say until that tells the models apart, then do what conf/canary says.

    What cannot be read or reached meanwhile is said, and asked for again.

    Args:
        overrides: settings, as in conf/.
        source: of records.
        seconds: between two looks.
        once: look once, and leave it as it is where nothing is known yet.

    Raises:
        UserError: there is no canary; with `once` whatever else goes wrong, too.
    """
    config = load(compose(CONF, list(overrides)))
    with mlflow_client(config.tracking) as client:
        required(client, config)
    said, is_open = "", True
    while is_open:
        try:
            line, is_open = step(config, source)
        except UserError as error:
            if once:
                raise
            line = f"{error}; asking again in {seconds:g} s"
        if line != said:
            print(line, flush=True)
        if once:
            return
        said = line
        time.sleep(seconds if is_open else 0)


def step(config: Config, source: Source) -> tuple[str, bool]:
    """Look once and do what is due; return how it stands, and whether it goes on."""
    with mlflow_client(config.tracking) as client:
        canary = running(client, config.tracking.experiment)
        if canary is None:
            return "somebody has ended the canary", False
        if canary.record is not None and canary.is_decided and not canary.has_lost_its_champion:
            carry_out(client, canary, canary.record)
            return ended(canary.record), False
        view = look(canary, source, config.canary)
        if canary.has_lost_its_champion:
            record = record_of(canary, view, "ended", "withdrawn", lost(canary))
        elif view.decision.found == "open":
            return standing(canary, view, config.canary) + not_understood(view), True
        else:
            show(canary, view, config.canary)
            record = decided(canary, view, config.canary)
        conclude(client, canary, record)
        return ended(record), False


def end(overrides: Sequence[str], source: Source, promote: bool) -> None:
    """End a canary by hand: the candidate is withdrawn, or becomes the champion.

    Raises:
        UserError: there is none, its records cannot be read, or MLflow fails.
    """
    config = load(compose(CONF, list(overrides)))
    with mlflow_client(config.tracking) as client:
        canary = required(client, config)
        if promote and canary.has_lost_its_champion:
            raise UserError(f"{lost(canary)}; without --promote it ends, and can be started again")
        if canary.record is not None and canary.is_decided:
            record = canary.record
        else:
            view = look(canary, source, config.canary)
            show(canary, view, config.canary)
            found = view.decision.found
            why = f"ended by hand; {why_of(view)}"
            record = record_of(
                canary, view, "ended" if found == "open" else found, "promoted" if promote else "withdrawn", why
            )
        conclude(client, canary, record)
    print(ended(record))


def decided(canary: Canary, view: View, settings: CanarySettings) -> CanaryRecord:
    """Return the record of a decision, by which conf/canary's settings are followed."""
    found = view.decision.found
    assert found != "open"  # noqa: S101
    actions: dict[str, Action] = {
        "better": "promoted" if settings.on_better == "promote" else "told",
        "worse": "withdrawn" if settings.on_worse == "rollback" else "told",
        "undecided": "withdrawn",
    }
    return record_of(canary, view, found, actions[found], f"{FINDINGS[found]}; {why_of(view)}")


def lost(canary: Canary) -> str:
    """Return what has become of the champion that the candidate was held against."""
    if canary.champion is None:
        return f"the champion, version {canary.against.version}, is gone from MLflow's registry"
    return "the champion is another one than the candidate was held against"


def ended(record: CanaryRecord) -> str:
    """Return what has been done, in a line."""
    number = record.candidate.version
    done = {
        "promoted": f"version {number} is the champion of {record.model}    back: tunesmith promote --rollback",
        "withdrawn": f"version {number} of {record.model} is withdrawn, and no champion is moved",
        "told": f"nothing moves: `tunesmith canary end --promote` makes version {number} the champion, "
        "`tunesmith canary end` withdraws it",
    }
    return f"{record.why}\n{done[record.action]}\nwritten: {CANARY_REPORT}"


def show(canary: Canary, view: View, settings: CanarySettings) -> None:
    """Print how a canary stands."""
    for line in told(canary, view, settings):
        print(line)


def required(client: "MlflowClient", config: Config) -> Canary:
    """Return the canary that runs. Raises UserError where there is none."""
    canary = running(client, config.tracking.experiment)
    if canary is None:
        raise UserError(f"no candidate of {config.tracking.experiment} is tried; `tunesmith canary start` begins it")
    return canary


def refuse_another(client: "MlflowClient", name: str) -> None:
    """Raise UserError where a canary runs."""
    if (other := candidate(client, name)) is not None and STARTED in other.tags:
        raise UserError(
            f"version {other.version} of {name} is tried since {other.tags[STARTED][:16]}; "
            "`tunesmith canary end` ends that first"
        )


def registered(client: "MlflowClient", name: str, number: int) -> "ModelVersion":
    """Return a version that may be tried.

    Raises:
        UserError: there is none of this number, it did not pass its evaluation, or its GGUF is not there.
    """
    version = numbered(client, name, str(number))
    if version is None:
        raise UserError(f"{name} has no version {number} in MLflow's registry")
    file = version.tags.get("file", "")
    if not file.endswith(".gguf") or "sha256" not in version.tags:
        raise UserError(f"version {number} of {name} has no GGUF that `tunesmith promote` or `canary start` registered")
    if version.tags.get("passed") != "true":
        raise UserError(f"version {number} of {name} did not pass its evaluation, and is not shown to visitors")
    require_file(version, file, size_of(version))
    return version


def evaluated_version(client: "MlflowClient", config: Config, quantization: str | None) -> "ModelVersion":
    """Return the version of a file of the last evaluation, which is registered unless it was.

    Raises:
        UserError: it did not pass; as for `promote.evaluated`.
    """
    made = evaluated(config, quantization)
    if against := own_objections(made.run.evaluation):
        raise UserError(f"{made.new.path.name} is not shown to visitors: {'; '.join(against)}")
    known = version_of_file(client, config.tracking.experiment, made.new.sha256)
    if known is not None:
        return registered(client, known.name, int(known.version))
    return enter(client, config.tracking, made, {})
