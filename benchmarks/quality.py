"""What is learnt: our training beside TRL's SFTTrainer and Unsloth, on the same rows at the same settings.

    python -m benchmarks.quality --data FOLDER      again, until nothing is left to begin; FOLDER has GSM8K's two files

Every run is what conf/experiment/gsm8k.yaml says, on the rows that `prepare` makes, with as many updates at the same
rate; its adapter is then scored on the same base by the evaluation's own code: loss on the validation and the test
split, and the answers to GSM8K's test questions, greedy, right where the final number is. Each training and each score
is a process of its own. What was measured is kept in --folder, a file a run, and not measured again; none is begun
that would hardly end within --seconds. Of several seeds the first is measured of all before the second. Settings after
the options go over the experiment's: `model=starter-s train.max_steps=2 data.max_rows=60`, for a try without a GPU.

Writes benchmarks/results/quality.json and .md; benchmarks/quality_table.py says how runs are compared.
"""

import argparse
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.quality_table import compared, summary, table
from benchmarks.train import execute, facts, lacking, read, reason
from common.files import atomic_path, write_json, write_text
from pipeline.core.composition import compose
from pipeline.core.config import Config, load
from pipeline.core.paths import ADAPTER, PREPARED
from pipeline.models.packaged import located
from pipeline.stages.prepare import prepare

REPOSITORY = Path(__file__).parents[1]
RAW = Path("data/raw/gsm8k")
BASE = "base"


@dataclass(frozen=True)
class Engine:
    """Who trains, and what it needs."""

    what: str
    needs: tuple[str, ...] = ()


ENGINES = {
    "ours": Engine("the train stage"),
    "trl": Engine("TRL's SFTTrainer with PEFT on prompts and completions, its other settings as they come", ("trl",)),
    "unsloth": Engine(
        "Unsloth with its notebooks' settings: train_on_responses_only, its gradient checkpointing, 8-bit AdamW",
        ("GPU", "unsloth", "bitsandbytes"),
    ),
}


@dataclass(frozen=True)
class Bench:
    """Where a comparison keeps what it needs and what it has measured."""

    folder: Path
    overrides: tuple[str, ...]  # over the experiment's settings

    @property
    def rows(self) -> Path:
        """The folder of the prepared data, in which all is run."""
        return self.folder / "rows"

    @cached_property
    def settings(self) -> list[str]:
        """What the configuration is composed with; files by their full names, as runs have another working folder."""
        template = load(compose(REPOSITORY / "conf", ["experiment=gsm8k", *self.overrides])).model.chat_template
        own = [f"model.chat_template={REPOSITORY / template}"] if template else []
        return ["experiment=gsm8k", *self.overrides, *own, "tracking=none"]

    @cached_property
    def config(self) -> Config:
        """The experiment's configuration."""
        return load(compose(REPOSITORY / "conf", self.settings))

    @cached_property
    def updates(self) -> int:
        """Of every training: as many as the epochs have, unless a number is set."""
        train = self.config.train
        rows = pq.read_metadata(self.rows / PREPARED / "train.parquet").num_rows
        return train.max_steps or round(-(-rows // train.update_size) * train.epochs)

    def result(self, name: str) -> dict[str, Any] | None:
        """Return a finished run's figures, or why it failed."""
        return read(self.folder / "results" / f"{name}.json")


def main() -> None:
    """Prepare the rows, run what is missing while there is time, write the table."""
    arguments = parse()
    deadline = time.monotonic() + arguments.seconds
    bench = Bench(arguments.folder.absolute(), tuple(arguments.overrides))
    setup = facts()
    prepare_rows(bench, arguments.data)
    located(bench.config.model.path, bench.config.model.revision)  # fetched once, before runs at once
    engines = [name for name in arguments.only if lacking(ENGINES[name].needs, setup) is None]
    names = [BASE, *(f"{name}-{seed}" for seed in range(1, arguments.seeds + 1) for name in engines)]
    missing = [name for name in names if bench.result(name) is None]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(lambda name: measure(bench, name, deadline), missing))
    report = collect(bench, setup)
    write_json(arguments.results / "quality.json", report)
    write_text(arguments.results / "quality.md", table(report))
    print(table(report))


def parse() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="where train.jsonl and test.jsonl are; the first time only")
    parser.add_argument("--only", nargs="+", choices=ENGINES, default=list(ENGINES), metavar="ENGINE")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each")
    parser.add_argument(
        "--jobs", type=int, default=1, help="runs at once on the one GPU: quality is measured, no speed"
    )
    parser.add_argument("--seconds", type=float, default=540, help="that this command may take")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / ".cache/bench-quality")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "benchmarks/results")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings over the experiment's")
    return parser.parse_args()


def prepare_rows(bench: Bench, data: Path | None) -> None:
    """Make the prepared data where it is missing."""
    if bench.rows.is_dir():
        return
    if data is None:
        sys.exit(f"{bench.rows} is still to be made; --data names the folder of GSM8K's train.jsonl and test.jsonl")
    with atomic_path(bench.rows) as folder:
        shutil.copytree(data, folder / RAW)
        prepare(bench.config.data, folder, folder)


def measure(bench: Bench, name: str, deadline: float) -> None:
    """Train what is called `name` and scores it, as far as the time reaches; keep the figures."""
    taken = [done["wall_seconds"] for path in (bench.folder / "results").glob("*-*.json") if (done := read(path))]
    start = time.monotonic()
    if deadline - start < max(taken, default=0):
        print(f"not begun, for lack of time: {name}; the same command goes on from here", flush=True)
        return
    print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
    folder = bench.folder / "runs" / name
    adapter = folder / ADAPTER if name != BASE else None
    status: int | None = 0
    if adapter and not adapter.is_dir():
        status = execute(training(bench, name, folder), bench.rows, folder / "train.log", deadline)
    log = folder / ("score.log" if status == 0 else "train.log")
    if status == 0:
        arguments = [str(adapter or "-"), str(folder / "score.json"), *bench.settings]
        status = execute(["benchmarks.quality_score", *arguments], bench.rows, log, deadline)
    if status is None:
        print(f"{name} was cut off; the same command goes on with it", flush=True)
        return
    figures = read(folder / "score.json") if status == 0 else {"failed": reason(log)}
    seconds = round(time.monotonic() - start, 1)
    write_json(bench.folder / "results" / f"{name}.json", {"wall_seconds": seconds, **(figures or {})})


def training(bench: Bench, name: str, folder: Path) -> list[str]:
    """Return the module that trains, and its arguments."""
    engine, _, seed = name.rpartition("-")
    settings = [*bench.settings, f"train.seed={seed}", f"train.max_steps={bench.updates}"]
    if engine != "ours":
        return ["benchmarks.quality_peers", engine, str(folder / ADAPTER), *settings]
    settings += [f"hydra.run.dir={folder}", f"runtime.checkpoint_root={folder / 'checkpoints'}"]
    whole = f"train.batch_size={bench.config.train.update_size}"  # as the others: what fits is not tried beside them
    return ["pipeline.stages.train", *settings, whole]


def collect(bench: Bench, setup: dict[str, Any]) -> dict[str, Any]:
    """Return what was measured: each run's figures, and ours against each of the others."""
    measured = {path.stem: read(path) or {} for path in sorted((bench.folder / "results").glob("*.json"))}
    scored = {name: run for name, run in measured.items() if "right" in run}
    by_engine = {
        engine: [run for name, run in scored.items() if name.rpartition("-")[0] == engine] for engine in ENGINES
    }
    train = bench.config.train
    return {
        "date": time.strftime("%Y-%m-%d"),
        **setup,
        "model": bench.config.model.name,
        "updates": bench.updates,
        "train": {key: getattr(train, key) for key in ("lr", "scheduler", "update_size", "max_length")},
        "lora": {"r": train.lora.r, "alpha": train.lora.alpha},
        "rows": (read(bench.rows / "reports/prepare.json") or {})["splits"]["train"]["rows"],
        "engines": {
            name: {"what": engine.what, "not_run": lacking(engine.needs, setup), "seeds": len(by_engine[name])}
            for name, engine in ENGINES.items()
        },
        "runs": {name: summary(run) if name in scored else run for name, run in measured.items()},
        "against": {
            peer: compared(by_engine["ours"], by_engine[peer])
            for peer in ENGINES
            if peer != "ours" and by_engine["ours"] and by_engine[peer]
        },
    }


if __name__ == "__main__":
    main()
