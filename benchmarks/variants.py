"""llama.cpp's kernels by instruction set: the variants that run here beside the build with AVX2 alone, in the same run.

    python -m benchmarks.variants               all of it on the 1B shape; builds what it needs first
    python -m benchmarks.variants --rounds 1    to see that it works
    python -m benchmarks.variants --busy        where others use the machine: one thread, by the CPU seconds it takes

In each round each build reads a prompt and answers, through llama/model.py, in a process of its own, one after the
other, so that what else the machine does hits all of them; then llama-bench does, built with the wheel's own flags, and
memory is read. Ratios are medians over the rounds. Weights are random, in Q4_K_M and Q8_0. Writes
benchmarks/results/variants.{json,md}. llama-bench tells no CPU seconds, so `--busy` goes without it.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.serve import build_llama_cpp, make_model, processor
from benchmarks.serve_peers import LLAMA_BENCH
from common.files import atomic_path, write_json, write_text
from llama import variants
from llama.cpus import usable_cpus
from llama.huge_pages import use_huge_pages
from llama.model import BATCH, Entry, LlamaModel
from llama.source import VERSION

REPOSITORY = Path(__file__).parents[1]
RESULT = REPOSITORY / "benchmarks/results/variants.json"
KINDS = ("Q4_K_M", "Q8_0")
PLAIN, BENCH = "AVX2 alone", "llama-bench"
PLAIN_FLAGS = "-DGGML_BACKEND_DL=OFF -DGGML_CPU_ALL_VARIANTS=OFF"
LIBRARIES = "LLAMA_CPP_LIB_PATH"  # llama-cpp-python's own variable
CONTEXT = 1024
PROMPT, SHORT, ANSWER = 256, 16, 32  # tokens: read; read before an answer; answered
REPEATS = 2  # in a process
READ = 1 << 30  # bytes of memory that are read at a time
SEED = 0


@dataclass(frozen=True)
class Speed:
    """Tokens a second."""

    prefill: float
    decode: float


@dataclass(frozen=True)
class Round:
    """What was measured in one round."""

    speeds: dict[str, dict[str, Speed]]  # by type and build
    bandwidth: float  # bytes a second that are read


@dataclass(frozen=True)
class Figures:
    """A build's, medians over the rounds."""

    prefill: float  # tokens a second
    decode: float
    prefill_to_avx2: float
    decode_to_avx2: float
    decode_to_llama_bench: float | None
    share_of_bandwidth: float  # of decode


@dataclass(frozen=True)
class Report:
    """All that was measured."""

    date: str
    processor: str
    cpus: int
    llama_cpp_python: str
    busy: bool
    bandwidth: float  # bytes a second
    bytes: dict[str, int]  # of each type's file
    builds: dict[str, dict[str, Figures]]  # by type and build
    rounds: list[Round]


def main() -> None:
    """Measure, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--busy", action="store_true", help="one thread, by the CPU seconds that it takes")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / ".cache/bench-serve", help="that of bench-serve")
    parser.add_argument("--results", type=Path, default=RESULT.parent)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)  # a GGUF, with the kernels of the environment
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(astuple(measure(arguments.measure, arguments.busy))))
        return
    folder = arguments.folder.absolute()
    models = {kind: make_model("1b", folder, kind) for kind in KINDS}
    builds = {PLAIN: {LIBRARIES: str(plain_build(folder))}}
    builds |= {name: {variants.CHOICE: name} for name in variants.runnable() if name != "x64"}
    if not arguments.busy:
        build_llama_cpp(folder)
    rounds = []
    for number in range(arguments.rounds):
        print(f"{time.strftime('%H:%M:%S')} round {number + 1} of {arguments.rounds}", flush=True)
        measured = {}
        for kind, model in models.items():
            measured[kind] = {name: measured_with(chosen, model, arguments.busy) for name, chosen in builds.items()}
            if not arguments.busy:
                measured[kind][BENCH] = llama_bench(model, folder)
        rounds.append(Round(measured, bandwidth(arguments.busy)))
    report = summed_up(rounds, {kind: path.stat().st_size for kind, path in models.items()}, arguments.busy)
    write_json(arguments.results / RESULT.name, asdict(report))
    write_text(arguments.results / RESULT.with_suffix(".md").name, table(report))
    print(table(report))


def plain_build(folder: Path) -> Path:
    """Return the libraries of the build with AVX2 alone; compiled where it is not cached, in two minutes."""
    environment = os.environ | {"CMAKE_ARGS": PLAIN_FLAGS}
    command = [sys.executable, "-m", "llama.source", "--wheel"]
    wheel = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True).stdout
    libraries = folder / f"avx2-{Path(wheel.strip()).parent.name}"
    if not libraries.is_dir():
        with zipfile.ZipFile(wheel.strip()) as archive, atomic_path(libraries) as temporary:
            archive.extractall(temporary)
    return libraries / "llama_cpp/lib"


def measured_with(chosen: Mapping[str, str], model: Path, busy: bool) -> Speed:
    """Return the speed of the kernels that an environment chooses."""
    inherited = {key: value for key, value in os.environ.items() if key not in (LIBRARIES, variants.CHOICE)}
    command = [sys.executable, "-m", "benchmarks.variants", "--measure", str(model), *(["--busy"] if busy else [])]
    done = subprocess.run(command, cwd=REPOSITORY, env={**inherited, **chosen}, stdout=subprocess.PIPE, check=True)
    return Speed(*json.loads(done.stdout))


def measure(path: Path, busy: bool) -> Speed:
    """Return the speed of the kernels at hand, a median over repeats; see `timed` for `busy`."""
    draw = np.random.default_rng(SEED)
    with LlamaModel(path, CONTEXT, 1 if busy else usable_cpus(), chats=False) as model:
        use_huge_pages()
        tokens = [int(token) for token in draw.integers(0, model.vocabulary, PROMPT)]
        read(model, tokens[:SHORT])  # what a first use costs
        prefill = [timed(lambda: read(model, tokens), busy) for _ in range(REPEATS)]
        decode = []
        for _ in range(REPEATS):
            read(model, tokens[:SHORT])
            decode.append(timed(lambda: answer(model), busy))
    return Speed(PROMPT / median(prefill), ANSWER / median(decode))


def read(model: LlamaModel, tokens: list[int]) -> None:
    """Decode a prompt into an empty slot."""
    model.forget(0)
    for start in range(0, len(tokens), BATCH):
        piece = tokens[start : start + BATCH]
        last = len(tokens) - start - 1
        model.decode([Entry(token, start + i, 0, i == last) for i, token in enumerate(piece)])


def answer(model: LlamaModel) -> None:
    """Decode tokens one by one after a short prompt, always the same one: what it costs does not depend on which."""
    for i in range(ANSWER):
        model.decode([Entry(0, SHORT + i, 0, True)])


def timed(run: Callable[[], object], busy: bool) -> float:
    """Return the seconds that something takes; on a `busy` machine those that this process had a CPU."""
    clock = time.process_time if busy else time.perf_counter
    start = clock()
    run()
    return clock() - start


def llama_bench(model: Path, folder: Path) -> Speed:
    """Return the speed of llama.cpp's own measurement, with the best of the variants beside it."""
    command = [str(folder / LLAMA_BENCH), "--model", str(model), "--output", "json", "--threads", str(usable_cpus())]
    command += ["--repetitions", str(REPEATS), "--n-prompt", str(PROMPT), "--n-gen", str(ANSWER)]
    tests = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    rates = {"decode" if test["n_gen"] else "prefill": median(test["samples_ts"]) for test in tests}
    return Speed(**rates)


def bandwidth(busy: bool) -> float:
    """Return the bytes a second that all CPUs read of memory, at best, or one: products of arrays with themselves."""
    cpus = 1 if busy else usable_cpus()
    parts = [np.ones(READ // cpus // 4, np.float32) for _ in range(cpus)]
    with ThreadPoolExecutor(cpus) as threads:
        seconds = [timed(lambda: [*threads.map(lambda part: part @ part, parts)], busy) for _ in range(REPEATS + 1)]
    return READ / min(seconds)


def summed_up(rounds: list[Round], sizes: dict[str, int], busy: bool) -> Report:
    """Return what was measured, and for each type and build its medians.

    Args:
        rounds: one or more.
        sizes: of each type's file, all of which is read for a token.
        busy: how it was measured.
    """
    return Report(
        date=time.strftime("%Y-%m-%d"),
        processor=processor(),
        cpus=usable_cpus(),
        llama_cpp_python=VERSION,
        busy=busy,
        bandwidth=median(one.bandwidth for one in rounds),
        bytes=sizes,
        builds={
            kind: {name: figures(rounds, kind, name, size) for name in rounds[0].speeds[kind]}
            for kind, size in sizes.items()
        },
        rounds=rounds,
    )


def figures(rounds: list[Round], kind: str, name: str, size: int) -> Figures:
    """Return those of a build with a type, whose file has `size` bytes."""
    found, plain = ([one.speeds[kind][build] for one in rounds] for build in (name, PLAIN))
    bench = [one.speeds[kind][BENCH] for one in rounds if BENCH in one.speeds[kind]]
    decode = [speed.decode for speed in found]
    return Figures(
        prefill=median(speed.prefill for speed in found),
        decode=median(decode),
        prefill_to_avx2=ratio([speed.prefill for speed in found], [speed.prefill for speed in plain]),
        decode_to_avx2=ratio(decode, [speed.decode for speed in plain]),
        decode_to_llama_bench=ratio(decode, [speed.decode for speed in bench]) if bench else None,
        share_of_bandwidth=median(size * rate / one.bandwidth for rate, one in zip(decode, rounds, strict=True)),
    )


def ratio(ours: list[float], others: list[float]) -> float:
    """Return how much faster, the median over the rounds."""
    return median(own / other for own, other in zip(ours, others, strict=True))


def table(report: Report) -> str:
    """Return the report as Markdown."""
    how = "one thread, by the CPU seconds that it took, since others used the machine" if report.busy else "all CPUs"
    lines = [
        "# llama.cpp's CPU variants",
        "",
        f"{report.date}; {report.processor}, {report.cpus} usable CPUs; llama-cpp-python {report.llama_cpp_python};"
        f" {report.bandwidth / 1e9:.1f} GB of memory read a second. Llama 3.2 1B's shape, rounds: {len(report.rounds)};"
        f" {how}. `benchmarks/variants.py` says what is measured.",
        "",
        "| type | kernels | prefill, tokens/s | decode, tokens/s | prefill, times AVX2 alone | decode, times AVX2 alone"
        " | decode, times llama-bench | decode's share of the bandwidth |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for kind, builds in report.builds.items():
        for name, found in builds.items():
            ratios = map(times, (found.prefill_to_avx2, found.decode_to_avx2, found.decode_to_llama_bench))
            speeds = f"{found.prefill:.1f} | {found.decode:.1f} | {' | '.join(ratios)}"
            lines.append(f"| {kind} | {name} | {speeds} | {found.share_of_bandwidth:.0%} |")
    return "\n".join([*lines, ""])


def times(ratio: float | None) -> str:
    """Return a ratio as the table has it."""
    return "-" if ratio is None else f"{ratio:.2f}"


if __name__ == "__main__":
    main()
