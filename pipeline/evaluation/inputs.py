"""What an evaluation reads: the test split, the questions, the exported files, and the reports of earlier stages."""

import csv
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from pipeline.config import EvaluateSettings
from pipeline.errors import UserError
from pipeline.evaluation.answers import Messages, prompt_ids
from pipeline.evaluation.loss import Conversation, scored_tokens
from pipeline.evaluation.questions import Question, as_chat, read_questions
from pipeline.files import read_made
from pipeline.training.chat import encode

TEST = Path("data/prepared/test.parquet")
QUESTIONS = Path("data/prepared/questions.jsonl")


@dataclass(frozen=True)
class Material:
    """What every model is measured on."""

    tokenizer: PreTrainedTokenizerBase
    rows: list[Conversation]
    questions: list[Question]
    settings: EvaluateSettings
    ends: frozenset[int]  # token ids that end an answer of the GGUF files, and so of the models beside them

    @cached_property
    def chats(self) -> list[Messages]:
        """The questions as they are asked."""
        return [as_chat(question) for question in self.questions]

    @cached_property
    def longest_chat(self) -> int:
        """Tokens of the longest question with its answer."""
        asked = max((len(prompt_ids(self.tokenizer, chat)) for chat in self.chats), default=0)
        return asked + self.settings.max_new_tokens


def read_material(adapter: Path, settings: EvaluateSettings, ends: frozenset[int]) -> Material:
    """Test rows and questions, for the tokenizer that training used, and the `ends` of an answer.

    Raises:
        UserError: the prepared data is missing, or there is nothing in it to score.
    """
    tokenizer = AutoTokenizer.from_pretrained(str(adapter))
    rows = read_rows(tokenizer, settings)
    return Material(tokenizer, rows, read_questions(QUESTIONS, settings.max_questions), settings, ends)


def read_rows(tokenizer: PreTrainedTokenizerBase, settings: EvaluateSettings) -> list[Conversation]:
    """The test split as token ids with the assistant's tokens marked; rows without any are left out.

    Raises:
        UserError: the split is missing, or none of its rows has anything to score.
    """
    if not TEST.is_file():
        raise UserError(f"{TEST} is missing; run `dvc repro prepare` first")
    conversations = pq.read_table(TEST)["messages"].to_pylist()[: settings.max_rows]
    encoded: list[Conversation] = [encode(tokenizer, messages, settings.max_length) for messages in conversations]
    rows = [row for row in encoded if scored_tokens(row)]
    if not rows:
        raise UserError(
            f"no test row has an assistant token within evaluate.max_length {settings.max_length}; raise it"
        )
    return rows


def read_manifest(path: Path) -> dict[str, Any]:
    """What `export` says of its files.

    Raises:
        UserError: it is missing, or of an export that did not check its files.
    """
    manifest = read_made(path, "export")
    for file in manifest["files"]:
        if "of" not in file or (file["of"] != "adapter" and "kl" not in file):
            raise UserError(f"{path} has no checks of {file['file']}; run `dvc repro export`, which makes them")
    return manifest


def read_curve(path: Path) -> list[dict[str, Any]]:
    """Training and validation loss by step; null where a step has only one of them."""
    points: dict[int, dict[str, Any]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            step = int(row["step"])
            point = points.setdefault(step, {"step": step, "loss": None, "validation_loss": None})
            point["loss" if row["split"] == "train" else "validation_loss"] = float(row["loss"])
    return [points[step] for step in sorted(points)]
