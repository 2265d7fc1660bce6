"""The sources of a set together: how many rows of each are taken, how often they are learnt, and what came of it."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from common.errors import UserError
from common.words import counted
from pipeline.core.data_settings import DataSettings, named_sources
from pipeline.data.corpus import Corpus
from pipeline.data.near_duplicates import Integers
from pipeline.data.rows import SourceCounts
from pipeline.data.sampling import copies, copy_keys, sample
from pipeline.data.split import Rows, seeded


class Mixture:
    """What `data.sources` says of each source's share."""

    def __init__(self, settings: DataSettings, corpus: Corpus) -> None:
        self._settings, self._corpus = settings, corpus
        self._sources = named_sources(settings)
        self._left_out: Counter[str] = Counter()
        self._added = 0

    def taken(self, splits: Rows) -> Rows:
        """Return the splits with so many rows of train as `cap` and `data.max_rows` allow."""
        train = splits["train"]
        caps = {name: source.cap for name, source in self._sources.items()}
        if self._settings.max_rows is None and not any(caps.values()):
            return splits
        sources = self._of(train)
        kept = sample(self._names(train), sources, caps, self._settings.max_rows, self._settings.seed)
        self._left_out = Counter(sources) - Counter(sources[number] for number in kept)
        return splits | {"train": train[kept]}

    def weighed(self, splits: Rows) -> Rows:
        """Return the splits with the rows of train as often as their source's weight says.

        Raises:
            UserError: the weights leave no row.
        """
        train = splits["train"]
        weights = {name: source.weight for name, source in self._sources.items()}
        if set(weights.values()) <= {1}:
            return splits
        names, seed = self._names(train), self._settings.seed
        counts = copies(names, self._of(train), weights, seed)
        if not any(counts):
            raise UserError(
                f"the weights of data.sources leave none of {counted(len(counts), 'row')} to train on; raise them"
            )
        self._added = sum(counts) - len(counts)
        placed = [
            (seeded(seed, key), row)
            for row, name, count in zip(train.tolist(), names, counts, strict=True)
            for key in copy_keys(name, count)
        ]
        return splits | {"train": np.array([row for _, row in sorted(placed)], np.int64)}

    def report(self, counts: Sequence[SourceCounts], splits: Rows) -> dict[str, object]:
        """Return what was taken, as reports/prepare.json has it."""
        in_split = {name: Counter(self._of(rows)) for name, rows in splits.items()}
        sources = {
            name: {
                "weight": source.weight,
                "revision": next((count.revision for count in counts if count.group == name), None),
                "usable": sum(count.usable for count in counts if count.group == name),
                "sampled_out": self._left_out[name],
                "splits": {split: found[name] for split, found in in_split.items()},
            }
            for name, source in self._sources.items()
        }
        return {"sampled_out": self._left_out.total(), "added_by_weight": self._added, "sources": sources}

    def _names(self, rows: Integers) -> list[str]:
        return [self._corpus.name(row) for row in rows.tolist()]

    def _of(self, rows: Integers) -> list[str]:
        """Return the source of each row; it is empty where none has a name."""
        return [self._corpus.groups[row] for row in rows.tolist()]
