"""What an evaluation reads: the test split, the questions, the exported files, and the reports of earlier stages."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow.parquet as pq
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from common.errors import UserError
from pipeline.core.config import EvaluateSettings
from pipeline.core.paths import QUESTIONS, TEST
from pipeline.data.grading import Question, as_chat, read_questions
from pipeline.evaluation.answers import Messages
from pipeline.evaluation.loss import scored_tokens
from pipeline.models.chat import Row, encode, prompt_ids
from pipeline.models.refusal import Refusals, RefusedError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Material:
    """What every model is measured on."""

    tokenizer: PreTrainedTokenizerBase
    conversations: list[list[Row]]  # each as the rows that it makes
    questions: list[Question]
    settings: EvaluateSettings
    ends: frozenset[int]  # token ids that end an answer of the GGUF files, and so of the models beside them

    @cached_property
    def rows(self) -> list[Row]:
        """Those of all conversations."""
        return [row for rows in self.conversations for row in rows]

    @cached_property
    def scored(self) -> list[int]:
        """The tokens of each conversation that count."""
        return [sum(map(scored_tokens, rows)) for rows in self.conversations]

    def by_conversation(self, nats: Sequence[float | None]) -> list[float | None]:
        """Return what was measured of each row, summed over each conversation's.

        None where one of them is no number.
        """
        left = iter(nats)
        each = ([next(left) for _ in rows] for rows in self.conversations)
        return [None if None in some else sum(some) for some in each]  # type: ignore[arg-type]

    @cached_property
    def chats(self) -> list[Messages]:
        """The questions as they are asked."""
        return [as_chat(question) for question in self.questions]

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
    tokenizer = AutoTokenizer.from_pretrained(str(adapter))
    conversations = read_conversations(tokenizer, settings, loss_on)
    return Material(tokenizer, conversations, read_questions(QUESTIONS, settings.max_questions), settings, ends)


def read_conversations(tokenizer: PreTrainedTokenizerBase, settings: EvaluateSettings, loss_on: str) -> list[list[Row]]:
    """Return the test split as token ids with what counts marked; conversations without any are left out.

    Raises:
        UserError: the split is missing, or none of its rows has anything to score.
    """
    if not TEST.is_file():
        raise UserError(f"{TEST} is missing; run `dvc repro prepare` first")
    encoded, refusals = [], Refusals()
    for number, messages in enumerate(pq.read_table(TEST)["messages"].to_pylist()[: settings.max_rows], start=1):
        try:
            encoded.append(encode(tokenizer, messages, settings.max_length, loss_on))
        except RefusedError as refused:
            refusals.add(number, messages, str(refused))
    if refusals.total():
        logger.info(f"test: {refusals}, and left out")
    scored = ([row for row in rows if scored_tokens(row)] for rows in encoded)
    conversations = [rows for rows in scored if rows]
    if not conversations and refusals.total():
        raise UserError(f"nothing of {TEST} is left to score: {refusals}")
    if not conversations:
        raise UserError(
            f"no test row has an assistant token within evaluate.max_length {settings.max_length}; raise it"
        )
    return conversations
