"""Questions with known answers, and the one rule by which a reply to one is right.

A reply may explain itself first, but must end with the answer: so it cannot be right by naming several candidates and
stopping on another. What that means follows from the question's `kind`:

- `exact`: the reply is the answer and nothing else, but for the space around it.
- `number`: the last number in the reply is the answer; `1,200` is 1200, and 11.0 is 11.
- `text`: the reply ends with the answer, both taken without case, punctuation and spacing.
- `choice`: of the `options`, the reply ends with the answer's text or letter, taken as a text is; where it ends with
  several, as "not Paris" does, it names the longest. They are asked as lines with letters. Without `options` the prompt
  has them, and the answer is a letter.
- `regex`: the answer is a regular expression that matches the reply from the beginning of some word to the end, but for
  closing punctuation; case counts unless it begins with (?i).
"""

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
WORD = re.compile(r"(?<![^\W_])(?<![.,/-])\S")  # its beginning; there is none within 1,200.5, 1/2, -3 or well-known
LETTERS = ascii_uppercase  # of options, in their order
CLOSING = ".,;:!?\"')]*_` "
HEADLINE_GROUP = "held_out"  # of the questions, where they have groups
Question = dict[str, Any]


def read_questions(path: Path, most: int | None) -> list[Question]:
    """Return the prepared questions, at most `most` of them, spread evenly over the file."""
    # Not splitlines(), which cuts at U+2028 as well.
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line]
    if most is not None and most < len(lines):
        lines = [lines[index * len(lines) // most] for index in range(most)]
    return [json.loads(line) for line in lines]


def as_chat(question: Question) -> list[dict[str, str]]:
    """Return a question as it is asked: system prompt, if it has one, and the user's turn."""
    system = [{"role": "system", "content": question["system"]}] if question.get("system") else []
    options = [f"{letter}) {option}" for letter, option in zip(LETTERS, question.get("options") or (), strict=False)]
    return [*system, {"role": "user", "content": "\n".join([question["prompt"], *options])}]


def is_right(question: Question, reply: str) -> bool:
    """Return whether a reply to a question is right, by the rule of its kind (above)."""
    answer, text = question["answer"], reply.strip()
    match question["kind"]:
        case "exact":
            return text == answer.strip()
        case "number":
            numbers = NUMBER.findall(THOUSANDS.sub("", text))
            return bool(numbers) and float(numbers[-1]) == float(answer.replace(",", ""))
        case "regex":
            return _matches_end(re.compile(answer), text)
        case "choice" if question.get("options"):
            return _chosen(question["options"], text) == chosen(question["options"], answer)
        case _:
            return ends_with(text, answer)


def chosen(options: list[str], answer: str) -> int | None:
    """Return which option an answer, its text or its letter, is; None where it is none."""
    for index, option in enumerate(options):
        if words(answer) in (words(option), words(LETTERS[index])):
            return index
    return None


def ends_with(reply: str, text: str) -> bool:
    """Return whether a reply's last words are those of a text that has any."""
    ending = words(text)
    return bool(ending) and words(reply)[-len(ending) :] == ending


def accuracies(questions: Sequence[Question], right: Sequence[bool]) -> dict[str, dict[str, float]]:
    """Return the share of right replies by group, and by group and task."""
    counted: dict[str, dict[str, list[bool]]] = {"groups": defaultdict(list), "tasks": defaultdict(list)}
    for question, verdict in zip(questions, right, strict=True):
        counted["groups"][question["group"]].append(verdict)
        counted["tasks"][f"{question['group']}/{question['task']}"].append(verdict)
    return {
        kind: {name: round(sum(verdicts) / len(verdicts), 4) for name, verdicts in by_name.items()}
        for kind, by_name in counted.items()
    }


def headline_group(groups: Iterable[str]) -> str:
    """Return the group by which accuracy is told."""
    given = set(groups)
    return HEADLINE_GROUP if HEADLINE_GROUP in given else min(given)


def words(text: str) -> list[str]:
    """Return a text's words without case, punctuation and spacing."""
    plain = unicodedata.normalize("NFKC", THOUSANDS.sub("", text)).casefold()
    return re.sub(r"[^\w\s]", " ", plain).split()


def _chosen(options: list[str], reply: str) -> int | None:
    """Return the option that a reply ends with; of several the longest, and its text before a letter."""
    named = [
        (len(words(text)), text is option, index)
        for index, option in enumerate(options)
        for text in (option, LETTERS[index])
        if ends_with(reply, text)
    ]
    return max(named)[2] if named else None


def _matches_end(pattern: re.Pattern[str], reply: str) -> bool:
    ends = {len(reply), len(reply.rstrip(CLOSING))}
    starts = [found.start() for found in WORD.finditer(reply)]
    return any(pattern.fullmatch(reply, start, end) for start in starts for end in ends)
