"""Held-out pairs of answers: which of the two a model finds likelier, a token."""

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import pyarrow.parquet as pq

from common.words import counted
from pipeline.core.paths import COMPARED, PREPARED, TEST
from pipeline.evaluation.inputs import Conversation, Material
from pipeline.evaluation.loss import scored_tokens
from pipeline.models.chat import encode
from pipeline.models.refusal import RefusedError
from pipeline.report.rows import digests

logger = logging.getLogger(__name__)


def with_pairs(material: Material) -> Material:
    """Return the same with the pairs of answers that prepare has held out, if any.

    Those go of which the template refuses an answer, or nothing is left to score.
    """
    path = PREPARED / COMPARED / TEST.name
    if not path.is_file():
        return material
    table = pq.read_table(path).to_pylist()
    both = Counter(row["comparison"] for row in table)
    found: defaultdict[int, list[Conversation]] = defaultdict(list)
    for number, (row, name) in enumerate(zip(table, digests(row["messages"] for row in table), strict=True), start=1):
        with suppress(RefusedError):
            rows = encode(material.tokenizer, row["messages"], material.settings.max_length)
            if both[row["comparison"]] == 2 and any(map(scored_tokens, rows)):
                found[row["comparison"]].append(Conversation(number, name, rows))
    pairs = tuple((some[0], some[1]) for some in found.values() if len(some) == 2)
    if lost := sum(count == 2 for count in both.values()) - len(pairs):
        logger.info(f"preferences: {counted(lost, 'pair')} without a token to score, and left out")
    return replace(material, pairs=pairs)


def answers(material: Material) -> Material:
    """Return what the answers are measured as: conversations, of each pair the chosen one first."""
    return replace(material, conversations=[answer for pair in material.pairs for answer in pair], questions=[])


def pair_digests(material: Material) -> tuple[str, ...]:
    """Return what tells each pair from others: what tells its answers, with their prompt."""
    return tuple(f"{chosen.digest} {rejected.digest}" for chosen, rejected in material.pairs)


def preferred(nats: Sequence[float | None], material: Material) -> list[bool | None]:
    """Return of each pair whether the chosen answer is likelier a token, given the nats of `answers`.

    None of one of whose answers these are no finite number.
    """
    each = zip(nats, answers(material).scored, strict=True)
    means = [None if total is None else total / tokens for total, tokens in each]
    pairs = zip(means[::2], means[1::2], strict=True)
    return [None if chosen is None or rejected is None else chosen < rejected for chosen, rejected in pairs]
