"""Models that come in the place of others while 64 streams are read: what is dropped, what is mixed, how long it takes.

    python -m benchmarks.swap ONE.gguf OTHER.gguf                   6 swaps, forth and back
    python -m benchmarks.swap ONE.gguf OTHER.gguf --swaps 2 --clients 16

Each question is asked of either model alone. Then the clients ask them at temperature 0, one after the other, while a
folder's link is moved between the two and the server told to look. Each answer has to be, whole, the one that the model
which it names gives alone. Exit code 1 where one is not, or is not given.

Types that add up otherwise in company (Q4_K_M) may part from it where two tokens tie: take Q8_0, F16 or BF16.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from benchmarks.load import ANSWER_SECONDS, Full, Wrong, refuse, served, starter_questions
from benchmarks.releases import SETTINGS, Releases, look

MAX_TOKENS = 48
QUESTIONS = 12
BETWEEN = 2.0  # seconds between two swaps
FIGURES = ("tunesmith_swaps_total", "tunesmith_swap_failures_total", "tunesmith_two_models_seconds_total")


@dataclass
class Report:
    """What came of it."""

    given: Counter[str] = field(default_factory=Counter)  # answers, by the model's fingerprint
    failures: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)  # of the server


async def swapped(
    url: str, releases: Releases, questions: Sequence[str], clients: int, swaps: int, between: float = BETWEEN
) -> Report:
    """Let clients ask through so many swaps.

    Args:
        url: of a server with releases.SETTINGS, whose queue has room for all clients.
        releases: of one model each, which it follows.
        questions: that are asked.
        clients: that ask at once.
        swaps: even, so that it ends as it began.
        between: seconds between two.
    """
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=ANSWER_SECONDS) as client:
        model = (await client.get("/v1/models")).json()["data"][0]["id"]
        alone: dict[tuple[str, str], str] = {}
        for which in (0, 1):
            releases.move(which)
            await look(client)
            for question in questions:
                by, text = await answer(client, model, question)
                alone[by, question] = text
        report, over = Report(), asyncio.Event()
        visits = [
            asyncio.create_task(_visit(client, model, questions[number % len(questions) :], alone, over, report))
            for number in range(clients)
        ]
        for number in range(swaps):
            await asyncio.sleep(between)
            releases.move(number % 2)
            await look(client)
        await asyncio.sleep(between)
        over.set()
        await asyncio.gather(*visits)
        told = [line.split() for line in (await client.get("/metrics")).text.splitlines()]
        report.figures = {line[0]: float(line[1]) for line in told if line[0] in FIGURES}
        return report


async def answer(client: httpx.AsyncClient, model: str, question: str) -> tuple[str, str]:
    """Return the fingerprint of the model that answered, and the answer, read as a stream.

    Raises Wrong for one that does not end as it should, or is of two models.
    """
    body: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": question}]}
    body |= {"temperature": 0, "max_tokens": MAX_TOKENS, "stream": True}
    by, text, line = set[str](), "", ""
    async with client.stream("POST", "/v1/chat/completions", json=body) as stream:
        await stream.aread() if stream.is_error else None
        refuse(stream)
        async for line in stream.aiter_lines():
            if line.startswith("data: {"):
                event = json.loads(line.removeprefix("data: "))
                if "error" in event:
                    raise Wrong(event["error"]["message"])
                by.add(event["system_fingerprint"])
                text += event["choices"][0]["delta"].get("content", "")
            if line == "data: [DONE]":
                break
        else:
            raise Wrong(f"the stream ends with {line!r}")
    if len(by) > 1:
        raise Wrong(f"an answer of {' and '.join(sorted(by))}")
    return by.pop(), text


async def _visit(
    client: httpx.AsyncClient,
    model: str,
    questions: Sequence[str],
    alone: dict[tuple[str, str], str],
    over: asyncio.Event,
    report: Report,
) -> None:
    """Be one client, until all is over."""
    asked = 0
    while not over.is_set():
        question = questions[asked % len(questions)]
        asked += 1
        try:
            by, text = await answer(client, model, question)
            if text != alone[by, question]:
                raise Wrong(f"{text!r} instead of {alone[by, question]!r}")
            report.given[by] += 1
        except (Wrong, Full, httpx.HTTPError) as error:
            report.failures.append(f"{type(error).__name__}: {error}")


def main() -> int:
    """Run it and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.swap", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs=2, type=Path, help="two GGUF files")
    parser.add_argument("--clients", type=int, default=64, help="that ask at once (64)")
    parser.add_argument("--swaps", type=int, default=6, help="forth and back (6)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        releases, log = Releases.laid_out(Path(made), *arguments.models), Path(made, "log.txt")
        limits = {"queue": arguments.clients, "feedback": "off", "max_loaded_models": 1}
        with served(str(releases.link), log, **limits, **SETTINGS) as (url, _):
            report = asyncio.run(
                swapped(url, releases, starter_questions(QUESTIONS), arguments.clients, arguments.swaps)
            )
    print(f"{sum(report.given.values())} answers whole, of {', '.join(f'{n} {by}' for by, n in report.given.items())}")
    for name, value in report.figures.items():
        print(f"{name} {value:.2f}")
    print(f"{len(report.failures)} dropped, mixed or wrong", *report.failures[:5], sep="\n")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
