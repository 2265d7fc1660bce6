"""What drafts gain: how many tokens of real models' answers they get right, and how much faster the answers come.

    python -m benchmarks.speculation            all of it, in an hour on two cores
    python -m benchmarks.speculation --quick    a short answer to one question of each kind, to see that it works

SmolLM2 (135 M parameters, out of its Python package) and the starter, both in Q8_0, answer the six kinds of questions
of speculation_tasks.py, greedily, with and without drafts; the texts are compared. Weights drawn at random copy
nothing: so the 1B shape of benchmarks/serve.py is made to say, token by token, what SmolLM2 has answered to the same
questions, as Q4_K_M and as Q8_0. All that drafts cost and gain is as it would be with a model of that size: they are
found in the same tokens, go through all of its layers, and are right where they were. Each answer is given with and
without drafts in turn; what counts are the seconds after its first token.

Where llama.cpp's server is there (benchmarks/serve.py makes it) it answers SmolLM2's questions as well, without drafts
and with its own from the conversation. The starter also drafts by its small sister: --draft alone shows that.
Writes benchmarks/results/speculation.json and .md.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from benchmarks import serve, serve_peers
from benchmarks.inputs import REPOSITORY
from benchmarks.speculation_tasks import COPYING, QUESTIONS
from common.files import write_json, write_text
from llama.batch import Batch
from llama.cpus import usable_cpus
from llama.draft import DraftModel
from llama.model import LlamaModel, Sampler, Scored, Weights
from llama.speculation import Speculation
from llama.turn import Piece, Turn
from llama.types import Sampling, TokenIds
from pipeline.core.composition import compose
from pipeline.core.config import load
from pipeline.gguf.convert import convert
from pipeline.gguf.quantize import quantize
from pipeline.models.packaged import located

RESULT = REPOSITORY / "benchmarks/results/speculation.json"
CONTEXT = 1024  # tokens, as many as the starter
TOKENS = 192  # of an answer at most
ROUNDS = 3
REPLAYED = ("Q4_K_M", "Q8_0")
SMOLLM2 = "smollm2-135m-pypi"
GOAL_COPYING, GOAL_ALL = 2.0, 0.99
LOOKUP = ("--spec-type", "ngram-simple")


class Answer(NamedTuple):
    """An answer as it was given."""

    tokens: list[int]
    drafted: int
    accepted: int
    seconds: float  # after the first token


class Reciter(LlamaModel):
    """A model that says what it is told to, at its own pace."""

    script: Iterator[int] = iter(())

    def draw(self, sampler: Sampler, index: int, allowed: np.ndarray | None = None) -> int:
        """Return the script's next token; what the model would have said is found out all the same."""
        super().draw(sampler, index, allowed)
        return next(self.script)


@dataclass
class Kind:
    """What drafts change in answers of a kind."""

    plain: dict[int, list[float]] = field(default_factory=dict)  # seconds of each answer after its first token
    drafting: dict[int, list[float]] = field(default_factory=dict)
    tokens: int = 0
    drafted: int = 0
    accepted: int = 0
    differ: int = 0  # answers

    def add(self, question: int, plain: Answer, drafting: Answer) -> None:
        """Take in an answer that was given both ways."""
        self.tokens += len(drafting.tokens)
        self.drafted += drafting.drafted
        self.accepted += drafting.accepted
        self.differ += plain.tokens != drafting.tokens
        self.plain.setdefault(question, []).append(plain.seconds)
        self.drafting.setdefault(question, []).append(drafting.seconds)


@dataclass(frozen=True)
class Asked:
    """What a model was asked, and what it answered without drafts."""

    kind: str
    prompt: list[int]
    answer: list[int]


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=MEASURED, default=list(MEASURED))
    parser.add_argument("--folder", type=Path, default=REPOSITORY / ".cache/bench-serve", help="of models and peers")
    parser.add_argument("--results", type=Path, help="a file other than benchmarks/results/speculation.json")
    arguments = parser.parse_args()
    folder, result = arguments.folder.absolute(), arguments.results or RESULT
    found = json.loads(result.read_text()) if result.is_file() else {}
    found |= serve.facts(serve.make_model("starter", folder)) | {"date": time.strftime("%Y-%m-%d")}
    for name in arguments.only:
        measured = MEASURED[name](folder, arguments.quick)
        found[name] = {kind: asdict(of) for kind, of in measured.items()}
        write_json(result, found)
        kinds = {name: {kind: Kind(**of) for kind, of in found[name].items()} for name in MEASURED if name in found}
        machine = f"{found['cpus']} CPUs ({found['processor']})"
        version = f"{found['date']}; llama-cpp-python {found['packages']['llama-cpp-python']}"
        write_text(result.with_suffix(".md"), page(machine, version, kinds))
    print(result.with_suffix(".md").read_text(encoding="utf-8"))


# the models


def real_model(name: str, folder: Path) -> Path:
    """Return one of the pipeline's models in Q8_0; made where it is missing."""
    file = folder / "models" / f"{name}-Q8_0.gguf"
    if not file.is_file():
        settings = load(compose(REPOSITORY / "conf", [f"model={name}"])).model
        path = settings.path if (REPOSITORY / settings.path).is_dir() else located(settings.path, settings.revision)[0]
        file.parent.mkdir(parents=True, exist_ok=True)
        whole = file.with_suffix(".f16")
        convert(REPOSITORY / path, whole, "F16")
        quantize(whole, file, "Q8_0")
        whole.unlink()
    return file


def opened(model: LlamaModel, drafts: bool, draft: Path | None = None) -> Batch:
    """Return a model's answers, with drafts or without, to be closed."""
    if not drafts:
        return Batch(model)
    smaller = LlamaModel(draft, CONTEXT, usable_cpus(), chats=False) if draft else None
    speculation = Speculation(model, DraftModel(smaller) if smaller else None)
    if not speculation.allowed:
        print(f"{model.path.name}: nothing is drafted, since its tokens add up otherwise together", flush=True)
    return Batch(model, speculation=speculation)


def answer(answers: Batch, prompt: Sequence[int], most: int) -> Answer:
    """Return the greedy answer to a prompt."""
    tokens, pieces, times = [], list[Piece](), list[float]()

    def deliver(piece: Piece | Exception) -> None:
        assert isinstance(piece, Piece), piece
        pieces.append(piece)
        times.append(time.perf_counter())

    turn = Turn("", TokenIds(prompt), Sampling(most, temperature=0), deliver)
    turn.prepare(answers.model, drop_oldest=False)
    take = turn.take

    def noted(token: int, model: LlamaModel, scored: Scored | None = None) -> None:
        tokens.append(token)
        take(token, model, scored)

    turn.take = noted  # type: ignore[method-assign]
    answers.run(turn)
    last = pieces[-1]
    return Answer(tokens[: last.tokens], last.drafted, last.accepted, times[-1] - times[0])


# what is measured


def questions(quick: bool) -> Iterator[tuple[str, str]]:
    """Yield each question with its kind."""
    for kind, texts in QUESTIONS.items():
        yield from ((kind, text) for text in (texts[:1] if quick else texts))


def asked_of(path: Path, quick: bool) -> list[Asked]:
    """Return what a model answers to the questions without drafts."""
    asked, most = [], 48 if quick else TOKENS
    with closing(opened(LlamaModel(path, CONTEXT, usable_cpus()), drafts=False)) as answers:
        for kind, text in questions(quick):
            prompt = answers.model.prompt([{"role": "user", "content": text}])
            asked.append(Asked(kind, prompt, answer(answers, prompt, most).tokens))
    return asked


def compared(
    make: type[LlamaModel], path: Path, asked: Sequence[Asked], rounds: int, draft: Path | None = None
) -> dict[str, Kind]:
    """Return by kind what drafts change, each answer being given both ways in turn.

    Args:
        make: LlamaModel, or Reciter for one that is told what to say.
        path: of the model.
        asked: questions, and their answers.
        rounds: that each answer is given in, after one that warms up.
        draft: a model that drafts as well.
    """
    kinds = {one.kind: Kind() for one in asked}
    with (
        Weights(path) as weights,
        closing(opened(make(weights, CONTEXT, usable_cpus()), False)) as plain,
        closing(opened(make(weights, CONTEXT, usable_cpus()), True, draft)) as drafting,
    ):
        for count in range(rounds + 1):
            for question, one in enumerate(asked if count else asked[:1]):
                both = []
                for answers in (plain, drafting):
                    if isinstance(answers.model, Reciter):
                        answers.model.script = iter(one.answer)
                    both.append(answer(answers, one.prompt, len(one.answer)))
                if count:
                    kinds[one.kind].add(question, *both)
    return kinds


def real(name: str, folder: Path, quick: bool) -> dict[str, Kind]:
    """Return what drafts change in a real model's answers."""
    path = real_model(name, folder)
    return compared(LlamaModel, path, asked_of(path, quick), 1 if quick else ROUNDS)


def replayed(kind: str, folder: Path, quick: bool) -> dict[str, Kind]:
    """Return what drafts change in SmolLM2's answers given by the 1B shape."""
    path = serve.make_model("1b", folder, kind)
    return compared(Reciter, path, asked_of(real_model(SMOLLM2, folder), quick), 1 if quick else ROUNDS)


def by_sister(folder: Path, quick: bool) -> dict[str, Kind]:
    """Return what its small sister's drafts, and the conversation's, change in answers to the starter's own chats."""
    path, draft = real_model("starter-m", folder), real_model("starter-s", folder)
    asked = []
    with closing(opened(LlamaModel(path, CONTEXT, usable_cpus()), drafts=False)) as answers:
        for chat in serve.chats(8 if quick else 32):
            prompt = answers.model.prompt(chat)  # type: ignore[arg-type]
            asked.append(Asked("chat", prompt, answer(answers, prompt, 64).tokens))
    return compared(LlamaModel, path, asked, 1 if quick else ROUNDS, draft)


def peer(folder: Path, quick: bool) -> dict[str, Kind]:
    """Return what llama.cpp's server gains by its own drafts from the conversation, by kind."""
    serve.build_llama_cpp(folder)
    inputs = {"folder": str(folder), "model": str(real_model(SMOLLM2, folder)), "threads": usable_cpus(), "slots": 1}
    kinds = {kind: Kind() for kind in QUESTIONS}
    for name, flags in (("plain", ()), ("drafting", LOOKUP)):
        with serve_peers.llama_server(inputs, flags) as served:
            served.chat([{"role": "user", "content": "Hello"}], serve_peers.WARM_UP)
            for question, (kind, text) in [*enumerate(questions(quick))] * (1 if quick else ROUNDS):
                answered = served.chat([{"role": "user", "content": text}], 48 if quick else TOKENS)
                seconds = answered.times[-1] - answered.times[0]
                getattr(kinds[kind], name).setdefault(question, []).append(seconds)
                kinds[kind].tokens += answered.generated if name == "plain" else 0
    return kinds


MEASURED: dict[str, Callable[[Path, bool], dict[str, Kind]]] = {
    "SmolLM2": partial(real, SMOLLM2),
    "starter-m": partial(real, "starter-m"),
    "starter-m by starter-s": by_sister,
    **{f"1B {kind}": partial(replayed, kind) for kind in REPLAYED},
    "llama-server, SmolLM2": peer,
}


# the page


def page(machine: str, version: str, measured: dict[str, dict[str, Kind]]) -> str:
    """Return the result as Markdown."""
    lines = [
        f"# Drafts from the conversation, on {machine}",
        "",
        f"{version}. `benchmarks/speculation.py` says what is measured. Seconds are of all answers of a kind, without"
        " their first tokens, medians of the rounds. The goal is"
        f" ≥ {GOAL_COPYING} where answers copy ({', '.join(COPYING)}), ≥ {GOAL_ALL} everywhere, on the 1B shape.",
        "",
        "| model | answers | tokens | drafted | accepted | plain, s | drafting, s | gain | texts differ | goal | met |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for name, kinds in measured.items():
        lines += [row(name, kind, found) for kind, found in kinds.items()]
    return "\n".join(lines) + "\n"


def row(name: str, kind: str, found: Kind) -> str:
    """Return a line of the table."""
    plain, drafting = (sum(map(median, seconds.values())) for seconds in (found.plain, found.drafting))
    gain = plain / drafting
    goal = (GOAL_COPYING if kind in COPYING else GOAL_ALL) if name.startswith("1B") else None
    counts = [found.tokens, found.drafted, found.accepted]
    times = [f"{plain:.2f}", f"{drafting:.2f}", f"{gain:.2f}"]
    met = "" if goal is None else "yes" if gain >= goal else "no"
    cells = [name, kind, *counts, *times, found.differ, "" if goal is None else f"≥ {goal}", met]
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
