"""General texts and instructions, which no training taught: what a model's loss on them was before it, and is after."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from transformers import PreTrainedTokenizerBase

from common.errors import UserError
from common.words import counted
from pipeline.core.data_settings import sets_of
from pipeline.core.paths import GENERAL
from pipeline.evaluation.inputs import Conversation, Material
from pipeline.evaluation.loss import scored_tokens
from pipeline.models.chat import Row, encode, is_text
from pipeline.models.refusal import Refusals, RefusedError
from pipeline.report.rows import digests

Value = TypeVar("Value")

logger = logging.getLogger(__name__)


def with_general(material: Material) -> Material:
    """Return the same with the general texts that prepare has kept, by set; those without a token to score go.

    Raises:
        UserError: a set is missing, or nothing of it can be scored.
    """
    sets = {name: read_set(name, material) for name in sets_of(material.settings.general)}
    return replace(material, general=sets)


def read_set(name: str, material: Material) -> list[Conversation]:
    """Return the texts of a set as token ids with what counts marked; errors as of `with_general`."""
    path = GENERAL / f"{name}.jsonl"
    if not path.is_file():
        raise UserError(f"{path} is missing; run `dvc repro prepare` first")
    chats = [json.loads(line) for line in path.read_bytes().splitlines()]
    names, found, refusals = digests(chats), [], Refusals()
    for number, messages in enumerate(chats, start=1):
        try:
            rows = general_rows(material.tokenizer, messages, material.settings.max_length)
        except RefusedError as refused:
            refusals.add(number, messages, str(refused))
            continue
        if rows := [row for row in rows if scored_tokens(row)]:
            found.append(Conversation(number, names[number - 1], rows))
    if refusals.total():
        logger.info(f"evaluate.general.{name}: {refusals}, and left out")
    if found and (empty := len(chats) - len(found) - refusals.total()):
        logger.info(f"evaluate.general.{name}: {counted(empty, 'text')} without a token to score, and left out")
    if chats and not found:
        raise UserError(
            f"none of the {counted(len(chats), 'text')} of evaluate.general.{name} has a token to score within "
            f"evaluate.max_length {material.settings.max_length}; leave the set out, or raise that"
        )
    return found


def general_rows(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], max_length: int) -> list[Row]:
    """Return a conversation, or a plain text, whose end does not count: few bases have read the tokenizer's mark there.

    Raises:
        RefusedError: the template does not take the conversation.
    """
    rows = encode(tokenizer, messages, max_length)
    if is_text(messages) and rows[-1][0][-1] == tokenizer.eos_token_id:
        ids, mask = rows[-1]
        rows[-1] = (ids[:-1], mask[:-1])
    return rows


def all_sets(material: Material) -> Material:
    """Return what the texts of all sets are measured as: conversations, one set's after the other's."""
    texts = [text for some in material.general.values() for text in some]
    return replace(material, conversations=texts, questions=[])


def general_tokens(material: Material) -> dict[str, list[int]]:
    """Return the tokens of each text that count, by set."""
    return by_set(all_sets(material).scored, material)


def by_set(values: Sequence[Value], material: Material) -> dict[str, list[Value]]:
    """Return what was found of the texts of `all_sets` by set."""
    left = iter(values)
    return {name: [next(left) for _ in texts] for name, texts in material.general.items()}
