"""Blind votes of a new model against an old one, by visitors who come anew; and votes that mean harm, or nothing.

Answers are the server's engine's, several at once, from the GGUF files, as the page draws them: here without HTTP, as
20,000 of them take a while.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from statistics import fmean

import numpy as np

from benchmarks.visitors_table import Bound, Won
from benchmarks.visitors_taste import Mind, Visitor
from llama.types import Message, Sampling
from pipeline.statistics.intervals import bootstrap
from pipeline.statistics.paired import paired_choices
from serve.engine import Engine
from serve.feedback import AnswerRecord, FeedbackStore, Record, read_records
from serve.models.registry import find_models
from serve.page.controls import MAX_TOKENS, TEMPERATURE
from serve.settings import Settings

SLOTS = 16
WAITING = 64  # questions at once
SEES = Sampling(MAX_TOKENS, TEMPERATURE)  # as the page begins with


@dataclass(frozen=True)
class Asked:
    """A question of a visitor's."""

    number: int  # of the visitor
    visitor: Visitor
    question: str

    @property
    def messages(self) -> list[Message]:
        """What a model is asked."""
        return [{"role": "system", "content": self.visitor.wish}, {"role": "user", "content": self.question}]


@dataclass(frozen=True)
class Seen:
    """Two answers to a question of a visitor's."""

    visitor: int
    old: str
    new: str
    won: bool  # the new one


def questions(everybody: Iterable[Visitor], count: int) -> list[Asked]:
    """Return what visitors ask until there are so many questions."""
    asked: list[Asked] = []
    for number, visitor in enumerate(everybody):
        asked += [Asked(number, visitor, visitor.question()) for _ in range(visitor.visits)]
        if len(asked) >= count:
            break
    return asked[:count]


def answers(folder: Path, name: str, asked: Sequence[Asked]) -> list[str]:
    """Return what a model says to each question.

    Args:
        folder: of GGUF files.
        name: the name of a model in it.
        asked: the questions.
    """
    settings = Settings(slots=SLOTS, context=512, queue=2 * WAITING, prompt_cache_mb=0)
    with Engine({name: find_models(folder)[name]}, settings) as engine:
        return asyncio.run(_answer_all(engine, name, asked))


def votes(asked: Sequence[Asked], old: Sequence[str], new: Sequence[str]) -> list[Seen]:
    """Return how visitors vote between the answers of an old and a new model, not told which is whose."""
    seen = []
    for one, before, after in zip(asked, old, new, strict=True):
        if one.visitor.rng.random() < 0.5:  # which stands on the left
            won = one.visitor.prefers_left(after, before)
        else:
            won = not one.visitor.prefers_left(before, after)
        seen.append(Seen(one.number, before, after, won))
    return seen


def counted(seen: Sequence[Seen]) -> Won:
    """Return what votes come to."""
    whose = np.array([one.visitor for one in seen])
    won = np.bincount(whose, [one.won for one in seen])
    return Won(
        votes=len(seen),
        visitors=len(won),
        won=Bound.of(bootstrap(won, np.bincount(whose).tolist())),
        same=fmean(one.old == one.new for one in seen),
        characters=(fmean(len(one.old) for one in seen), fmean(len(one.new) for one in seen)),
    )


async def _answer_all(engine: Engine, name: str, asked: Sequence[Asked]) -> list[str]:
    room = asyncio.Semaphore(WAITING)

    async def answer(one: Asked) -> str:
        async with room:
            return "".join([piece.text async for piece in engine.astream(name, one.messages, SEES)])

    return await asyncio.gather(*map(answer, asked))


def revoted(folder: Path, out: Path, share: float, mind: Mind, seed: int) -> int:
    """Keep a folder's records anew as if a share of the visitors were of another mind; return how many of them.

    They were shown the same. Who is of another mind writes no answer anew.
    """
    records = read_records(folder).records
    names = sorted({record.visit.visitor for record in records if record.visit})
    rng = Random(seed)
    drawn = rng.sample(names, round(share * len(names)))
    others = {name: Visitor("", "", 0, 0.0, mind, Random(f"{seed} {name}")) for name in drawn}
    with FeedbackStore(out) as store:
        for record in records:
            whose = record.visit and others.get(record.visit.visitor)
            store.add(_again(record, whose) if whose else record)
    return len(others)


def _again(record: Record, visitor: Visitor) -> Record:
    """Return a record as a visitor judges the same answers."""
    if isinstance(record, AnswerRecord):
        return replace(record, verdict="good" if visitor.likes(record.answer.text) else "bad", edited=None)
    if record.vote not in ("left", "right"):
        return record
    return replace(record, vote="left" if visitor.prefers_left(record.left.text, record.right.text) else "right")


def by_chance(new: Sequence[bool], old: Sequence[bool], turns: int, level: float) -> float:
    """Return the share of turns that the gate lets through when each held-out pair is turned round by a coin.

    Args:
        new: of each pair, whether the new model finds the chosen answer likelier.
        old: whether the old one does.
        turns: how many.
        level: the gate's.
    """
    rng, ours, theirs = np.random.default_rng(0), np.array(new), np.array(old)
    coins = (rng.random(len(ours)) < 0.5 for _ in range(turns))
    found = (paired_choices((ours ^ coin).tolist(), (theirs ^ coin).tolist(), level, 0.0) for coin in coins)
    return fmean(one.finding == "better" for one in found)
