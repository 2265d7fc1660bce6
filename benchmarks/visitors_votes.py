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
class Seen:
    """Two answers to a question of a visitor's."""

    visitor: int
    old: str
    new: str
    won: bool  # the new one


def vote_blind(folder: Path, old: str, new: str, everybody: Iterable[Visitor], votes: int) -> Won:
    """Let visitors ask both models and vote until there are so many votes; return what came of it.

    Args:
        folder: of GGUF files.
        old: the name of a model in it.
        new: the other's.
        everybody: visitors, as many as it takes.
        votes: how many.
    """
    asked: list[tuple[int, Visitor, str]] = []
    for number, visitor in enumerate(everybody):
        asked += [(number, visitor, visitor.question()) for _ in range(visitor.visits)]
        if len(asked) >= votes:
            break
    settings = Settings(max_loaded_models=2, slots=SLOTS, context=512, queue=2 * WAITING, prompt_cache_mb=0)
    found = {name: model for name, model in find_models(folder).items() if name in (old, new)}
    with Engine(found, settings) as engine:
        return counted(asyncio.run(_ask_all(engine, old, new, asked[:votes])))


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


async def _ask_all(engine: Engine, old: str, new: str, asked: Sequence[tuple[int, Visitor, str]]) -> list[Seen]:
    room = asyncio.Semaphore(WAITING)

    async def answer(model: str, visitor: Visitor, question: str) -> str:
        messages: list[Message] = [{"role": "system", "content": visitor.wish}, {"role": "user", "content": question}]
        async with room:
            return "".join([piece.text async for piece in engine.astream(model, messages, SEES)])

    async def see(number: int, visitor: Visitor, question: str) -> Seen:
        before, after = await asyncio.gather(*(answer(model, visitor, question) for model in (old, new)))
        if visitor.rng.random() < 0.5:  # which stands on the left
            won = visitor.prefers_left(after, before)
        else:
            won = not visitor.prefers_left(before, after)
        return Seen(number, before, after, won)

    return await asyncio.gather(*(see(*one) for one in asked))


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
