"""Four users on four LoRA adapters over one base, beside four users of the base alone, and what memory they take.

    python -m benchmarks.adapters            the 1B shape in Q4_K_M with random weights, adapters of rank 16
    python -m benchmarks.adapters --quick    one short round, to see that it works

Round by round, in one process, each way answers the same questions, one after the other: so what else the machine does
hits all of them, and a round's ratio is of that round's own figures.
"""

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
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


def main() -> None:
    """Make base and adapters, measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="1b", help="1b, starter, or the path of a GGUF")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=160, help="tokens of a question")
    parser.add_argument("--answer", type=int, default=96, help="tokens of an answer")
    parser.add_argument("--quick", action="store_true", help="one short round; results stay in the folder")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / ".cache/bench-adapters")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.prompt, arguments.answer = 1, 32, 8
    base = make_model(arguments.model, arguments.folder.absolute())
    adapters = make_adapters(base, arguments.folder.absolute() / base.stem)
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "setup": facts(base),
        "rank": RANK,
        "sizes": {"rounds": arguments.rounds, "prompt": arguments.prompt, "answer": arguments.answer},
        "files": [path.stat().st_size for path in adapters],
        **measure(base, adapters, arguments.rounds, arguments.prompt, arguments.answer),
    }
    results = arguments.folder if arguments.quick else REPOSITORY / "benchmarks/results"
    write_json(results / "adapters.json", report)
    write_text(results / "adapters.md", table(report))
    print(table(report))


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


def measure(base: Path, adapters: Sequence[Path], rounds: int, prompt: int, answer: int) -> dict[str, Any]:
    """Return tokens a second of each way, round by round, and bytes of memory."""
    draw, names = np.random.default_rng(0), [path.stem for path in adapters]
    with ExitStack() as stack:
        plain, alone = taken(stack, [base], [base.stem] * USERS, draw, answer)
        adapted, together = taken(stack, [base, *adapters], names, draw, answer)
        rates: dict[str, list[float]] = {ONE: [], FOUR: [], STEPS: []}
        for _ in range(rounds):
            answers = partial(rate, ids=random_ids(draw, prompt), answer=answer)
            rates[ONE].append(answers(plain, [base.stem] * USERS))
            rates[FOUR].append(answers(adapted, names))
            with patch("llama.batch.runs", one_by_one):
                rates[STEPS].append(answers(adapted, names))
            print(time.strftime("%H:%M:%S"), {way: found[-1] for way, found in rates.items()}, flush=True)
    return {"rates": rates, "memory": {"alone": alone, "with_adapters": together}}


def taken(
    stack: ExitStack, files: Sequence[Path], names: Sequence[str], draw: np.random.Generator, answer: int
) -> tuple[Engine, int]:
    """Return a server's engine, with its settings' defaults, and the bytes that it takes once it has answered."""
    before = psutil.Process().memory_info().rss
    models = find_models(linked(files))
    engine = stack.enter_context(Engine(models, Settings(model=files[0].stem)))
    rate(engine, names, random_ids(draw, 32), answer)
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


def random_ids(draw: np.random.Generator, count: int) -> list[list[int]]:
    """Return a question for each user, which begin unlike."""
    return [[int(token) for token in draw.integers(1000, 2000, count)] for _ in range(USERS)]


def rate(engine: Engine, names: Sequence[str], ids: Sequence[Sequence[int]], answer: int) -> float:
    """Return tokens a second of all answers together, asked at once."""
    sampling = Sampling(answer, temperature=0, ignore_eos=True)
    start = time.perf_counter()
    with ThreadPoolExecutor(USERS) as users:
        pieces = users.map(lambda name, prompt: list(engine.stream(name, TokenIds(prompt), sampling)), names, ids)
        tokens = sum(answered[-1].tokens for answered in pieces)
    return round(tokens / (time.perf_counter() - start), 2)


def table(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    rates, memory, setup, sizes = (report[part] for part in ("rates", "memory", "setup", "sizes"))
    lines = [
        f"# Four adapters over one base, {setup['model']['file']}",
        "",
        f"{report['date']}; {setup['processor']}, {setup['cpus']} usable CPUs; llama-cpp-python"
        f" {setup['packages']['llama-cpp-python']}. Adapters of rank {report['rank']} on all projections, in F16."
        f" {sizes['rounds']} rounds of {USERS} questions of {sizes['prompt']} tokens at once, with answers of"
        f" {sizes['answer']}.",
        "",
        "| four users | tokens/s, median | of one model's in the same round, median (least) | goal | met |",
        "|---|--:|--:|---|---|",
    ]
    for way, found in rates.items():
        shares = [one / base for one, base in zip(found, rates[ONE], strict=True)]
        goal = (f"≥ {LEAST}", "yes" if median(shares) >= LEAST else "no") if way == FOUR else ("-", "-")
        share = "-" if way == ONE else f"{median(shares):.3f} ({min(shares):.3f})"
        lines.append(f"| {way}: {ABOUT[way]} | {median(found):.1f} | {share} | {goal[0]} | {goal[1]} |")
    expected = memory["alone"] + sum(report["files"])
    share = memory["with_adapters"] / expected
    lines += [
        "",
        f"Memory: {memory['with_adapters'] / 1e6:,.0f} MB with four adapters in use, {share:.3f} of the base's"
        f" {memory['alone'] / 1e6:,.0f} MB and the four files' {sum(report['files']) / 1e6:,.0f} MB together (goal:"
        f" ≤ {MOST}; {'met' if share <= MOST else 'not met'}).",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
