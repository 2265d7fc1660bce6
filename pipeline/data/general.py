"""Sets of general texts and instructions, on which evaluate measures what a model has forgotten: data/forgetting.

They are no part of what is trained on: a text that stands in the training split is left out.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from common.errors import UserError
from common.files import atomic_path, write_json
from common.words import counted
from pipeline.core.data_settings import SourceSettings, sets_of
from pipeline.core.formats import Messages
from pipeline.core.records import GeneralSet, GeneralSets
from pipeline.data.cleaning import Cleaning
from pipeline.data.corpus import line_of
from pipeline.data.decontaminate import asked
from pipeline.data.prepared import SETS, general_origins, general_settings, root_of
from pipeline.data.rejects import Reject
from pipeline.data.replay import contents, subject
from pipeline.data.rows import SourceCounts, check_meaning, read_source
from pipeline.data.sampling import sample
from pipeline.data.sources import find_files, load
from pipeline.data.traits import traits_of


@dataclass(frozen=True)
class General:
    """A set as it is read: its different conversations and texts, and what was not usable."""

    texts: list[Messages]
    dropped: Counter[str]  # rows, by reason


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
    found, made = {}, general_origins(sets, root)
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
        write_json(temporary / SETS, report.model_dump())
    return report


def print_general(report: GeneralSets) -> None:
    """Print what came of each set."""
    console = Console(markup=False, emoji=False)
    for name, found in report.sets.items():
        left_out = [f"{found.in_training:,} left out as trained on"] if found.in_training else []
        left_out += [f"{rows:,} {reason}" for reason, rows in found.dropped.items()]
        more = f" ({', '.join(left_out)})" if left_out else ""
        console.print(f"general set {name}: {counted(found.kept, 'text')}{more}", highlight=False, soft_wrap=True)


def _read(name: str, source: SourceSettings, root: Path) -> General:
    settings, place = general_settings(source), root_of(source, root)
    if gone := [file for file in source.files if not any(find_files(replace(settings, files=[file]), place))]:
        left_out = f"leave the set out by evaluate.general.{name}=null"
        raise UserError(f"evaluate.general.{name}: no data file matches {', '.join(gone)}; correct it, or {left_out}")
    counts, texts = [], []
    try:
        for one in load(settings, place):
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
