"""Answers on their way to the page: in the pace that it is redrawn, with their figures."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from itertools import pairwise
from typing import Any

from common.words import counted
from llama.types import Message, Sampling
from serve.engine import Engine, Piece
from serve.feedback import Timings

REDRAW_SECONDS = 0.05  # the page is redrawn at most this often: each redraw takes CPU time from the model


async def draw(
    engine: Engine, model: str, messages: Sequence[Message], sampling: Sampling
) -> AsyncIterator[tuple[str, Piece]]:
    """Yield the answer as far as it has come, as often as the page is redrawn. Raises RequestError."""
    text, drawn = "", 0.0
    async with aclosing(engine.astream(model, messages, sampling)) as pieces:  # type: ignore[type-var]
        async for piece in pieces:
            text += piece.text
            if piece.finish or time.monotonic() - drawn >= REDRAW_SECONDS:
                drawn = time.monotonic()
                yield text, piece


def conversation(system: Any, turns: Sequence[Message]) -> list[Message]:
    """Return the messages for the model.

    A question that was left without an answer (stopped at once, refused) is left out: in training each had one.
    """
    if system and str(system).strip():
        turns = [{"role": "system", "content": system}, *turns]
    kept = [turn for turn, following in pairwise(turns) if not turn["role"] == following["role"] == "user"]
    return [*kept, *turns[-1:]]


def figures(times: Timings) -> str:
    """Return how long an answer took, in a line."""
    first, total = (f"{seconds:.{1 if seconds >= 1 else 2}f} s" for seconds in (times.first_token, times.total))
    return f"{counted(times.tokens, 'token')}, {times.tokens_per_second:.0f}/s · {first} to the first, {total} in all"


def timings(piece: Piece) -> Timings:
    """Return the times of a record."""
    return Timings(piece.seconds - piece.generating, piece.seconds, piece.tokens, piece.tokens_per_second)
