"""Four users on four LoRA adapters over one base, beside four users of the base alone, and what memory they take.

    python -m benchmarks.adapters            the 1B shape in Q4_K_M with random weights, adapters of rank 16
    python -m benchmarks.adapters --quick    one short round, to see that it works

Round by round, in one process, each way answers questions of one length, one after the other, and a round's ratio is of
that round's own figures. One thread computes, and its CPU time counts, so that what else the machine does matters
little; `--threads` takes more, and the clock.
"""

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from unittest.mock import patch

import gguf
import numpy as np
import psutil

from benchmarks.serve import REPOSITORY, facts, make_model
from common.files import atomic_path, write_json, write_text
from llama.batch import Part
from llama.types import Sampling, TokenIds
from serve.engine import Engine
from serve.models.registry import find_models
from serve.settings import Settings

USERS, RANK, SPREAD = 4, 16, 0.02  # of an adapter's random weights
ONE, FOUR, STEPS = "one model", "four adapters", "steps"
ABOUT = {
    ONE: "four users of the base, on a server that has no adapters",
    FOUR: "each of the four on an adapter of their own, all in one decode",
    STEPS: "the same, with a decode for each adapter",
}
LEAST, MOST = 0.9, 1.1  # of one model's tokens a second; of the memory of base and files


@dataclass(frozen=True)
class Run:
    """How much is asked."""

    rounds: int
    prompt: int  # tokens of a question
    answer: int  # tokens of an answer
    threads: int

    def seconds(self) -> float:
        """Return the time that counts."""
        return time.process_time() if self.threads == 1 else time.perf_counter()


@dataclass(frozen=True)
class Measured:
    """What came of it."""

    rates: dict[str, list[float]]  # tokens a second of all users together, by way, round by round
    files: int  # bytes of the adapters' files
    alone: int  # of memory that a server takes without them
    together: int  # and with them


def main() -> None:
    """Make base and adapters, measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="1b", help="1b, starter, or the path of a GGUF")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=160, help="tokens of a question")
    parser.add_argument("--answer", type=int, default=96, help="tokens of an answer")
    parser.add_argument("--threads", type=int, default=1, help="that compute; of more than one the clock's time counts")
    parser.add_argument("--quick", action="store_true", help="one short round; results stay in the folder")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / ".cache/bench-adapters")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.prompt, arguments.answer = 1, 32, 8
    base = make_model(arguments.model, arguments.folder.absolute())
    adapters = make_adapters(base, arguments.folder.absolute() / base.stem)
    run = Run(arguments.rounds, arguments.prompt, arguments.answer, arguments.threads)
    measured = measure(base, adapters, run)
    setup = facts(base) | {"threads": run.threads}
    page = table(base, measured, [
        f"{time.strftime('%Y-%m-%d')}; {setup['processor']}, {run.threads} of {setup['cpus']} usable CPUs;"
        f" llama-cpp-python {setup['packages']['llama-cpp-python']}. Adapters of rank {RANK} on all projections, F16."
        f" {run.rounds} rounds of {USERS} questions of {run.prompt} tokens at once, with answers of {run.answer}."
    ])  # fmt: skip
    results = arguments.folder if arguments.quick else REPOSITORY / "benchmarks/results"
    write_json(results / "adapters.json", {"setup": setup, "rank": RANK, "run": asdict(run), **asdict(measured)})
    write_text(results / "adapters.md", page)
    print(page)


def make_adapters(base: Path, folder: Path) -> list[Path]:
    """Return GGUF files of adapters on all projections of a base; made where they are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"adapter-{number}.gguf" for number in range(USERS)]
    for seed, file in enumerate(files):
        if not file.is_file():
            with atomic_path(file) as temporary:
                write_adapter(base, temporary, np.random.default_rng(seed))
    return files


def write_adapter(base: Path, file: Path, draw: np.random.Generator) -> None:
    """Write an adapter of random weights in F16, as the converter writes one."""
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", RANK)
    for tensor in gguf.GGUFReader(base).tensors:
        if tensor.name.startswith("blk.") and len(tensor.shape) == 2:
            inputs, outputs = map(int, tensor.shape)
            for name, shape in (("lora_a", (RANK, inputs)), ("lora_b", (outputs, RANK))):
                writer.add_tensor(f"{tensor.name}.{name}", draw.normal(0, SPREAD, shape).astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def measure(base: Path, adapters: Sequence[Path], run: Run) -> Measured:
    """Return tokens a second of each way, and bytes of memory."""
    draw, names = np.random.default_rng(0), [path.stem for path in adapters]
    with ExitStack() as stack:
        plain, alone = taken(stack, [base], [base.stem] * USERS, run)
        adapted, together = taken(stack, [base, *adapters], names, run)
        rates: dict[str, list[float]] = {ONE: [], FOUR: [], STEPS: []}
        for _ in range(run.rounds):
            rates[ONE].append(rate(plain, [base.stem] * USERS, draw, run))
            rates[FOUR].append(rate(adapted, names, draw, run))
            with patch("llama.batch.runs", one_by_one):
                rates[STEPS].append(rate(adapted, names, draw, run))
            print(time.strftime("%H:%M:%S"), {way: found[-1] for way, found in rates.items()}, flush=True)
    return Measured(rates, sum(path.stat().st_size for path in adapters), alone, together)


def taken(stack: ExitStack, files: Sequence[Path], names: Sequence[str], run: Run) -> tuple[Engine, int]:
    """Return a server's engine, with its settings' defaults, and the bytes that it takes once it has answered."""
    before = psutil.Process().memory_info().rss
    models = find_models(linked(files))
    engine = stack.enter_context(Engine(models, Settings(model=files[0].stem, threads=run.threads)))
    rate(engine, names, np.random.default_rng(1), replace(run, prompt=32, answer=8))
    return engine, psutil.Process().memory_info().rss - before


def linked(files: Sequence[Path]) -> Path:
    """Return a folder that has these files alone."""
    folder = files[0].parent.parent / f"served-{len(files)}"
    folder.mkdir(exist_ok=True)
    for path in files:
        link = folder / path.name
        link.unlink(missing_ok=True)
        link.symlink_to(path)
    return folder


def one_by_one(parts: Sequence[Part]) -> list[list[Part]]:
    """Return what is to be decoded with each slot by itself."""
    return [[part] for part in parts]


def rate(engine: Engine, names: Sequence[str], draw: np.random.Generator, run: Run) -> float:
    """Return tokens a second of all answers together, to questions asked at once, which nobody has asked before."""
    ids = [[int(token) for token in draw.integers(33, 126, run.prompt)] for _ in names]
    sampling = Sampling(run.answer, temperature=0, ignore_eos=True)
    start = run.seconds()
    with ThreadPoolExecutor(USERS) as users:
        pieces = users.map(lambda name, prompt: list(engine.stream(name, TokenIds(prompt), sampling)), names, ids)
        tokens = sum(answered[-1].tokens for answered in pieces)
    return round(tokens / (run.seconds() - start), 2)


def table(base: Path, measured: Measured, about: Sequence[str]) -> str:
    """Return it as Markdown, below some lines about how it was measured."""
    lines = [f"# Four adapters over one base, {base.stem}", "", *about, ""]
    lines += ["| four users | tokens/s, median | of one model's in the same round, median (least) | goal | met |"]
    lines += ["|---|--:|--:|---|---|"]
    for way, found in measured.rates.items():
        shares = [one / other for one, other in zip(found, measured.rates[ONE], strict=True)]
        goal, met = (f"≥ {LEAST}", "yes" if median(shares) >= LEAST else "no") if way == FOUR else ("-", "-")
        share = "-" if way == ONE else f"{median(shares):.3f} ({min(shares):.3f})"
        lines.append(f"| {way}: {ABOUT[way]} | {median(found):.1f} | {share} | {goal} | {met} |")
    used = measured.together / (measured.alone + measured.files)
    alone, files, together = (size / 1e6 for size in (measured.alone, measured.files, measured.together))
    lines += [
        "",
        f"Memory: {together:,.0f} MB with the four in use, {used:.3f} of the base's {alone:,.0f} MB and their files'"
        f" {files:,.0f} MB (goal: ≤ {MOST}; {'met' if used <= MOST else 'not met'}).",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
