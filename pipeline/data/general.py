"""Sets of general texts and instructions, on which evaluate measures what a model has forgotten: data/general.

They are no part of what is trained on: a text that stands in the training split is left out.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

from rich.console import Console

from common.errors import UserError
from common.files import atomic_path, sha256, write_json
from common.words import counted
from pipeline.core.data_settings import DataSettings, SourceSettings, alone_as, sets_of
from pipeline.core.formats import Messages
from pipeline.core.paths import GENERAL
from pipeline.core.records import GeneralSet, GeneralSets
from pipeline.data.cleaning import Cleaning
from pipeline.data.corpus import line_of
from pipeline.data.decontaminate import asked
from pipeline.data.rejects import Reject
from pipeline.data.replay import contents, subject
from pipeline.data.rows import SourceCounts, check_meaning, read_source
from pipeline.data.sampling import sample
from pipeline.data.sources import find_files, load
from pipeline.data.traits import traits_of

SETS = GENERAL / "sets.json"
TO_PREPARE = "run `dvc repro prepare`, or `tunesmith prepare` with the same overrides"


@dataclass(frozen=True)
class General:
    """A set as it is read: its different conversations and texts, and what was not usable."""

    texts: list[Messages]
    dropped: Counter[str]  # rows, by reason


class Origin(TypedDict):
    """What a set is made from: its settings, and the digest of each file that they name."""

    settings: dict[str, Any]
    files: dict[str, str]


class Unheard:
    """Takes rejects; their reasons are counted with the source."""

    def add(self, reject: Reject, is_bad_line: bool = False) -> None:
        """Take one."""


def read_general(sets: Mapping[str, SourceSettings | None], root: Path) -> dict[str, General]:
    """Return the sets by their names.

    Raises:
        UserError: a set cannot be had, or nothing of it is usable.
    """
    return {name: _read(name, source, root) for name, source in sets_of(sets).items()}


def write_general(
    folder: Path,
    sets: Mapping[str, SourceSettings | None],
    read: Mapping[str, General],
    training: Iterable[Messages],
    threshold: float | None,
    root: Path,
) -> GeneralSets:
    """Write the sets without what `training` has to `folder`, all at once, and return what came of each."""
    known = _in_training(read, training, threshold)
    found, made = {}, made_from(sets, root)
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for name, general in read.items():
            kept = [messages for messages, there in zip(general.texts, known[name], strict=True) if not there]
            (temporary / f"{name}.jsonl").write_bytes(b"".join(map(line_of, kept)))
            found[name] = GeneralSet(
                kept=len(kept),
                in_training=sum(known[name]),
                dropped=dict(sorted(general.dropped.items())),
                **made[name],
            )
        report = GeneralSets(sets=found)
        write_json(temporary / SETS.name, report.model_dump())
    return report


def print_general(report: GeneralSets) -> None:
    """Print what came of each set."""
    console = Console(markup=False, emoji=False)
    for name, found in report.sets.items():
        left_out = [f"{found.in_training:,} left out as trained on"] if found.in_training else []
        left_out += [f"{rows:,} {reason}" for reason, rows in found.dropped.items()]
        more = f" ({', '.join(left_out)})" if left_out else ""
        console.print(f"general set {name}: {counted(found.kept, 'text')}{more}", highlight=False, soft_wrap=True)


def require_general(sets: Mapping[str, SourceSettings | None], folder: Path = Path()) -> None:
    """Refuse sets in data/general that are not what a configuration asks for.

    Raises:
        UserError: they are missing or others; the message names the first.
    """
    if not (folder / SETS).is_file():
        raise UserError(f"{folder / SETS} is missing; first {TO_PREPARE}")
    there, asked_for = GeneralSets.read(folder / SETS).sets, made_from(sets, Path())
    for name in sorted(there.keys() | asked_for.keys()):
        if not _is_of(there.get(name), asked_for.get(name)):
            raise UserError(
                f"{GENERAL} is not what the configuration asks for: evaluate.general.{name} differs; {TO_PREPARE}"
            )


def _is_of(made: GeneralSet | None, wanted: Origin | None) -> bool:
    """Return whether a set is made from what is wanted; where none of its files is here, the settings alone count."""
    if made is None or wanted is None:
        return False
    return made.settings == wanted["settings"] and (not wanted["files"] or made.files == wanted["files"])


def made_from(sets: Mapping[str, SourceSettings | None], root: Path) -> dict[str, Origin]:
    """Return what each set is made from."""
    found: dict[str, Origin] = {}
    for name, source in sets_of(sets).items():
        names = find_files(alone(source), root)[0] if source.files else []
        files = {file: sha256(root / file) for file in names if (root / file).is_file()}
        found[name] = {"settings": json.loads(json.dumps(asdict(source))), "files": files}
    return found


def alone(source: SourceSettings) -> DataSettings:
    """Return the settings by which a set is read: its own, and nothing that `data` says of others."""
    return alone_as(source, DataSettings(name="general", source="files", own_splits=False, preferences="drop"))


def _read(name: str, source: SourceSettings, root: Path) -> General:
    settings = alone(source)
    counts, texts = [], []
    try:
        for one in load(settings, root):
            counts.append(SourceCounts(one.name))
            cleaning = Cleaning(settings.clean, settings.seed)
            texts += [row.messages for row in read_source(one, settings, counts[-1], Unheard(), cleaning)]
        check_meaning(counts, settings, lambda _: f"evaluate.general.{name}")
    except UserError as error:
        raise UserError(f"evaluate.general.{name}: {error}") from error
    dropped = sum((count.dropped for count in counts), Counter[str]())
    different = {traits_of(messages).digest.hex(): messages for messages in texts}
    if not different:
        reasons = ", ".join(f"{rows:,} {reason}" for reason, rows in dropped.most_common()) or "it is empty"
        raise UserError(f"evaluate.general.{name} has no usable text: {reasons}; correct it or take it out")
    digests = sorted(different)
    chosen = sample(digests, [name] * len(digests), {}, source.cap, settings.seed)
    return General([different[digests[number]] for number in chosen], dropped)


def _in_training(
    read: Mapping[str, General], training: Iterable[Messages], threshold: float | None
) -> dict[str, list[bool]]:
    """Return of each text whether the training split has it, in one pass over that."""
    subjects = [subject(messages) for general in read.values() for messages in general.texts]
    left = iter(asked(subjects, contents(training), threshold))
    return {name: [next(left) for _ in general.texts] for name, general in read.items()}
