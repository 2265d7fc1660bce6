"""Questions with known answers, which `evaluate` asks: checked here, and kept apart from what was trained on."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.data.dedup import normalize
from pipeline.data.formats import Messages, is_unicode
from pipeline.data.sources import read_jsonl
from pipeline.errors import UserError

KINDS = ("number", "text")
GROUPS = ("held_out", "unasked")
REQUIRED = ("prompt", "answer", "kind", "group", "task")
OPTIONAL = ("system",)

Question = dict[str, Any]


def load_questions(root: Path, name: str | None) -> list[Question]:
    """The questions of the JSONL file `name` under `root`; none where `name` is None.

    Raises:
        UserError: the file cannot be read, or a question lacks a field or has one that is not as it should be.
    """
    if name is None:
        return []
    if not (root / name).is_file():
        raise UserError(f"data.questions names {name}, which is no file; correct it, or set it to null")
    questions = read_jsonl(root / name, name)
    for number, question in enumerate(questions, start=1):
        _check(question, f"{name}, question {number}")
    return questions


def drop_asked(questions: list[Question], training: Iterable[Messages]) -> list[Question]:
    """The questions whose prompt is no user message of the training split.

    Raises:
        UserError: all of them are.
    """
    asked = {
        normalize(message["content"]) for messages in training for message in messages if message["role"] == "user"
    }
    kept = [question for question in questions if normalize(question["prompt"]) not in asked]
    if questions and not kept:
        raise UserError(
            f"each of the {len(questions)} questions in data.questions stands in the training split; "
            "ask others, or take theirs out of the data"
        )
    return kept


def _check(question: Any, where: str) -> None:
    if not isinstance(question, dict):
        raise UserError(f"{where}: not an object; it needs {', '.join(REQUIRED)}")
    missing = [field for field in REQUIRED if field not in question]
    unknown = [field for field in question if field not in REQUIRED + OPTIONAL]
    if missing or unknown:
        problem = f"lacks {', '.join(missing)}" if missing else f"has the unknown field {unknown[0]}"
        raise UserError(f"{where}: {problem}; it needs {', '.join(REQUIRED)} and may have {', '.join(OPTIONAL)}")
    for field in ("prompt", "answer", "task"):
        if not isinstance(question[field], str) or not question[field].strip():
            raise UserError(f"{where}: {field} is {question[field]!r}; it must be a text that is not empty")
    if not isinstance(question.get("system"), str | None):
        raise UserError(f"{where}: system is {question['system']!r}; it must be a text or null")
    for field, allowed in (("kind", KINDS), ("group", GROUPS)):
        if question[field] not in allowed:
            raise UserError(f"{where}: {field} is {question[field]!r}; it may be {' or '.join(allowed)}")
    if question["kind"] == "number" and not _is_number(question["answer"]):
        raise UserError(f"{where}: answer is {question['answer']!r}; kind number needs a number, such as 72 or 1,200.5")
    if not all(is_unicode(text) for text in question.values() if text is not None):
        raise UserError(f"{where}: half a surrogate pair in a text; correct the \\ud8xx escape")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text.replace(",", "")))
    except ValueError:
        return False
