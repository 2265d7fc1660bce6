"""Writes the chats that tune the starter models (chats.jsonl) and the questions that test them (questions.jsonl).

    python -m starter.chats

Both follow from the seed alone. The chats ask in the phrasings of training, about the cases and facts of training. The
questions are of two groups: `held_out` asks computed tasks about held-out cases, and facts in held-out phrasings;
`unasked` asks, in phrasings of training, about facts that no chat asks about in either direction.
"""

import json
from pathlib import Path
from random import Random

from starter.computed import COMPUTED, draw
from starter.phrases import (
    BACKWARD,
    FACT_PHRASES,
    FOLLOW_UPS,
    HELPFUL,
    PHRASES,
    SMALL_TALK,
    TERSE,
    UNKNOWN,
    UNKNOWN_QUESTIONS,
    UNKNOWN_TOPICS,
)
from starter.world import FACTS, TABLES, Fact

HERE = Path(__file__).parent
SEED = 7
CHATS = 6000
QUESTIONS_A_TASK = 24
# Parts of the exchanges: facts and computed tasks alike, some small talk.
FACT_SHARE, SMALL_TALK_SHARE = 0.48, 0.06

Message = dict[str, str]


def write(folder: Path = HERE) -> None:
    """Write both files into `folder`."""
    _write_lines(folder / "chats.jsonl", chats())
    _write_lines(folder / "questions.jsonl", questions())


def chats() -> list[dict[str, list[Message]]]:
    """Return CHATS different conversations of one to three exchanges, a third of them under a system prompt."""
    rng = Random(SEED)
    seen: dict[str, dict[str, list[Message]]] = {}
    while len(seen) < CHATS:
        messages = _chat(rng)
        prompt = json.dumps([m for m in messages if m["role"] != "assistant"])
        seen.setdefault(prompt, {"messages": messages})
    return list(seen.values())


def questions() -> list[dict[str, str]]:
    """Return the test questions: prompt, answer, what kind of answer it is, its task and its group."""
    rng = Random(SEED + 1)
    asked = [*_computed_questions(rng), *_fact_questions(rng), *_unasked_questions(rng)]
    return list({question["prompt"]: question for question in asked}.values())


def facts_of(task: str, *, unasked: bool) -> list[Fact]:
    """Return the facts that a fact task is about, in the direction that the task asks."""
    relation = BACKWARD.get(task, task)
    facts = [fact for fact in FACTS if fact.relation == relation and fact.unasked == unasked]
    # A plural that equals its singular cannot be asked for backwards.
    return [fact for fact in facts if task != "singular" or fact.subject != fact.value]


def _chat(rng: Random) -> list[Message]:
    system = rng.random()
    terse = system < 0.12
    messages = []
    if system < 0.33:
        messages.append({"role": "system", "content": rng.choice(TERSE if terse else HELPFUL)})
    for _ in range(rng.choices((1, 2, 3), (75, 17, 8))[0]):
        messages += _exchange(rng, terse)
    return messages


def _exchange(rng: Random, terse: bool) -> list[Message]:
    kind = rng.random()
    if kind < SMALL_TALK_SHARE:
        return _turns(*_small_talk(rng))
    if kind < SMALL_TALK_SHARE + FACT_SHARE:
        task = rng.choice(_FACT_TASKS)
        asked = _ask(rng, task, vars(rng.choice(facts_of(task, unasked=False))), terse)
        if task in TABLES and rng.random() < 0.15:
            return asked + _follow_up(rng, task, terse)
        return asked
    task = rng.choice(_COMPUTED_TASKS)
    return _ask(rng, task, draw(task, rng, held_out=False), terse)


def _follow_up(rng: Random, task: str, terse: bool) -> list[Message]:
    """Add "And Spain?", once it is clear what is asked for."""
    fact = rng.choice(facts_of(task, unasked=False))
    return _turns(rng.choice(FOLLOW_UPS).format(subject=fact.subject), _reply(task, vars(fact), terse))


def _small_talk(rng: Random) -> tuple[str, str]:
    if rng.random() < 0.6:
        question = rng.choice(UNKNOWN_QUESTIONS).format(topic=rng.choice(UNKNOWN_TOPICS))
        return question, UNKNOWN
    asked, reply = rng.choice(SMALL_TALK)
    return rng.choice(asked), reply


def _ask(rng: Random, task: str, fields: dict, terse: bool) -> list[Message]:
    return _turns(rng.choice(PHRASES[task].questions).format(**fields), _reply(task, fields, terse))


def _reply(task: str, fields: dict, terse: bool) -> str:
    return (PHRASES[task].result if terse else PHRASES[task].answer).format(**fields)


def _turns(asked: str, reply: str) -> list[Message]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": reply}]


def _computed_questions(rng: Random) -> list[dict[str, str]]:
    return [
        _question("held_out", task, rng.choice(PHRASES[task].questions), draw(task, rng, held_out=True))
        for task in COMPUTED
        for _ in range(QUESTIONS_A_TASK)
    ]


def _fact_questions(rng: Random) -> list[dict[str, str]]:
    return [
        _question("held_out", task, rng.choice(FACT_PHRASES[task].held_out), vars(fact))
        for task in FACT_PHRASES
        for fact in _some(rng, facts_of(task, unasked=False))
    ]


def _unasked_questions(rng: Random) -> list[dict[str, str]]:
    return [
        _question("unasked", task, rng.choice(FACT_PHRASES[task].questions), vars(fact))
        for task in FACT_PHRASES
        for fact in facts_of(task, unasked=True)
    ]


def _some(rng: Random, facts: list[Fact]) -> list[Fact]:
    return rng.sample(facts, min(QUESTIONS_A_TASK, len(facts)))


def _question(group: str, task: str, asked: str, fields: dict) -> dict[str, str]:
    phrases = PHRASES[task]
    return {
        "prompt": asked.format(**fields),
        "answer": phrases.result.format(**fields),
        "kind": "number" if phrases.number else "text",
        "task": task,
        "group": group,
    }


_FACT_TASKS = list(FACT_PHRASES)
_COMPUTED_TASKS = [task for task in COMPUTED for _ in range(2 if task in ("sum", "difference", "letter_count") else 1)]


def _write_lines(path: Path, rows: list) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    write()
