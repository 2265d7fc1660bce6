"""Rows of the sources as conversations; what cannot be one is a reject with its place and reason."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from common.errors import UserError
from common.words import counted, readable
from pipeline.core.data_settings import LEARN, DataSettings, each_source, place_of
from pipeline.core.formats import (
    CHANGES_MEANING,
    FORMATS,
    NO_KNOWN_FORMAT,
    NOT_AN_OBJECT,
    Converted,
    Messages,
    Turns,
    UnusableRowError,
    describe,
    detect,
    keys_of,
    plain_name,
    read_row,
)
from pipeline.core.messages import TOO_DEEP
from pipeline.core.paths import REJECTED
from pipeline.core.preferences import (  # fmt: skip
    Compared,
    Comparison,
    answered,
    changed,
    compare,
    good_answer,
    is_comparison,
    told,
)
from pipeline.data.cleaning import Cleaning
from pipeline.data.feedback import AMONG_OTHERS, is_record
from pipeline.data.lines import BadLine, Row, SetAside
from pipeline.data.mapping import Mapping, named
from pipeline.data.own_splits import SPLIT_OF
from pipeline.data.rejects import DROPPED_PREFERENCE, NAMED, Reject, Rejects, kind, rejected
from pipeline.data.sources import Source

PREFERENCES = "preferences"
EXAMPLES = 100  # of rows of no known format


class Conversation(NamedTuple):
    """What a row became, the source it came from, and the split that it is of where its set has splits."""

    messages: Messages  # of a comparison, all that it tells
    source: str
    split: str | None
    group: str = ""  # the name that data.sources has for it
    comparison: Comparison | None = None


@dataclass
class SourceCounts:
    """What became of a source's rows."""

    file: str
    group: str = ""  # the name that data.sources has for it
    revision: str | None = None  # the hub's commit
    usable: int = 0
    apart: int = 0  # preferences
    preferences: list[str] = field(default_factory=list)  # those of these rows, as lines of JSON
    formats: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    reordered: Counter[str] = field(default_factory=Counter)  # rows by what was done with turns
    unused: Counter[str] = field(default_factory=Counter)  # rows by key
    met: set[str] = field(default_factory=set)  # what settings name and rows have
    unknown: list[object] = field(default_factory=list)  # the keys of some rows of no known format, null for no object

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.usable + self.apart + self.dropped.total()

    def add(self, more: "SourceCounts") -> None:
        """Count more rows of the source, whose preferences are kept elsewhere."""
        self.usable += more.usable
        self.apart += more.apart
        self.met |= more.met
        for own, other in (
            (self.formats, more.formats),
            (self.dropped, more.dropped),
            (self.reordered, more.reordered),
            (self.unused, more.unused),
        ):
            own.update(other)
        self.unknown = (self.unknown + more.unknown)[:EXAMPLES]

    def report(self) -> dict[str, object]:
        """Return it as reports/prepare.json has it."""
        names = [name for name in (*FORMATS, PREFERENCES) if self.formats[name]]
        report = {
            "file": self.file,
            "format": ", ".join(names) or (PREFERENCES if self.apart else "none"),
            "rows": self.rows,
            "usable": self.usable,
            "dropped": dict(sorted(self.dropped.items())),
        }
        if self.group:
            report["source"] = self.group
        if self.apart:
            report["preferences"] = self.apart
        if self.reordered:
            report["reordered"] = dict(sorted(self.reordered.items()))
        return report | ({"unused": dict(sorted(self.unused.items()))} if self.unused else {})


class Noted(Protocol):
    """What notes rejects."""

    def add(self, reject: Reject, is_bad_line: bool = False) -> None:
        """Note one."""


def read_source(
    source: Source, settings: DataSettings, counts: SourceCounts, rejects: Noted, cleaning: Cleaning
) -> Iterator[Conversation]:
    """Yield the conversations of a source, by its own settings, counting what becomes of each row."""
    mapping = Mapping(settings)

    def reject(line: int, reason: str, value: object) -> None:
        counts.dropped[reason] += 1
        rejects.add(rejected(source.name, line, reason, value))

    for row in source.rows:
        if isinstance(row, BadLine):
            counts.dropped[kind(row.reason)] += 1
            rejects.add(rejected(source.name, row.line, row.reason, row.text), is_bad_line=True)
            continue
        if isinstance(row, SetAside):
            reject(row.line, row.reason, row.value)
            continue
        try:
            messages, comparison = _cleaned(_taken(row, settings, mapping, counts), cleaning)
        except UnusableRowError as error:
            reject(row.line, error.args[0], row.value)
            continue
        except RecursionError:
            reject(row.line, TOO_DEEP, row.value)
            continue
        if messages:
            counts.usable += 1
            listed = SPLIT_OF.get((row.split or "").lower()) if settings.own_splits else None
            yield Conversation(messages, source.name, source.split or listed, source.group, comparison)
    counts.met |= mapping.met


def _taken(row: Row, settings: DataSettings, mapping: Mapping, counts: SourceCounts) -> Messages | Comparison:
    """Return the messages of a row, none where it is set apart, or what it compares."""
    if is_record(row.value):
        raise UnusableRowError(AMONG_OTHERS)
    whole = _as_object(row.value)
    value = mapping.apply(whole)
    read_as = _compared if is_comparison(value) else _converted
    taken, unused, reordered = read_as(value, settings, counts)
    counts.unused.update(map(readable, unused | mapping.ignored_in(whole)))
    counts.reordered.update(reordered)
    return taken


def _as_object(value: object) -> object:
    """Return a row that is a list of turns as an object that has them."""
    is_list_of_turns = isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value)
    return {"messages": value} if is_list_of_turns else value


def _compared(row: Any, settings: DataSettings, counts: SourceCounts) -> Converted | Compared:
    """Return what is to be learnt of a row that compares or judges answers; nothing where it is set apart."""
    if settings.preferences == "drop":
        raise UnusableRowError(DROPPED_PREFERENCE)
    compared = compare(row, Turns(settings.opening, settings.repeated))
    comparison, unused, reordered = compared
    if settings.preferences == LEARN:
        counts.formats[PREFERENCES] += 1
        return compared
    if settings.preferences == "answers":
        messages = answered(comparison)
        counts.formats[PREFERENCES] += 1
        return Converted(messages, unused, reordered)
    origin = {"source": counts.group} if counts.group else {}
    counts.apart += 1
    counts.preferences.append(json.dumps({**comparison, **origin}, ensure_ascii=False))
    return Converted([], unused, reordered)


def _converted(value: object, settings: DataSettings, counts: SourceCounts) -> Converted:
    name = detect(value) if settings.format == "auto" else settings.format
    if name is None:
        if len(counts.unknown) < EXAMPLES:
            counts.unknown.append(dict.fromkeys(value) if isinstance(value, dict) else None)
        raise UnusableRowError(NO_KNOWN_FORMAT if isinstance(value, dict) else NOT_AN_OBJECT)
    counts.formats[name] += 1
    return read_row(value, name, Turns(settings.opening, settings.repeated))


def _cleaned(taken: Messages | Comparison, cleaning: Cleaning) -> tuple[Messages, Comparison | None]:
    """Return the messages of a row, masked, and what it compares; the rules look at the answer that is good."""
    if isinstance(taken, list):
        messages = cleaning.mask(taken)
        judged, comparison = messages, None
    else:
        comparison = changed(taken, cleaning.mask)
        messages, judged = told(comparison), good_answer(comparison)
    if reason := cleaning.reason(judged) if judged else None:
        raise UnusableRowError(reason)
    return messages, comparison


def check_usable(counts: list[SourceCounts], settings: DataSettings, rejects: Rejects) -> None:
    """Refuse more rejects than the settings allow, and a set that has no usable row.

    Raises:
        UserError: it names what was found and what may be done.
    """
    rows = sum(count.rows for count in counts)
    if rows == 0:
        raise UserError(f"{', '.join(count.file for count in counts[:3])} hold no row; put rows there")
    try:
        rejects.check(rows, settings)
    except UserError as error:
        raise UserError(f"{error}{_what_is_known(counts)}") from error
    if (apart := sum(count.apart for count in counts)) and not any(count.usable for count in counts):
        raise UserError(
            f"all {counted(apart, 'usable row')} are preferences, which are set apart and not learnt as answers: take "
            "data=preferences for train=dpo, kto or orpo, set data.preferences=answers to learn the good answers, or "
            "add conversations"
        )
    if not any(count.usable for count in counts):
        dropped = sum((count.dropped for count in counts), Counter())
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.most_common())
        raise UserError(f"no row is left to learn from: {reasons}; all are in {REJECTED}")


def not_met(counts: list[SourceCounts], settings: DataSettings) -> list[str]:
    """Return the keys of settings by what they name, where no row has it."""
    wanted = set().union(*map(named, each_source(settings).values()))
    return sorted(f"data.{name}" for name in wanted.difference(*(count.met for count in counts)))


def check_meaning(counts: list[SourceCounts], settings: DataSettings, place: Callable[[str], str] = place_of) -> None:
    """Refuse keys that change what rows mean and had no part in what was made of them, unless they are to be ignored.

    Args:
        counts: of the sources.
        settings: by which they were read.
        place: gives the key under which a group of sources stands.

    Raises:
        UserError: it names them by source, with their rows, and how to ignore them.
    """
    alone = each_source(settings)
    found = [
        (count, key, rows)
        for count in counts
        for key, rows in sorted(count.unused.items())
        if key.lower() in CHANGES_MEANING - set(map(plain_name, alone[count.group].ignore))
    ]
    if found:
        named = "; ".join(f"{count.file}: {key} ({counted(rows, 'row')})" for count, key, rows in found[:NAMED])
        ways = ", ".join(
            f"{place(group)}.ignore=[{','.join(dict.fromkeys([*alone[group].ignore, *keys]))}]"
            for group in dict.fromkeys(count.group for count, _, _ in found)
            for keys in [[key for count, key, _ in found if count.group == group]]
        )
        raise UserError(
            f"keys that change what a row means are not used: {named}; map them with {place('')}.columns, or set "
            f"{ways} to read the rows as if they had none"
        )


def _what_is_known(counts: list[SourceCounts]) -> str:
    unknown = [row for count in counts for row in count.unknown]
    if not unknown:
        return ""
    keys = ", ".join(keys_of(unknown)) or "none, since the rows are no objects"
    return f"; keys found in rows of no known format (data.columns maps them): {keys}; formats known: {describe()}"
