"""What successive halving is worth: R5's space on the starter, beside the whole grid, Optuna's rule and Ray Tune's.

    python -m benchmarks.halving --workers 16                    again, until nothing is left
    python -m benchmarks.halving --gpu inputs halving pairs      R5's sweep on the 1B shape, in GPU-seconds

For each seed of the training the grid of R5's 108 trials is trained to its end, which says what there is to find, and
the sweep that halves is run: a real one, with checkpoints of its own. The peers' rules then decide over the losses that
the grid has measured (benchmarks/halving_searches.py), since a training gives the same digits whenever it is run: that
the losses of the sweep that halves are the grid's is counted, too.

All is kept in --folder; a sweep that was cut off at --seconds goes on with the same command. --out makes an archive in
place of the table, which --from unpacks on another machine; --table trains nothing. Settings after the options go over
the sweeps': `train.lr=1e-4,5e-4`, for a try.

Writes benchmarks/results/halving.json and .md; with --gpu halving-1b.json and .md.
"""

import argparse
import os
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.halving_gpu import PARTS, measure
from benchmarks.halving_searches import Seed, compared, is_over, stops
from benchmarks.halving_table import report, table
from benchmarks.train import execute, reason
from common.files import atomic_path, write_json, write_text
from pipeline.core.composition import compose
from pipeline.core.config import load
from pipeline.stages.prepare import prepare
from pipeline.sweeps.record import ROOT, Folder

REPOSITORY = Path(__file__).parents[1]
SETTINGS = ["model=starter-s", "tracking=none", "runtime.device=cpu", "train.check_export=false"]
KINDS = ("grid", "halving")
KEPT = ("sweep.json", "task.json", "outcome.json", "progress.jsonl", "log.txt")  # of sweeps, for the table


@dataclass(frozen=True)
class Bench:
    """Where a comparison keeps its rows and sweeps, and what it searches."""

    folder: Path
    rungs: tuple[int, int]  # the first one, and the last
    overrides: tuple[str, ...] = ()

    @property
    def rows(self) -> Path:
        """The folder of the prepared data, in which all is run."""
        return self.folder / "rows"

    def sweep(self, kind: str, seed: int) -> Folder:
        """Return the folder of a seed's grid, or of the sweep that halves it."""
        return Folder(self.rows / ROOT / f"{kind}-{seed}")

    def command(self, kind: str, seed: int, workers: int) -> list[str]:
        """Return the train stage that runs a sweep."""
        rungs = stops(self.rungs, whole=kind == "grid")
        own = [f"hydra.sweeper.name={kind}-{seed}", f"train.seed={seed}", f"train.eval_steps={self.rungs[0]}"]
        at_once = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={workers}"] if workers > 1 else []
        return ["pipeline.stages.train", "-m", "sweep=r5", *SETTINGS, *rungs, *own, *at_once, *self.overrides]


def main() -> None:
    """Run what is missing while there is time; make the table of what there is."""
    arguments = parse()
    deadline = time.monotonic() + arguments.seconds
    folder, results, rungs = arguments.folder.absolute(), arguments.results, tuple(arguments.rungs)
    if arguments.gpu:
        measure(folder, results, deadline, arguments.gpu, rungs, tuple(arguments.overrides))
        return
    bench = Bench(folder, rungs, tuple(arguments.overrides))
    if arguments.source:
        unpack(arguments.source, bench.rows / ROOT)
    if not arguments.table:
        run_missing(bench, arguments.seeds, arguments.workers, deadline)
    if arguments.out:
        pack(bench.rows / ROOT, arguments.out)
    else:
        write_table(bench, arguments.seeds, results)


def parse() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], metavar="SEED")
    parser.add_argument("--workers", type=int, default=1, help="trainings at once, each on a core of its own")
    parser.add_argument(
        "--rungs", type=int, nargs=2, default=[15, 120], metavar="STEPS", help="the first, and the last"
    )
    parser.add_argument("--seconds", type=float, default=540, help="that this command may take")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / ".cache/bench-halving")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "benchmarks/results")
    parser.add_argument("--out", type=Path, metavar="ARCHIVE", help="a .tar.xz for what was measured")
    parser.add_argument("--from", type=Path, dest="source", metavar="ARCHIVE", help="what another machine has measured")
    parser.add_argument("--table", action="store_true", help="train nothing")
    parser.add_argument(
        "--gpu", nargs="+", choices=PARTS, help="of R5's sweep on the 1B shape; the last two each on a GPU of its own"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings over the sweeps'")
    return parser.parse_args()


def run_missing(bench: Bench, seeds: list[int], workers: int, deadline: float) -> None:
    """Run each seed's two sweeps as far as the time reaches, seeds side by side."""
    prepare_rows(bench.rows)
    at_once = min(len(seeds), workers)

    def run_seed(seed: int) -> None:
        for kind in KINDS:
            if time.monotonic() < deadline and not is_over(bench.sweep(kind, seed)):
                run_sweep(bench, kind, seed, workers // at_once, deadline)

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(run_seed, seeds))


def prepare_rows(rows: Path) -> None:
    """Prepare the starter's chats where that is not done."""
    if (rows / "data").is_dir():
        return
    rows.mkdir(parents=True, exist_ok=True)
    if not (rows / "starter").is_symlink():
        (rows / "starter").symlink_to(REPOSITORY / "starter")
    prepare(load(compose(REPOSITORY / "conf", SETTINGS)).data, rows, rows)


def run_sweep(bench: Bench, kind: str, seed: int, workers: int, deadline: float) -> None:
    """Run a sweep to its end or the deadline, each training on one thread, whose number changes the last digits."""
    log, begun = bench.folder / f"{kind}-{seed}.log", time.monotonic()
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    status = execute(bench.command(kind, seed, workers), bench.rows, log, deadline)
    said = "done" if status == 0 else f"failed: {reason(log)}; {log} has it all"
    if status is None:
        said = "cut off; the same command goes on with it"
    print(f"{time.strftime('%H:%M:%S')} {kind}-{seed}: {said}, {time.monotonic() - begun:.0f} s", flush=True)


def pack(sweeps: Path, archive: Path) -> None:
    """Write what the table is made of, and no checkpoints: a sweep that needs them to go on is left out."""
    kept = [path for path in sorted(sweeps.iterdir()) if path.name.startswith("grid-") or is_over(Folder(path))]
    with atomic_path(archive) as temporary, tarfile.open(temporary, "w:xz") as packed:
        for path in (path for sweep in kept for path in sorted(sweep.rglob("*")) if path.name in KEPT):
            packed.add(path, path.relative_to(sweeps))


def unpack(archive: Path, sweeps: Path) -> None:
    """Put an archive's files where sweeps have theirs."""
    sweeps.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as packed:
        packed.extractall(sweeps, filter="data")


def write_table(bench: Bench, numbers: list[int], results: Path) -> None:
    """Compare the seeds of which both sweeps are over, and write what came out."""
    over = [seed for seed in numbers if all(is_over(bench.sweep(kind, seed)) for kind in KINDS)]
    seeds: list[Seed] = [compared(seed, *(bench.sweep(kind, seed) for kind in KINDS)) for seed in over]
    if not seeds:
        print("no seed has both sweeps yet; the same command goes on")
        return
    made = report(seeds, bench.overrides)
    write_json(results / "halving.json", made)
    write_text(results / "halving.md", table(made))
    print(table(made))


if __name__ == "__main__":
    main()
