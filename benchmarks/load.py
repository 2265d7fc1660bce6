"""Many clients at once on the chat server for minutes: what fails, what grows, whether answers stay what they were.

    python -m benchmarks.load                              64 clients for 10 minutes, on models/gguf
    python -m benchmarks.load --minutes 1 --clients 16     less of it; --models and --out as wanted
    python -m benchmarks.load --swap-seconds 0             no model is swapped meanwhile

First every question is asked alone. Then the clients ask the same ones in each other's company, in random order: short
and long, of one turn and of several, with shared system prompts and without, greedy and drawn with a seed; they read
answers as a stream, at once as a whole, or hang up in the middle. Each answer has to be the one that was given alone.
Where the kernels of a type do not add up in one order, a greedy answer may part from it where its two best logits lie
closer than the noise that is measured afterwards (noise.py), and one that is drawn may be another. Being turned away
because the queue is full is no failure; everything else is. The server's memory is read all along.

Every minute all models are swapped for others, of the same files: no answer changes by it, and no memory is left over.
Answers of models that differ are swap.py's.

Exit code 1 where something failed. benchmarks/results/serve-load.md has the table, serve-load.json all figures.
"""

import argparse
import asyncio
import json
import os
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import httpx
import psutil

from benchmarks import noise
from benchmarks.releases import SETTINGS, Releases, look
from common.errors import UserError
from common.files import write_json, write_text
from llama.cpus import usable_cpus
from llama.model import INEXACT, LlamaModel
from serve.models.registry import Model, find_models
from serve.settings import variable

REPOSITORY = Path(__file__).parents[1]
CHATS = REPOSITORY / "starter/chats.jsonl"
RESULTS = REPOSITORY / "benchmarks/results"
SEED = 0
SYSTEM = "You are Tunesmith, a friendly assistant. You answer in one short sentence, and you never guess."
MODELS = ("Q8_0", "Q4_K_M")  # of those that there are, by the ends of their names
STREAMS = 4  # answers at once when the noise is measured
WARM_UP = 0.2  # share of the time after which memory should have stopped growing
MOST_GROWTH = 0.02
SAMPLE_SECONDS = 2.0  # between two looks at the server's memory
SWAP_SECONDS = 60.0  # between two swaps
BUSY_SECONDS = 2.0  # that a client turned away stays away at most, whatever it is advised: pressure is what is wanted
START_SECONDS = 120.0
ANSWER_SECONDS = 300.0  # that the server may be silent to one client, on a machine with other work
QUESTIONS, LONG = 24, 1200  # conversations for each model; characters of a long question, for 1024 tokens of context
SHOWN = 5  # failures that the report quotes


KINDS = {"stream": 5, "whole": 3, "hang up": 2}  # how an answer is read, and how often of ten


@dataclass(frozen=True)
class Case:
    """A conversation: what is asked in turn, and how the answers are drawn."""

    model: str
    system: str | None
    turns: tuple[str, ...]
    temperature: float
    max_tokens: int

    def request(self, answers: Sequence[str], stream: bool = False) -> dict[str, Any]:
        """Return the body of the request that follows so many answers."""
        messages = [{"role": "system", "content": self.system}] if self.system else []
        for question, answer in zip(self.turns, answers, strict=False):
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        messages.append({"role": "user", "content": self.turns[len(answers)]})
        drawn = {"temperature": self.temperature, "seed": SEED, "max_tokens": self.max_tokens}
        return {"model": self.model, "messages": messages, "stream": stream, **drawn}


@dataclass(frozen=True)
class Other:
    """A greedy answer that is not the one alone, of a type that may part from it."""

    body: dict[str, Any]
    text: str
    whole: bool  # else its reader hung up


@dataclass(frozen=True)
class Sample:
    """What the server takes of the machine."""

    at: float  # seconds since the clients came
    memory: int  # bytes, resident
    files: int  # open, connections included
    threads: int


@dataclass
class Report:
    """What came of it."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    others: list[Other] = field(default_factory=list)
    noise: dict[str, float] = field(default_factory=dict)  # of logits, by model
    first: list[float] = field(default_factory=list)  # seconds to the first words of a stream
    swaps: int = 0
    samples: list[Sample] = field(default_factory=list)

    def share(self, begin: float, end: float) -> list[Sample]:
        """Return those between two shares of the time."""
        last = self.samples[-1].at
        return [sample for sample in self.samples if begin * last <= sample.at <= end * last]

    @property
    def memory(self) -> tuple[float, float]:
        """Bytes after the warm-up, and at the end: medians over a tenth of the time each."""
        early, late = self.share(WARM_UP, WARM_UP + 0.1), self.share(0.9, 1)
        return median(sample.memory for sample in early), median(sample.memory for sample in late)

    @property
    def waited(self) -> tuple[float, float]:
        """Seconds to the first words of a stream: the median, and what 95 of 100 stayed below."""
        first = sorted(self.first)
        return first[len(first) // 2], first[len(first) * 95 // 100]

    @property
    def growth(self) -> float:
        """Of the memory after the warm-up, as a share."""
        early, late = self.memory
        return late / early - 1


class Swaps(NamedTuple):
    """What is swapped under load, and how often."""

    releases: Releases
    seconds: float  # between two; 0: never


class Wrong(Exception):
    """An answer is not what it should be; the text says how."""


class Differs(Wrong):
    """An answer is not the one that was given alone."""


class Full(Exception):
    """The queue is full."""


def cases(models: Sequence[str], questions: Sequence[str], long: int) -> list[Case]:
    """Return conversations of every kind, as many for each model as there are questions.

    Long ones have `long` characters.
    """
    draw = random.Random(SEED)
    found = []
    for model in models:
        for question in questions:
            text = " ".join(draw.sample(questions, len(questions)))[:long]
            turns = draw.choice([(question,), (question, *draw.sample(questions, 2)), (f"{text}\n{question}",)])
            system, temperature = draw.choice((None, SYSTEM)), draw.choice((0.0, 0.0, 0.9))
            found.append(Case(model, system, turns, temperature, draw.choice((24, 64))))
    return found


async def alone(client: httpx.AsyncClient, conversations: Sequence[Case]) -> dict[Case, list[str]]:
    """Return each conversation's answers, given while nobody else asks."""
    answers: dict[Case, list[str]] = {case: [] for case in conversations}
    for case, replies in answers.items():
        for _ in case.turns:
            replies.append(await whole(client, case.request(replies)))
    return answers


async def together(
    client: httpx.AsyncClient,
    server: psutil.Process,
    answers: dict[Case, list[str]],
    clients: int,
    seconds: float,
    swaps: Swaps,
) -> Report:
    """Let clients ask for so many seconds, and hold what they get against the answers given alone."""
    report, began = Report(), time.monotonic()
    watching = asyncio.create_task(watch(server, report))
    visits = (visit(client, answers, began + seconds, random.Random(number), report) for number in range(clients))
    await asyncio.gather(*visits, swap_all(client, swaps, began + seconds, report))
    watching.cancel()
    return report


async def swap_all(client: httpx.AsyncClient, swaps: Swaps, until: float, report: Report) -> None:
    """Swap all models from time to time, until the time is over."""
    while swaps.seconds and time.monotonic() + swaps.seconds < until:
        await asyncio.sleep(swaps.seconds)
        swaps.releases.move((report.swaps + 1) % 2)
        try:
            await look(client)
        except (UserError, httpx.HTTPError) as error:
            report.failures.append(f"swap {report.swaps + 1}: {type(error).__name__}: {error}")
        report.swaps += 1


async def watch(server: psutil.Process, report: Report) -> None:
    """Look at the server from time to time."""
    began = time.monotonic()
    while True:
        at = time.monotonic() - began
        report.samples.append(Sample(at, server.memory_info().rss, server.num_fds(), server.num_threads()))
        await asyncio.sleep(SAMPLE_SECONDS)


async def visit(
    client: httpx.AsyncClient, answers: dict[Case, list[str]], until: float, draw: random.Random, report: Report
) -> None:
    """Be one client: a conversation after the other until the time is over."""
    conversations = list(answers)
    while time.monotonic() < until:
        case = draw.choice(conversations)
        for number, expected in enumerate(answers[case]):
            (kind,) = draw.choices(list(KINDS), list(KINDS.values()))
            body = case.request(answers[case][:number], kind != "whole")
            outcome = await ask(client, body, expected, kind, draw, report)
            report.outcomes[outcome] += 1
            if outcome == "full":
                await asyncio.sleep(draw.uniform(0.5, 1) * BUSY_SECONDS)
                break


async def ask(
    client: httpx.AsyncClient, body: dict[str, Any], expected: str, kind: str, draw: random.Random, report: Report
) -> str:
    """Ask once, and say how it went: by the kind of request, `full`, `drawn otherwise` or `failed`."""
    text, left = "", False
    try:
        if kind == "whole":
            check(text := await whole(client, body), expected)
        else:
            began = time.monotonic()
            patience = draw.randint(1, len(expected) or 1) if kind == "hang up" else None  # characters
            async for piece in stream(client, body):
                if not text:
                    report.first.append(time.monotonic() - began)
                text += piece
                if patience and len(text) >= patience:
                    left = True
                    break
            check(text, expected[: len(text)] if left else expected)
    except Full:
        return "full"
    except Differs as error:
        if not body["model"].endswith(INEXACT):
            report.failures.append(f"{kind} of {body['model']} at temperature {body['temperature']}: {error}")
            return "failed"
        if body["temperature"]:
            return "drawn otherwise"
        report.others.append(Other(body, text, not left))
    except (Wrong, httpx.HTTPError) as error:
        report.failures.append(f"{kind} of {body['model']}: {type(error).__name__}: {error}")
        return "failed"
    return kind


def check(text: str, expected: str) -> None:
    """Raise Differs for another answer than was given alone."""
    if text != expected:
        raise Differs(f"{text!r} instead of {expected!r}")


async def whole(client: httpx.AsyncClient, body: dict[str, Any]) -> str:
    """Return an answer at once."""
    answer = await client.post("/v1/chat/completions", json=body)
    refuse(answer)
    return answer.json()["choices"][0]["message"]["content"]


async def stream(client: httpx.AsyncClient, body: dict[str, Any]) -> AsyncIterator[str]:
    """Yield the pieces of an answer; hangs up when it is closed."""
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        await answer.aread() if answer.is_error else None
        refuse(answer)
        line = ""
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                event = json.loads(line.removeprefix("data: "))
                if "error" in event:
                    raise Wrong(f"the stream ends with {event['error']['message']!r}")
                yield event["choices"][0]["delta"].get("content", "")


def refuse(answer: httpx.Response) -> None:
    """Raise Full or Wrong for what is no answer."""
    if answer.is_success:
        return
    message = answer.json()["error"]["message"]
    if answer.status_code == 503 and message.startswith("The queue is full") and "Retry-After" in answer.headers:
        raise Full
    raise Wrong(f"{answer.status_code} {message}")


async def leftovers(client: httpx.AsyncClient) -> list[str]:
    """Return what the server still takes for asked when everybody has left."""
    for _ in range(100):
        figures = (await client.get("/metrics")).text.splitlines()
        left = [line for line in figures if line.startswith(("tunesmith_answering ", "tunesmith_waiting "))]
        left = [line for line in left if not line.endswith(" 0.0")]
        if not left:
            break
        await asyncio.sleep(0.1)
    return left


async def load(
    url: str,
    server: psutil.Process,
    questions: Sequence[str],
    long: int,
    clients: int,
    seconds: float,
    swaps: Swaps,
) -> Report:
    """Ask alone, then together; see the module."""
    limits, timeout = httpx.Limits(max_connections=None), httpx.Timeout(ANSWER_SECONDS)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=timeout) as client:
        names = [model["id"] for model in (await client.get("/v1/models")).json()["data"]]
        conversations = cases([name for name in names if name.endswith(MODELS)] or names, questions, long)
        answers = await alone(client, conversations)
        report = await together(client, server, answers, clients, seconds, swaps)
        report.failures += [f"after all have left: {line}" for line in await leftovers(client)]
        return report


def judge(report: Report, models: Mapping[str, Model]) -> None:
    """Measure the noise of batching, and count as failed what parts from the answer alone at no tie."""
    for name in dict.fromkeys(other.body["model"] for other in report.others):
        others = [other for other in report.others if other.body["model"] == name]
        with LlamaModel(models[name].path, models[name].context, usable_cpus(), STREAMS) as model:
            bodies = {str(other.body["messages"]): other.body for other in others}
            answers = {key: noise.alone(model, body["messages"], body["max_tokens"]) for key, body in bodies.items()}
            least = report.noise[name] = max(noise.measure(model, [one] * STREAMS) for one in answers.values())
        for other in others:
            alone = answers[str(other.body["messages"])]
            if not alone.ties(other.text, least, other.whole):
                report.failures.append(f"{name}: {other.text!r} instead of {alone.texts[-1:]}, where nothing ties")


def settings(models: str, port: int, **more: object) -> dict[str, str]:
    """Return the server's environment variables."""
    chosen = {"models": models, "port": port, "max_loaded_models": 8, "rate": 0, "prompt_cache_mb": 32, **more}
    return {variable(name): str(value) for name, value in chosen.items()}


@contextmanager
def served(models: str, log: Path, **more: object) -> Iterator[tuple[str, psutil.Process]]:
    """Yield the server's URL and process; models stay loaded, and memory for conversations is soon used up.

    `more` are settings of the server, by their names.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    others = {name: value for name, value in os.environ.items() if not name.startswith("SERVE_")}
    variables = others | settings(models, port, **more)
    with log.open("w") as output:
        server = psutil.Popen([sys.executable, "-m", "serve"], env=variables, stdout=output, stderr=output)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_shown(url, server, log)
        yield url, server
    finally:
        server.terminate()
        server.wait(30)


def wait_until_shown(url: str, server: psutil.Popen, log: Path) -> None:
    """Wait until the page is there, which comes last. Raises UserError if the server ends before."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with suppress(httpx.HTTPError):
            if httpx.get(url).status_code == 200:
                return
        time.sleep(0.1)
    raise UserError(f"the server did not start: {log.read_text(encoding='utf-8').strip()}")


def figures(report: Report, clients: int, minutes: float) -> dict[str, Any]:
    """Return the report in full, with a look at the server for each half minute."""
    return {
        "clients": clients,
        "minutes": minutes,
        "swaps": report.swaps,
        "outcomes": dict(report.outcomes),
        "failures": report.failures,
        "parted_at_a_tie": len(report.others),
        "noise": report.noise,
        "seconds_to_first_words": dict(zip(("median", "p95"), report.waited, strict=True)),
        "growth": report.growth,
        "samples": [asdict(sample) for sample in report.samples[:: int(30 / SAMPLE_SECONDS)]],
    }


def table(report: Report, clients: int, minutes: float) -> str:
    """Return the report in Markdown."""
    late = report.share(0.9, 1)
    outcomes, waited = report.outcomes, [f"{seconds:.2f}" for seconds in report.waited]
    rows = [
        ("answers read as a stream, as a whole, hung up", ", ".join(str(outcomes[kind]) for kind in KINDS)),
        ("turned away by the full queue", outcomes["full"]),
        ("swaps of all models meanwhile", report.swaps),
        ("other than alone: from a tie on, drawn otherwise", f"{len(report.others)}, {outcomes['drawn otherwise']}"),
        ("failed, or other than alone for no reason", len(report.failures)),
        ("seconds to the first words: median, 95 of 100", ", ".join(waited)),
        ("memory after the warm-up and at the end, MB", ", ".join(f"{size / 1e6:.1f}" for size in report.memory)),
        ("growth", f"{report.growth:+.2%}"),
        ("open files at the end, at most", max(sample.files for sample in late)),
        ("threads at the end, at most", max(sample.threads for sample in late)),
    ]
    lines = [f"{clients} clients for {minutes:g} minutes", "", "| | |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {value} |" for name, value in rows), ""])


def starter_questions(number: int) -> list[str]:
    """Return some that the starter was taught to answer, each once."""
    chats = (json.loads(line)["messages"] for line in CHATS.read_text(encoding="utf-8").splitlines())
    questions = dict.fromkeys(message["content"] for chat in chats for message in chat if message["role"] == "user")
    return random.Random(SEED).sample(list(questions), number)


def main() -> int:
    """Run it and write the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", type=Path, default="models/gguf", help="a folder of GGUF files (models/gguf)")
    parser.add_argument("--clients", type=int, default=64, help="that ask at once (64)")
    parser.add_argument("--minutes", type=float, default=10, help="that they ask (10)")
    parser.add_argument("--swap-seconds", type=float, default=SWAP_SECONDS, help="between two swaps (60); 0: none")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the report (benchmarks/results)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder, questions = Path(made), starter_questions(QUESTIONS)
        swaps = Swaps(Releases.laid_out(folder, arguments.models, arguments.models), arguments.swap_seconds)
        with served(str(swaps.releases.link), folder / "log.txt", **SETTINGS) as (url, server):
            report = asyncio.run(load(url, server, questions, LONG, arguments.clients, 60 * arguments.minutes, swaps))
    judge(report, find_models(str(arguments.models)))
    print(text := table(report, arguments.clients, arguments.minutes))
    for failure in report.failures[:SHOWN]:
        print(failure)
    write_text(arguments.out / "serve-load.md", text)
    write_json(arguments.out / "serve-load.json", figures(report, arguments.clients, arguments.minutes))
    return 1 if report.failures or report.growth >= MOST_GROWTH else 0


if __name__ == "__main__":
    sys.exit(main())
