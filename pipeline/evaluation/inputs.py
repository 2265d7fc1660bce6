"""What an evaluation reads: the test split, the questions, the exported files, and the reports of earlier stages."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from common.errors import UserError
from common.words import counted
from pipeline.core.config import EvaluateSettings
from pipeline.core.paths import QUESTIONS, TEST
from pipeline.data.checks import languages_asked
from pipeline.data.grading import Question, as_chat, read_questions
from pipeline.evaluation.answers import Messages
from pipeline.evaluation.loss import scored_tokens
from pipeline.evaluation.measurement_cache import digest
from pipeline.models.chat import Row, encode, prompt_ids
from pipeline.models.refusal import Refusals, RefusedError
from pipeline.report.rows import digests

logger = logging.getLogger(__name__)


class Extent(NamedTuple):
    """How much of the material a model is measured on: the first so many."""

    rows: int  # conversations
    questions: int


@dataclass(frozen=True)
class Conversation:
    """One of the test split, as the rows that it makes."""

    number: int  # in the split, from 1
    digest: str  # of its messages
    rows: list[Row]

    @cached_property
    def row_keys(self) -> list[str]:
        """What tells each row from others, for as often as models and rounds ask."""
        return [_key(row) for row in self.rows]


@dataclass(frozen=True)
class Material:
    """What every model is measured on, in the order in which it is."""

    tokenizer: PreTrainedTokenizerBase
    conversations: list[Conversation]
    questions: list[Question]
    settings: EvaluateSettings
    ends: frozenset[int]  # token ids that end an answer of the GGUF files, and so of the models beside them
    general: dict[str, list[Conversation]] = field(default_factory=dict)  # texts that nothing was taught of, by set
    pairs: tuple[tuple[Conversation, Conversation], ...] = ()  # a chosen and a rejected answer

    def first(self, extent: Extent) -> "Material":
        """Return the same with so many conversations and questions alone."""
        return replace(
            self, conversations=self.conversations[: extent.rows], questions=self.questions[: extent.questions]
        )

    @cached_property
    def rows(self) -> list[Row]:
        """Those of all conversations."""
        return [row for conversation in self.conversations for row in conversation.rows]

    @cached_property
    def row_keys(self) -> list[str]:
        """What tells each row from others in all that its loss depends on."""
        return [key for conversation in self.conversations for key in conversation.row_keys]

    @cached_property
    def longest_row(self) -> int:
        """Tokens of the longest row."""
        return max(len(ids) for ids, _ in self.rows)

    @cached_property
    def scored(self) -> list[int]:
        """The tokens of each conversation that count."""
        return [sum(map(scored_tokens, conversation.rows)) for conversation in self.conversations]

    def by_conversation(self, nats: Sequence[float | None]) -> list[float | None]:
        """Return what was measured of each row, summed over each conversation's.

        None where one of them is no number.
        """
        left = iter(nats)
        each = ([next(left) for _ in conversation.rows] for conversation in self.conversations)
        return [None if None in some else sum(some) for some in each]  # type: ignore[arg-type]

    @cached_property
    def chats(self) -> list[Messages]:
        """The questions as they are asked."""
        return [as_chat(question) for question in self.questions]

    @cached_property
    def asked(self) -> list[str | None]:
        """The words of questions and prompts; None where one says in which language the reply has to be."""
        questions = [
            None if languages_asked(question.get("checks", [])) else question["prompt"] for question in self.questions
        ]
        return [*questions, *self.settings.prompts]

    @cached_property
    def chat_keys(self) -> list[str]:
        """What tells each question from others in all that the reply depends on."""
        return [_key(chat) for chat in self.chats]

    @cached_property
    def longest_chat(self) -> int:
        """Tokens of the longest question with its answer."""
        prompt_tokens = max((len(prompt_ids(self.tokenizer, chat)) for chat in self.chats), default=0)
        return prompt_tokens + self.settings.max_new_tokens


def read_material(adapter: Path, settings: EvaluateSettings, loss_on: str, ends: frozenset[int]) -> Material:
    """Return test rows and questions, for the tokenizer that training used and what it learnt of a conversation.

    With them, the `ends` of an answer.

    Raises:
        UserError: the prepared data is missing, or there is nothing in it to score.
    """
    tokenizer = AutoTokenizer.from_pretrained(str(adapter), trust_remote_code=False)
    conversations = read_conversations(tokenizer, settings, loss_on)
    return Material(tokenizer, conversations, drawn_questions(settings), settings, ends)


def drawn_questions(settings: EvaluateSettings) -> list[Question]:
    """Return the prepared questions in the order of the seed, at most `max_questions` of them."""
    questions = read_questions(QUESTIONS, None)
    return [questions[place] for place in drawn(digests(questions), settings.seed)][: settings.max_questions]


def drawn(names: Sequence[str], seed: int) -> list[int]:
    """Return the places of names in an order by chance, which no other name that comes or goes changes."""
    return sorted(range(len(names)), key=lambda place: _key([seed, names[place]]))


def read_conversations(
    tokenizer: PreTrainedTokenizerBase, settings: EvaluateSettings, loss_on: str
) -> list[Conversation]:
    """Return the test split as token ids with what counts marked; conversations without any are left out.

    In the order of the seed, at most `max_rows` of them.

    Raises:
        UserError: the split is missing, or none of its rows has anything to score.
    """
    if not TEST.is_file():
        raise UserError(f"{TEST} is missing; run `dvc repro prepare` first")
    chats = pq.read_table(TEST)["messages"].to_pylist()
    names = digests(chats)
    conversations, refusals, empty = [], Refusals(), 0
    for place in drawn(names, settings.seed)[: settings.max_rows]:
        try:
            encoded = encode(tokenizer, chats[place], settings.max_length, loss_on)
        except RefusedError as refused:
            refusals.add(place + 1, chats[place], str(refused))
            continue
        if rows := [row for row in encoded if scored_tokens(row)]:
            conversations.append(Conversation(place + 1, names[place], rows))
        else:
            empty += 1
    if refusals.total():
        logger.info(f"test: {refusals}, and left out")
    if conversations and empty:
        logger.info(f"test: {counted(empty, 'row')} without an assistant token to score, and left out")
    if not conversations and refusals.total():
        raise UserError(f"nothing of {TEST} is left to score: {refusals}")
    if not conversations:
        raise UserError(
            f"no test row has an assistant token within evaluate.max_length {settings.max_length}; raise it"
        )
    return conversations


def _key(content: object) -> str:
    """Return what tells a content from others."""
    return digest(content)[:16]
