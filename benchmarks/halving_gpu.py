"""R5's sweep on the 1B shape, on a GPU: its GPU-seconds beside those of the plain grid.

The sweep runs whole. Of the grid the nine pairs of batch and accumulation run, each to its end at one rate and
schedule, one after another in one process as a grid does, twins too; the other eleven rates and schedules take the same
time, so the grid is taken as twelve times that. What the first job takes before its training, which later ones share,
is not multiplied. GPU-seconds are those of the process, from its start to its end, on one card.
"""

import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.halving_searches import is_over, stops
from benchmarks.inputs import DATA
from benchmarks.processes import with_this_repository
from benchmarks.train import execute, facts, reason
from common.files import write_json, write_text
from pipeline.core.trials import OUTCOME
from pipeline.sweeps.progress import look
from pipeline.sweeps.record import ROOT, Folder, SweepRecord

REPOSITORY = Path(__file__).parents[1]
CONVERSATIONS = 3840  # 120 updates of the 32 that are the most in R5
RATES_AND_SCHEDULES = 12
GOAL = 0.2
SWEEPS = ("halving", "pairs")
PARTS = ("inputs", *SWEEPS)
TO_SAVE = 30.0  # seconds for a training that is asked to stop
BOTH = ["tracking=none", "experiment=r5", "data=starter", *DATA, "model.chat_template=null", "train.check_export=false"]
PAIRS = [
    "train.lr=choice(2e-4)",
    "train.scheduler=choice(linear)",
    # Beside the loss the speed counts, by a hair: so twins are no twins, and each is trained.
    "hydra.sweeper.objective=[validation_loss,-1e-12*tokens_per_second]",
]


@dataclass(frozen=True)
class Pair:
    """A pair of the grid, at one rate and schedule."""

    batch_size: str
    accumulation: str
    training_seconds: float
    seconds: float  # of its job


@dataclass(frozen=True)
class Figures:
    """What was measured: benchmarks/results/halving-1b.json."""

    date: str
    setup: dict[str, object]
    shape: str
    overrides: list[str]
    last_step: int
    trials: int
    distinct: int
    jobs: int
    steps: int
    seconds: float
    training_seconds: float
    pairs: list[Pair]
    pairs_process_seconds: float
    grid_seconds: float
    grid_training_seconds: float


@dataclass(frozen=True)
class GpuBench:
    """Where the model, the rows and the sweeps are."""

    folder: Path
    shape: str
    rungs: tuple[int, int]
    overrides: tuple[str, ...]

    @property
    def rows(self) -> Path:
        """The folder of the prepared data, in which all is run."""
        return self.folder / f"rows-{self.shape}"

    @property
    def model(self) -> Path:
        """The model of random weights."""
        return self.folder / self.shape

    def sweep(self, kind: str) -> Folder:
        """Return the folder of `halving` or of the grid's `pairs`."""
        return Folder(self.rows / ROOT / kind)

    def command(self, kind: str) -> list[str]:
        """Return the train stage that runs it."""
        own = [f"model.path={self.model}", f"hydra.sweeper.name={kind}", *stops(self.rungs, whole=kind == "pairs")]
        pairs = PAIRS if kind == "pairs" else []
        return ["pipeline.stages.train", "-m", "sweep=r5", *BOTH, *own, *self.overrides, *pairs]


def measure(
    folder: Path,
    results: Path,
    deadline: float,
    parts: Sequence[str],
    rungs: tuple[int, int],
    overrides: tuple[str, ...],
) -> None:
    """Run what is missing of these parts while there is time; write the figures once all is there."""
    setup = facts()
    bench = GpuBench(folder, "1b" if setup["card"] else "tiny", rungs, overrides)
    if "inputs" in parts:
        make_inputs(bench)
    for kind in SWEEPS:
        if kind in parts and time.monotonic() < deadline and not is_over(bench.sweep(kind)):
            run(bench, kind, deadline)
    if not all(is_over(bench.sweep(kind)) for kind in SWEEPS):
        print("not all is measured yet")
        return
    made = figures(bench, setup)
    write_json(results / f"halving-{bench.shape}.json", asdict(made))
    write_text(results / f"halving-{bench.shape}.md", table(made))
    print(table(made))


def make_inputs(bench: GpuBench) -> None:
    """Make the random model and its rows where they are missing."""
    if bench.model.is_dir() and bench.rows.is_dir():
        return
    log = bench.folder / "inputs.log"
    arguments = [bench.shape, str(bench.model), str(CONVERSATIONS), str(bench.rows)]
    if execute(["benchmarks.inputs", *arguments], REPOSITORY, log) != 0:
        sys.exit(f"the inputs cannot be made: {reason(log)}; {log} has it all")


def run(bench: GpuBench, kind: str, deadline: float) -> None:
    """Run a sweep until its end, or ask it to save and stop at the deadline; note the seconds of its process."""
    log, walls = bench.folder / f"{kind}.log", bench.folder / f"{kind}.walls.json"
    environment = with_this_repository(HF_HUB_OFFLINE="1", PYTHONUNBUFFERED="1")
    started = time.time()
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *bench.command(kind)],
            cwd=bench.rows,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            process.wait(max(1, deadline - TO_SAVE - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(TO_SAVE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    ended = time.time()
    write_json(walls, [*(json.loads(walls.read_text()) if walls.is_file() else []), [started, ended]])
    said = "done" if is_over(bench.sweep(kind)) else f"not over: {reason(log)}"
    print(f"{time.strftime('%H:%M:%S')} {kind}: {said}, {ended - started:.0f} s", flush=True)


def figures(bench: GpuBench, setup: Mapping[str, object]) -> Figures:
    """Return the GPU-seconds of the sweep, and of the grid by its pairs."""
    halving, pairs = (look(bench.sweep(kind)) for kind in SWEEPS)
    measured = pairs_measured(bench, pairs.record)
    once = sum(pair.seconds for pair in measured)
    return Figures(
        date=time.strftime("%Y-%m-%d"),
        setup=dict(setup),
        shape=bench.shape,
        overrides=list(bench.overrides),
        last_step=bench.rungs[1],
        trials=len(halving.record.trials),
        distinct=len(halving.own),
        jobs=sum(len(each.stops) for each in halving.own),
        steps=halving.steps,
        seconds=process_seconds(bench, "halving"),
        training_seconds=sum(outcome.seconds or 0 for each in halving.own if (outcome := each.stops[-1].outcome)),
        pairs=measured,
        pairs_process_seconds=process_seconds(bench, "pairs"),
        grid_seconds=process_seconds(bench, "pairs") + (RATES_AND_SCHEDULES - 1) * once,
        grid_training_seconds=RATES_AND_SCHEDULES * sum(pair.training_seconds for pair in measured),
    )


def process_seconds(bench: GpuBench, kind: str) -> float:
    """Return how long the processes of a sweep ran: one, unless it was cut off."""
    return sum(ended - began for began, ended in json.loads((bench.folder / f"{kind}.walls.json").read_text()))


def pairs_measured(bench: GpuBench, record: SweepRecord) -> list[Pair]:
    """Return what each pair's job took: its training, and what an ordinary job takes around it.

    The first job of a process loads what later ones share, so the median of the others' is taken for all.
    """
    jobs = [bench.sweep("pairs").job(trial.number, None) for trial in record.trials]
    ends = [(job.path / OUTCOME).stat().st_mtime for job in jobs]
    training = [(outcome.seconds or 0.0) if (outcome := job.outcome()) else 0.0 for job in jobs]
    around = [end - before - own for before, end, own in zip(ends, ends[1:], training[1:], strict=False)]
    usual = statistics.median(around)
    return [
        Pair(trial.values["train.batch_size"], trial.values["train.gradient_accumulation_steps"], own, own + usual)
        for trial, own in zip(record.trials, training, strict=True)
    ]


def table(made: Figures) -> str:
    """Return the figures as Markdown."""
    packages = made.setup["packages"]
    assert isinstance(packages, dict)
    share, in_trainings = made.seconds / made.grid_seconds, made.training_seconds / made.grid_training_seconds
    lines = [
        f"# R5's sweep on the {made.shape} shape, on {made.setup['card'] or 'a CPU'}",
        "",
        f"{made.date}; {', '.join(f'{name} {version}' for name, version in packages.items())}."
        f"{''.join(f' {override}' for override in made.overrides)}",
        "",
        "The grid is taken as twelve times its nine pairs of batch and accumulation, which ran: the twelve rates and "
        "schedules take the same time.",
        "",
        "| | GPU-seconds | of these in trainings | jobs | steps |",
        "|---|--:|--:|--:|--:|",
        f"| sweep=r5, {made.distinct} distinct of {made.trials} trials | {made.seconds:,.0f} | "
        f"{made.training_seconds:,.0f} | {made.jobs} | {made.steps:,} |",
        f"| the plain grid | {made.grid_seconds:,.0f} | {made.grid_training_seconds:,.0f} | {made.trials} | "
        f"{made.trials * made.last_step:,} |",
        "",
        f"{share:.3f} of the grid's GPU-seconds; the goal is {GOAL}. {in_trainings:.3f} of those in its trainings.",
        "",
        "| batch | accumulation | seconds in training | seconds of the job |",
        "|--:|--:|--:|--:|",
        *(f"| {p.batch_size} | {p.accumulation} | {p.training_seconds:.1f} | {p.seconds:.1f} |" for p in made.pairs),
    ]
    return "\n".join(lines) + "\n"
