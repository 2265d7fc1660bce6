"""The sources of a set together: how many rows of each are taken, how often they are learnt, and what came of it."""

from collections import Counter
from collections.abc import Sequence

from pipeline.core.data_settings import DataSettings, named_sources
from pipeline.core.formats import Messages
from pipeline.data.rows import Conversation, SourceCounts
from pipeline.data.sampling import copies, copy_keys, sample
from pipeline.data.split import shuffled

Splits = dict[str, dict[str, Messages]]  # rows by a digest


class Mixture:
    """Which source each conversation is of; conversations go by what they are in memory."""

    def __init__(self, settings: DataSettings, rows: Sequence[Conversation]) -> None:
        self._settings = settings
        self._sources = named_sources(settings)
        self._of = {id(row.messages): row.group for row in rows}
        self._left_out: Counter[str] = Counter()
        self._added = 0

    def source_of(self, messages: Messages) -> str:
        """Return the name of a conversation's source; it is empty where none has one."""
        return self._of[id(messages)]

    def names(self, rows: dict[str, Messages]) -> dict[str, str] | None:
        """Return the source of each row by its digest; None where none has a name."""
        return {digest: self.source_of(messages) for digest, messages in rows.items()} if self._sources else None

    def taken(self, splits: Splits) -> Splits:
        """Return the splits with so many rows of train as `cap` and `data.max_rows` allow."""
        train = splits["train"]
        digests, sources = list(train), [self.source_of(messages) for messages in train.values()]
        caps = {name: source.cap for name, source in self._sources.items()}
        kept = sample(digests, sources, caps, self._settings.max_rows, self._settings.seed)
        self._left_out = Counter(sources) - Counter(sources[number] for number in kept)
        return splits | {"train": {digests[number]: train[digests[number]] for number in kept}}

    def weighed(self, splits: Splits) -> Splits:
        """Return the splits with the rows of train as often as their source's weight says."""
        train = splits["train"]
        digests, sources = list(train), [self.source_of(messages) for messages in train.values()]
        weights = {name: source.weight for name, source in self._sources.items()}
        if set(weights.values()) <= {1}:
            return splits
        counts = copies(digests, sources, weights, self._settings.seed)
        self._added = sum(counts) - len(counts)
        rows = {
            key: train[digest]
            for digest, count in zip(digests, counts, strict=True)
            for key in copy_keys(digest, count)
        }
        return splits | {"train": shuffled(rows, self._settings.seed)}

    def report(self, counts: Sequence[SourceCounts], splits: dict[str, list[Messages]]) -> dict[str, object]:
        """Return what was taken, as reports/prepare.json has it."""
        in_split = {name: Counter(map(self.source_of, members)) for name, members in splits.items()}
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
