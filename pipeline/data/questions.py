"""Questions with known answers, which `evaluate` asks: checked here, and kept apart from what was trained on."""

import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.words import counted
from pipeline.core.data_settings import question_files
from pipeline.core.formats import Messages, UnusableRowError, convert, detect, is_unicode
from pipeline.data.checks import fault
from pipeline.data.decontaminate import asked
from pipeline.data.grading import LETTERS, chosen, words
from pipeline.data.sources import read_jsonl

KINDS = ("exact", "number", "text", "choice", "regex", "checks")  # pipeline/data/grading.py says what they ask for
GROUPS = ("held_out", "unasked", "instructions")
REQUIRED = ("prompt", "answer", "kind", "group", "task")  # of kind checks, checks in the place of the answer
OPTIONAL = ("system", "options")

Question = dict[str, Any]


def load_questions(root: Path, names: str | Sequence[str] | None, answer_after: str | None = None) -> list[Question]:
    """Return the questions of one JSONL file or several under `root`; none where `names` is None.

    Args:
        root: of the repository.
        names: of the files.
        answer_after: where a file has chats instead of questions: what the answer follows in the assistant's text.

    Raises:
        UserError: a file cannot be read, or a question lacks a field or has one that is not as it should be.
    """
    return [question for name in question_files(names) for question in _load(root, name, answer_after)]


def _load(root: Path, name: str, answer_after: str | None) -> list[Question]:
    if not (root / name).is_file():
        raise UserError(f"data.questions names {name}, which is no file; correct it, or set it to null")
    questions = read_jsonl(root / name, name)
    places = [f"{name}, question {number}" for number in range(1, len(questions) + 1)]
    if answer_after:
        task = Path(name).stem
        questions = [_from_chat(*pair, answer_after, task) for pair in zip(questions, places, strict=True)]
    for question, where in zip(questions, places, strict=True):
        _check(question, where)
    return questions


def drop_asked(
    questions: list[Question], training: Iterable[Messages], threshold: float | None = None
) -> list[Question]:
    """Return the questions that no user message of the training split asks, as `asked` has it.

    Raises:
        UserError: each is asked there.
    """
    said = (message["content"] for messages in training for message in messages if message["role"] == "user")
    known = asked((question["prompt"] for question in questions), said, threshold)
    kept = [question for question, there in zip(questions, known, strict=True) if not there]
    if questions and not kept:
        raise UserError(
            f"each of the {counted(len(questions), 'question')} in data.questions stands in the training split; "
            "ask others, or take theirs out of the data"
        )
    return kept


def _from_chat(row: Any, where: str, mark: str, task: str) -> object:
    """Return a chat of one question and one answer as a question.

    A number is asked for as such, anything else as a text.
    """
    shape = detect(row)
    if shape is None or "kind" in row:  # a question as it is, or something that the check names
        return row
    try:
        *before, question, reply = convert(row, shape)
    except UnusableRowError as error:
        raise UserError(f"{where}: {error.args[0]}") from error
    system = next((message["content"] for message in before if message["role"] == "system"), None)
    if len(before) > (system is not None):
        raise UserError(f"{where}: a chat of several turns; a question with its answer is wanted")
    _, marked, answer = reply["content"].rpartition(mark)
    if not marked:
        raise UserError(f"{where}: the answer has no {mark!r}, which data.answer_after says that it has")
    return {
        "prompt": question["content"],
        "answer": answer.strip(),
        "kind": "number" if _is_number(answer) else "text",
        "group": "held_out",
        "task": task,
        "system": system,
    }


def _check(question: object, where: str) -> None:
    if not isinstance(question, dict):
        raise UserError(f"{where}: not an object; it needs {', '.join(REQUIRED)}")
    checked = question.get("kind") == "checks"
    required = tuple("checks" if checked and field == "answer" else field for field in REQUIRED)
    missing = [field for field in required if field not in question]
    unknown = [field for field in question if field not in required + OPTIONAL]
    if missing or unknown:
        problem = f"lacks {', '.join(missing)}" if missing else f"has the unknown field {unknown[0]}"
        raise UserError(f"{where}: {problem}; it needs {', '.join(required)} and may have {', '.join(OPTIONAL)}")
    for field in ("prompt", "task") if checked else ("prompt", "answer", "task"):
        if not isinstance(question[field], str) or not question[field].strip():
            raise UserError(f"{where}: {field} is {question[field]!r}; it must be a text that is not empty")
    if not isinstance(question.get("system"), str | None):
        raise UserError(f"{where}: system is {question['system']!r}; it must be a text or null")
    for field, allowed in (("kind", KINDS), ("group", GROUPS)):
        if question[field] not in allowed:
            raise UserError(f"{where}: {field} is {question[field]!r}; it may be {' or '.join(allowed)}")
    _check_options(question.get("options"), question["kind"], where)
    if checked:
        _require_checks(question["checks"], where)
    elif needed := _needed(question):
        raise UserError(f"{where}: answer is {question['answer']!r}; kind {question['kind']} needs {needed}")
    if not is_unicode(json.dumps(question, ensure_ascii=False)):
        raise UserError(f"{where}: half a surrogate pair in a text; correct the \\ud8xx escape")


def _require_checks(checks: object, where: str) -> None:
    if not isinstance(checks, list) or not checks:
        raise UserError(f"{where}: checks is {checks!r}; it must be a list of at least one check")
    for number, check in enumerate(checks, start=1):
        if (wrong := fault(check)) is not None:
            raise UserError(f"{where}: check {number} {wrong}")


def _check_options(options: object, kind: str, where: str) -> None:
    if options is None:
        return
    if kind != "choice":
        raise UserError(f"{where}: options are for kind choice, and kind is {kind}")
    if not isinstance(options, list) or not all(isinstance(option, str) and words(option) for option in options):
        raise UserError(f"{where}: options is {options!r}; it must be a list of texts that are not empty")
    if not 2 <= len(options) <= len(LETTERS):
        raise UserError(f"{where}: there are {len(options)} options; it must be 2 to {len(LETTERS)}")
    # An option is known by its words and by its letter.
    for index, option in enumerate(options):
        others = [
            words(name) for other, text in enumerate(options) if other != index for name in (text, LETTERS[other])
        ]
        if words(option) in others:
            raise UserError(f"{where}: the option {option!r} says the same as another or as its letter; change one")


def _needed(question: Question) -> str | None:
    """Return what an answer of its kind would have to be, if it is not."""
    answer, options = question["answer"], question.get("options")
    match question["kind"]:
        case "number":
            return None if _is_number(answer) else "a number, such as 72 or 1,200.5"
        case "regex":
            return _needed_pattern(answer)
        case "choice" if options:
            return None if chosen(options, answer) is not None else "one of the options or its letter"
        case "choice":
            return None if words(answer) in map(words, LETTERS) else "options, or a single letter as the answer"
        case "text":
            return None if words(answer) else "a letter or a digit; kind exact takes any text"
        case _:
            return None


def _needed_pattern(answer: str) -> str | None:
    try:
        matches_nothing = re.compile(answer).fullmatch("")
    except re.error as error:
        return f"a regular expression of Python's ({error})"
    return "a regular expression that does not match an empty reply" if matches_nothing else None


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text.replace(",", "")))
    except ValueError:
        return False
