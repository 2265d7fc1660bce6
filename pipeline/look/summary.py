"""What a split comes to: its tokens, what max_length cuts of it and which length would do, and what is refused."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import NamedTuple, TypedDict

from datasets import Dataset, Features, List, Value

from pipeline.core.code import code_digest
from pipeline.look.rows import Reading, whole_rows
from pipeline.models import control
from pipeline.models.turns import Message, RefusedError
from pipeline.training.rows import cache_name

CODE = ("pipeline/look/summary.py", "pipeline/look/rows.py")
QUANTILES = {"median": 0.5, "90%": 0.9, "99%": 0.99, "longest": 1.0}
SHARES = (0.0, 0.01, 0.05)  # of the conversations, that a length may cut
FEATURES = Features(
    {
        "rows": Value("int64"),
        "tokens": Value("int64"),
        "longest": Value("int64"),
        "learnt": Value("int64"),
        "kept": Value("int64"),
        "learns": Value("bool"),
        "refused": Value("string"),
        "controls": List(Value("string")),
    }
)


class Measured(TypedDict):
    """A conversation in figures."""

    rows: int
    tokens: int  # of all its rows
    longest: int  # tokens of the longest
    learnt: int  # tokens
    kept: int  # of them, within max_length
    learns: bool  # something, within max_length
    refused: str
    controls: list[str]  # in its words


class Summary(NamedTuple):
    """A split in figures."""

    split: str
    model: str
    conversations: int
    rows: int
    tokens: int
    learnt: int
    lengths: dict[str, int]  # quantiles of the tokens of a conversation's longest row
    key: str  # of the setting that cuts
    max_length: int
    cut: list[int]  # numbers of conversations, from 1; so below
    learnt_cut: int  # tokens
    unlearnt: list[int]  # with nothing left to learn
    fitting: dict[float, int]  # lengths by the share of conversations that they cut at most
    refusals: dict[str, list[int]]  # by reason
    controls: dict[str, int]  # in words
    with_controls: list[int]


def measure(path: Path, reading: Reading) -> list[Measured]:
    """Return a prepared split in figures, a conversation each; kept for the next time by all that they depend on."""

    def figures(row: dict[str, list[Message]]) -> Measured:
        return measured(reading, row["messages"])

    conversations = Dataset.from_parquet(str(path))
    rows = cache_name(path, reading.tokenizer, reading.max_length, reading.loss_on)
    table = conversations.map(
        figures,
        remove_columns=conversations.column_names,
        features=FEATURES,
        new_fingerprint=hashlib.sha256(f"{rows} {code_digest(*CODE)}".encode()).hexdigest()[:16],
        desc=f"reading {path.stem}",
    )
    return list(table)


def measured(reading: Reading, messages: Sequence[Message]) -> Measured:
    """Return a conversation in figures."""
    found = sorted(control.found(reading.tokenizer, messages).elements())
    try:
        rows = whole_rows(reading, messages)
    except RefusedError as refused:
        return Measured(
            rows=0, tokens=0, longest=0, learnt=0, kept=0, learns=False, refused=str(refused), controls=found
        )
    return Measured(
        rows=len(rows),
        tokens=sum(len(ids) for ids, _ in rows),
        longest=max(len(ids) for ids, _ in rows),
        learnt=sum(sum(mask) for _, mask in rows),
        kept=sum(sum(mask[: reading.max_length]) for _, mask in rows),
        learns=any(any(mask[1 : reading.max_length]) for _, mask in rows),  # the first token is predicted from nothing
        refused="",
        controls=found,
    )


def summarize(split: str, model: str, reading: Reading, figures: Mapping[int, Measured]) -> Summary:
    """Return what the figures of a split's conversations, by their numbers, come to."""
    taken = {number: one for number, one in figures.items() if not one["refused"]}
    refusals: dict[str, list[int]] = {}
    for number, one in figures.items():
        if one["refused"]:
            refusals.setdefault(one["refused"], []).append(number)
    lengths = sorted(one["longest"] for one in taken.values())
    learnt = sum(one["learnt"] for one in taken.values())
    return Summary(
        split=split,
        model=model,
        conversations=len(figures),
        rows=sum(one["rows"] for one in taken.values()),
        tokens=sum(one["tokens"] for one in taken.values()),
        learnt=learnt,
        lengths={name: quantile(lengths, share) for name, share in QUANTILES.items()} if lengths else {},
        key=reading.key,
        max_length=reading.max_length,
        cut=[number for number, one in taken.items() if one["longest"] > reading.max_length],
        learnt_cut=learnt - sum(one["kept"] for one in taken.values()),
        unlearnt=[number for number, one in taken.items() if not one["learns"]],
        fitting={share: length_that_cuts(lengths, share) for share in SHARES} if lengths else {},
        refusals=refusals,
        controls=dict(Counter(name for one in figures.values() for name in one["controls"]).most_common()),
        with_controls=[number for number, one in figures.items() if one["controls"]],
    )


def quantile(lengths: Sequence[int], share: float) -> int:
    """Return the least of sorted lengths that so large a share of them does not exceed."""
    return lengths[ceil(share * len(lengths)) - 1]


def length_that_cuts(lengths: Sequence[int], share: float) -> int:
    """Return the least of sorted lengths beyond which no larger share of them goes."""
    return lengths[len(lengths) - 1 - int(share * len(lengths))]
