"""Several answers at once, in the order in which their pieces come."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import TypeVar

T = TypeVar("T")  # what an answer comes in; not None


async def merged(answers: Sequence[AsyncIterator[T]]) -> AsyncGenerator[tuple[int, T | Exception], None]:
    """Yield what several answers yield, as it comes, with its answer's place; an error in the place of the rest."""
    async for item in merged_or_silent(answers, None):
        if item is not None:
            yield item


async def merged_or_silent(
    answers: Sequence[AsyncIterator[T]], silence: float | None
) -> AsyncGenerator[tuple[int, T | Exception] | None, None]:
    """Yield the same, and None whenever nothing has come for so many seconds."""
    drawn: asyncio.Queue[tuple[int, T | Exception | None]] = asyncio.Queue()  # None where one has ended

    async def pump(place: int, answer: AsyncIterator[T]) -> None:
        try:
            async for item in answer:
                drawn.put_nowait((place, item))
        except Exception as error:
            drawn.put_nowait((place, error))
        drawn.put_nowait((place, None))

    tasks = [asyncio.create_task(pump(place, answer)) for place, answer in enumerate(answers)]
    try:
        running = len(tasks)
        while running:
            try:
                place, item = await asyncio.wait_for(drawn.get(), silence)
            except TimeoutError:
                yield None
                continue
            if item is None:
                running -= 1
            else:
                yield place, item
    finally:
        for task in tasks:
            task.cancel()
