"""All rows of the sources, read once: conversations go to disk, and what cannot be used to data/rejected.jsonl.

Rows come in batches, each of which is whole on disk before the next is begun. A run that was killed finds them there,
and goes on behind the last.
"""

import pickle
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from common.errors import UserError
from common.files import atomic_path
from pipeline.core.data_settings import DataSettings, each_source
from pipeline.core.progress import shown
from pipeline.data.cleaning import Cleaning
from pipeline.data.corpus import Columns, Corpus, columns_of, line_of
from pipeline.data.lines import BadLine, Row, SetAside
from pipeline.data.rejects import Reject, Rejects
from pipeline.data.rows import SourceCounts, read_source
from pipeline.data.sources import Source

BATCH = 2_000  # rows


@dataclass
class Batch:
    """What some rows of a source came to; `cleaning` is of all up to here."""

    columns: Columns
    counts: SourceCounts
    rejects: "Waiting"
    cleaning: Cleaning


class Waiting:
    """Rejects that are not written yet."""

    def __init__(self) -> None:
        self._rejects: list[tuple[Reject, bool]] = []

    def add(self, reject: Reject, is_bad_line: bool = False) -> None:
        """Keep a reject."""
        self._rejects.append((reject, is_bad_line))

    def hand_over(self, rejects: Rejects) -> None:
        """Write and count all."""
        for reject, is_bad_line in self._rejects:
            rejects.add(reject, is_bad_line)


class Scratch:
    """A folder with the lines of all batches in one file and the rest of each in its own, maybe of an earlier run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._batches = self._end = 0
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)
            self.lines = folder / "lines.jsonl"
            self._file = self.lines.open("ab")

    def next_batch(self) -> Batch | None:
        """Return the next batch where an earlier run has written it."""
        self._batches += 1
        try:
            batch: Batch = pickle.loads(self._place().read_bytes())  # noqa: S301 -- we have written it
        except (OSError, pickle.UnpicklingError, EOFError):
            return None
        end = self._end + int(batch.columns.lengths.sum() + batch.columns.apart.sum())
        if end > self.lines.stat().st_size:
            return None
        self._end = end
        return batch

    def keep(self, lines: list[bytes], batch: Batch) -> None:
        """Write the next batch, its lines first; what an earlier run has half written there goes."""
        with self._writing():
            self._file.truncate(self._end)
            self._file.writelines(lines)
            self._file.flush()
        self._end += sum(map(len, lines))
        with atomic_path(self._place()) as temporary:
            temporary.write_bytes(pickle.dumps(batch))

    def _place(self) -> Path:
        return self._folder / f"{self._batches:06}.pickle"

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"cannot write {self._folder}: {error.strerror}; make room or grant access there, then run again"
            ) from error


@contextmanager
def scratch(folder: Path, key: str) -> Iterator[Scratch]:
    """Yield the batches below `folder` of a run that goes by `key`; others are removed, and at the end these.

    They stay where the process is stopped before the block is over.
    """
    for other in folder.glob("*"):
        if other.name != key:
            shutil.rmtree(other, ignore_errors=True)
    try:
        yield Scratch(folder / key)
    except UserError:  # whose setting or file will be another next time
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def gather(
    sources: Iterable[Source], settings: DataSettings, rejects: Rejects, cleaning: Cleaning, kept: Scratch
) -> tuple[Corpus, list[SourceCounts], Cleaning]:
    """Return all conversations, what became of each source, and what cleaning has found."""
    columns: list[Columns] = []
    counts: list[SourceCounts] = []
    alone = each_source(settings)
    for source in sources:
        counts.append(SourceCounts(source.name, source.group, source.revision))
        rows = iter(shown(source.rows, f"reading {source.name}", source.total))
        while some := list(islice(rows, BATCH)):
            batch = kept.next_batch() or _make(source, some, alone[source.group], cleaning, kept)
            batch.rejects.hand_over(rejects)
            counts[-1].add(batch.counts)
            cleaning = batch.cleaning
            columns.append(batch.columns)
    return Corpus(columns, kept.lines), counts, cleaning


def _make(
    source: Source, rows: list[Row | BadLine | SetAside], settings: DataSettings, cleaning: Cleaning, kept: Scratch
) -> Batch:
    counts, rejects = SourceCounts(source.name, source.group), Waiting()
    conversations = list(read_source(replace(source, rows=rows), settings, counts, rejects, cleaning))
    lines = [line_of(conversation.comparison or conversation.messages) for conversation in conversations]
    apart = [f"{cleaning.mask_line(line)}\n".encode() for line in counts.preferences]
    counts.preferences.clear()
    columns = columns_of(source, conversations, lines, apart, whole=settings.near_duplicates is not None)
    batch = Batch(columns, counts, rejects, cleaning)
    kept.keep([*lines, *apart], batch)
    return batch
