"""LoRA training speed and memory on one card: ours beside Unsloth's and TRL's, on random weights of real shapes.

    python -m benchmarks.train --model 1b      again, until nothing is left to begin; `--model tiny` needs no GPU

Each training is a process of its own, one after the other. What it has measured is kept in FOLDER, as
MODEL-STEPS/NAME.json beside its log, and not measured again unless that file is removed; none is begun that would
hardly end within --seconds. benchmarks/results/train-MODEL.md has the table of all so far,
train-MODEL.json all that was measured; both are written anew each time. benchmarks/train_table.py says what the columns
mean.
"""

import argparse
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.inputs import DATA
from benchmarks.peers import PEERS, WARM_UP, Peer
from benchmarks.processes import with_this_repository
from benchmarks.train_table import operations_a_token, table
from common.files import write_json, write_text
from pipeline.training.checkpoints import library_versions
from pipeline.training.engines import engine

REPOSITORY = Path(__file__).parents[1]
BATCH = 64  # conversations in ours' largest update; so many rows are made for each step
PEER_STEPS = 30  # updates: they only warm up for some, and save and evaluate nothing
PACKAGES = ("torch", "transformers", "trl", "peft", "unsloth", "liger-kernel", "bitsandbytes", "nvidia-cudnn-frontend")
PRESETS = {"1b": "llama-3.2-1b", "3b": "llama-3.2-3b", "tiny": "llama-3.2-1b"}
# What a training of many hours would choose by itself.
COMPILED = ("train.compile=true",)
LARGE = ("train.effective_batch=64", *COMPILED)
WIDE = ("train.effective_batch=256", *COMPILED)
CUT = "train.max_truncated=1"  # as many as there are
LEAN = (
    "train.engine=trl",
    "train.batch_size=1",
    "train.gradient_checkpointing=offload",
    "train.optimizer=adamw_8bit",
)


@dataclass(frozen=True)
class Ours:
    """The train stage with overrides."""

    what: str
    overrides: tuple[str, ...]
    needs: tuple[str, ...] = ()
    steps: int | None = None  # updates; as many as the command says, unless given


RUNS: dict[str, Ours | Peer] = {
    "ours": Ours("ours, 64 conversations an update", LARGE),
    "ours-again": Ours("the same, started again with warm caches", LARGE, (), 16),
    "ours-8": Ours(
        "ours, 8 conversations an update, as in Unsloth's notebooks", ("train.effective_batch=8", *COMPILED)
    ),
    "ours-fp8": Ours(
        "ours, 64 conversations an update, the frozen weights in FP8",
        (*LARGE, "train.frozen_dtype=fp8"),
        ("GPU",),
    ),
    "ours-lean": Ours(
        "ours with the least memory: 8 conversations an update, gradient checkpointing into main memory",
        ("train.effective_batch=8", *LEAN, *COMPILED),
        ("bitsandbytes",),
    ),
    "ours-lean-4bit": Ours(
        "the same on a base in 4 bit",
        ("train=qlora", "model.load_in_4bit=true", "train.effective_batch=8", *LEAN, *COMPILED),
        ("GPU", "bitsandbytes"),
    ),
    "ours-flash": Ours("ours with PyTorch's own attention", (*LARGE, "train.attention=flash"), ("GPU",), 40),
    "ours-eager": Ours("ours, not compiled", ("train.effective_batch=64", "train.compile=false"), (), 40),
    "ours-recomputed": Ours("ours, activations recomputed", (*LARGE, "train.gradient_checkpointing=true"), (), 40),
    "ours-padded": Ours(
        "ours in padded rows, 8 at once",
        (*LARGE, "train.attention=sdpa", "train.packing=false", "train.batch_size=8"),
        (),
        40,
    ),
    "ours-short": Ours("ours, conversations cut at 512 tokens", (*LARGE, "train.max_length=512", CUT), (), 40),
    "ours-1-card": Ours("ours, 256 conversations an update, on one card", WIDE, ("GPU",), 24),
    "ours-2-cards": Ours("the same on two cards", (*WIDE, "runtime=multi-gpu", "runtime.processes=2"), ("2 GPUs",), 24),
    "ours-4-cards": Ours(
        "the same on four cards", (*WIDE, "runtime=multi-gpu", "runtime.processes=4"), ("4 GPUs",), 24
    ),
    "ours-8-cards": Ours(
        "the same on eight cards", (*WIDE, "runtime=multi-gpu", "runtime.processes=8"), ("8 GPUs",), 24
    ),
    **PEERS,
}


@dataclass(frozen=True)
class Bench:
    """Where one comparison keeps what it needs and what it has measured."""

    model: str  # one of PRESETS
    steps: int  # updates of ours
    folder: Path

    @property
    def conversations(self) -> int:
        """Training rows: no run sees one twice."""
        return self.steps * BATCH

    @property
    def weights(self) -> Path:
        """The model's folder."""
        return self.folder / "models" / self.model

    @property
    def rows(self) -> Path:
        """The rows' folder, in which ours runs."""
        return self.folder / f"rows-{self.conversations}"

    @property
    def runs(self) -> Path:
        """What was measured, a JSON file a run."""
        return self.folder / f"{self.model}-{self.steps}"

    def result(self, name: str) -> dict[str, Any] | None:
        """Return a finished run's figures, or why it failed; none of ours when its code was another."""
        found = read(self.runs / f"{name}.json")
        return found if found is None or found.get("code") in (None, code()) else None


def main() -> None:
    """Make the inputs, run what is missing while there is time, write the table."""
    arguments = parse()
    deadline = time.monotonic() + arguments.seconds
    bench = Bench(arguments.model, arguments.steps, arguments.folder.absolute())
    setup = facts()
    check_setup(bench, setup)
    whole = not make_inputs(bench, deadline)
    names = [name for name in RUNS if name in (arguments.only or RUNS)]
    run_missing(bench, ["limit", *(n for n in names if lacking(RUNS[n].needs, setup) is None)], deadline, whole)
    report = collect(bench, setup)
    write_json(arguments.results / f"train-{bench.model}.json", report)
    write_text(arguments.results / f"train-{bench.model}.md", table(report))
    print(table(report))


def parse() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=PRESETS, default="1b")
    parser.add_argument("--only", nargs="+", choices=RUNS, metavar="NAME", help=f"of {', '.join(RUNS)}")
    parser.add_argument("--steps", type=int, default=200, help=f"updates of ours; the peers take {PEER_STEPS} of them")
    parser.add_argument("--seconds", type=float, default=540, help="that this command may take")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / ".cache/bench-train")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "benchmarks/results")
    arguments = parser.parse_args()
    if arguments.steps <= WARM_UP:
        parser.error(f"--steps must be above {WARM_UP}, the updates that warm a peer up")
    return arguments


def facts() -> dict[str, Any]:
    """Return the card, its driver and the packages, which the runs of a comparison share.

    And how many cards there are.
    """
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    output = subprocess.run(query, capture_output=True, text=True, check=False).stdout if shutil.which(query[0]) else ""
    cards = output.splitlines()
    card, _, driver = (cards or [""])[0].partition(", ")
    hardware = {"card": card or None, "cards": len(cards), "driver": driver or None}
    return {**hardware, "packages": installed(PACKAGES)}


def code() -> str:
    """Return the digest of what trains in ours."""
    return library_versions(engine("trl"))["pipeline.training"]


def installed(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of those that are installed."""
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def lacking(needs: tuple[str, ...], setup: dict[str, Any]) -> str | None:
    """Return why a run that needs these cannot be made here, or None."""
    missing = [need for need in needs if "GPU" not in need and need not in setup["packages"]]
    cards = max((int(need.removesuffix("s").removesuffix("GPU") or 1) for need in needs if "GPU" in need), default=0)
    if setup["cards"] < cards:
        return "it needs a GPU" if cards == 1 else f"it needs {cards} GPUs"
    return f"{' and '.join(missing)} not installed" if missing else None


def check_setup(bench: Bench, setup: dict[str, Any]) -> None:
    """Refuse to go on with what was measured on another card or with other versions."""
    path = bench.runs / "setup.json"
    before = read(path)
    if before is None:
        write_json(path, setup)
    elif before | {"cards": setup["cards"]} != setup:
        sys.exit(f"{bench.runs} was measured on another card or with other versions; take another --folder")


def make_inputs(bench: Bench, deadline: float) -> bool:
    """Make the random model and the rows where they are missing; whether they were."""
    if bench.weights.is_dir() and bench.rows.is_dir():
        return False
    command = ["benchmarks.inputs", bench.model, str(bench.weights), str(bench.conversations), str(bench.rows)]
    log = bench.runs / "inputs.log"
    print("making the model and its rows", flush=True)
    if execute(command, REPOSITORY, log, deadline) != 0:
        sys.exit(f"the inputs cannot be made: {reason(log)}; {log} has it all")
    return True


def run_missing(bench: Bench, names: list[str], deadline: float, whole: bool = True) -> None:
    """Run those of `names` that have no result yet, in turn, as far as the time reaches.

    The first one is always begun; cut off, it has failed if it had the `whole` time.
    """
    missing = [name for name in names if bench.result(name) is None]
    for index, name in enumerate(missing):
        taken = [done["wall_seconds"] for other in RUNS if (done := bench.result(other))]
        if index and deadline - time.monotonic() < max(taken, default=0):
            left = ", ".join(missing[index:])
            print(f"not begun, for lack of time: {left}; the same command goes on from here", flush=True)
            return
        print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
        outcome = measure(bench, name, deadline)
        if outcome is None and (index or not whole):
            print(f"{name} was cut off; the same command begins it again", flush=True)
            return
        outcome = outcome or {"failed": "a whole command's --seconds was not enough", "wall_seconds": 0.0}
        write_json(bench.runs / f"{name}.json", outcome)


def measure(bench: Bench, name: str, deadline: float) -> dict[str, Any] | None:
    """Return one run's figures or failure; None when it was cut off at `deadline`, a time of the monotonic clock."""
    folder, log = bench.runs / name, bench.runs / f"{name}.log"
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was cut off
    folder.mkdir(parents=True)
    run = RUNS.get(name)
    start = time.monotonic()
    if isinstance(run, Ours):
        status = execute(stage_command(bench, run, folder), bench.rows, log, deadline)
    else:
        steps = str(min(bench.steps, PEER_STEPS))
        paths = [str(bench.weights), str(bench.rows), steps, str(folder / "measured.json")]
        status = execute(["benchmarks.peers", name, *paths], folder, log, deadline)
    if status is None:
        return None
    figures = stage_figures(folder) if isinstance(run, Ours) else read(folder / "measured.json")
    if status != 0 or figures is None:
        figures = {"failed": reason(log) if status >= 0 else f"{signal.Signals(-status).name}: {reason(log)}"}
    shutil.rmtree(folder)  # caches and checkpoints take gigabytes
    ours = {"code": code()} if isinstance(run, Ours) else {}
    return {"date": time.strftime("%Y-%m-%d"), "wall_seconds": round(time.monotonic() - start, 1), **ours, **figures}


def stage_command(bench: Bench, run: Ours, folder: Path) -> list[str]:
    """Return the train stage on the random model, evaluating and saving in the middle and at the end."""
    steps = run.steps or bench.steps
    return [
        "pipeline.stages.train",
        "tracking=none",
        *DATA,
        f"model={PRESETS[bench.model]}",
        f"model.path={bench.weights}",
        "model.chat_template=null",
        f"train.max_steps={steps}",
        f"train.eval_steps={steps // 2}",
        f"train.save_steps={steps // 2}",
        *run.overrides,
        f"hydra.run.dir={folder}",
        f"runtime.checkpoint_root={folder / 'checkpoints'}",
    ]


def stage_figures(folder: Path) -> dict[str, Any] | None:
    """Return the train stage's report as the figures that the table has."""
    report = read(folder / "reports/train.json")
    if report is None:
        return None
    steady = report.get("steady_tokens_per_second")
    return {
        "tokens_per_second": steady or report["tokens_per_second"],
        "outside_share": report.get("outside_share"),
        "peak_memory_gib": report.get("peak_memory_gib"),
        "startup_seconds": report.get("startup_seconds"),
        "loss": report.get("train_loss"),
        "note": "" if steady else "over the whole training, with compilation and evaluation",
        "report": report,
    }


def execute(module: list[str], working: Path, log: Path, deadline: float = math.inf) -> int | None:
    """Run `python -m` with a module and its arguments, its output into `log`.

    Args:
        module: its name and arguments.
        working: the folder that it runs in.
        log: written anew.
        deadline: of the monotonic clock; then it and all that it started are killed.

    Returns:
        The exit status, or None when it was killed.
    """
    environment = with_this_repository(HF_HUB_OFFLINE="1", PYTHONUNBUFFERED="1")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            cwd=working,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait(None if math.isinf(deadline) else max(deadline - time.monotonic(), 1))
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def reason(log: Path) -> str:
    """Return the line of a log that says why the process failed: an error's, else the last one."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    telling = re.compile(r"train: |Could not override|[\w.]*(Error|Exception|Exit|Interrupt)\b")
    last = lines[-1] if lines else "it said nothing"
    return next((line for line in reversed(lines) if telling.match(line)), last)[:300]


def collect(bench: Bench, setup: dict[str, Any]) -> dict[str, Any]:
    """Return all that was measured, with its share of the limit, and why the others were not run."""
    parameters, rows = read(bench.weights / "parameters.json") or {}, read(bench.rows / "rows.json") or {}
    limit = bench.result("limit") or {}
    operations = operations_a_token(parameters, rows["supervised_share"])
    runs: dict[str, Any] = {}
    for name, run in RUNS.items():
        figures = bench.result(name) or {"not_run": lacking(run.needs, setup) or "not yet"}
        if "tokens_per_second" in figures and "tflops" in limit:
            figures["limit_share"] = figures["tokens_per_second"] * operations / (limit["tflops"] * 1e12)
        runs[name] = {"what": run.what, **figures}
    return {
        "date": time.strftime("%Y-%m-%d"),
        "model": bench.model,
        "steps": bench.steps,
        "peer_steps": min(bench.steps, PEER_STEPS),
        **setup,
        "parameters": parameters,
        "operations_a_token": operations,
        "rows": rows,
        "limit": limit,
        "runs": runs,
    }


def read(path: Path) -> dict[str, Any] | None:
    """Return a JSON file, or None where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


if __name__ == "__main__":
    main()
