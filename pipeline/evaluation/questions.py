"""Questions with known answers, and the one rule by which a reply to one is right.

Reply and answer are compared without case, punctuation and spacing. For `kind: number` the last number in the reply
must be the answer; for `kind: text` the reply must end with the answer. So a reply may explain itself first, but cannot
be right by naming several candidates and stopping on another.
"""

import json
import re
import unicodedata
from collections import defaultdict
from pathlib import Path

NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
Question = dict[str, str]


def read_questions(path: Path, most: int | None) -> list[Question]:
    """The prepared questions, at most `most` of them, spread evenly over the file."""
    # Not splitlines(), which cuts at U+2028 as well.
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line]
    if most is not None and most < len(lines):
        lines = [lines[index * len(lines) // most] for index in range(most)]
    return [json.loads(line) for line in lines]


def as_chat(question: Question) -> list[dict[str, str]]:
    """A question as it is asked: system prompt, if it has one, and the user's turn."""
    system = [{"role": "system", "content": question["system"]}] if question.get("system") else []
    return [*system, {"role": "user", "content": question["prompt"]}]


def is_right(question: Question, reply: str) -> bool:
    """The rule above."""
    if question["kind"] == "number":
        numbers = NUMBER.findall(THOUSANDS.sub("", reply))
        return bool(numbers) and float(numbers[-1]) == float(question["answer"].replace(",", ""))
    answer, said = _words(question["answer"]), _words(reply)
    return bool(answer) and said[-len(answer) :] == answer


def accuracies(questions: list[Question], replies: list[str]) -> dict[str, dict[str, float]]:
    """The share of right replies by group, and by group and task."""
    right: dict[str, dict[str, list[bool]]] = {"groups": defaultdict(list), "tasks": defaultdict(list)}
    for question, reply in zip(questions, replies, strict=True):
        verdict = is_right(question, reply)
        right["groups"][question["group"]].append(verdict)
        right["tasks"][f"{question['group']}/{question['task']}"].append(verdict)
    return {
        kind: {name: round(sum(verdicts) / len(verdicts), 4) for name, verdicts in by_name.items()}
        for kind, by_name in right.items()
    }


def _words(text: str) -> list[str]:
    plain = unicodedata.normalize("NFKC", THOUSANDS.sub("", text)).casefold()
    return re.sub(r"[^\w\s]", " ", plain).split()
