"""What a split comes to: its tokens, what max_length cuts of it and which length would do, and what is refused."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypedDict

from pipeline.look.quantiles import QUANTILES, length_that_cuts, quantile
from pipeline.look.rows import Reading, whole_rows
from pipeline.models import control
from pipeline.models.turns import Message, RefusedError

SHARES = (0.0, 0.01, 0.05)  # of the conversations, that a length may cut


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
    compared: str = ""  # how many pairs and judgements, where its conversations are the answers of those


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
