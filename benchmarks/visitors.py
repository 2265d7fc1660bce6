"""The loop with visitors whose taste is known: what a turn is worth, what it costs, and what other minds do to it.

    make bench-visitors                        all of it: on two cores of one's own an hour
    python -m benchmarks.visitors --quick      a small one, to see that it runs
    python -m benchmarks.visitors --turns 1 --hostile 0

A champion is trained on the starter's chats and served. Visitors come to the page of that server, ask, read, vote and
write answers anew (visitors_taste.py, visitors_page.py). A turn learns from all that was said so far: `tunesmith
learn`, then DPO from the champion's adapter, export and evaluation, each a process of its own. Then visitors who were
not there before vote blindly between the new model and the first champion (visitors_votes.py). What the visitors of
the first turn were shown is learnt from anew with a share of them hostile, who say the contrary of what they like; and
judged by the gate alone, without training, with votes that mean nothing. What the folder has already is not done again.
"""

import argparse
import asyncio
import hashlib
import json
import os
import resource
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TypeVar

import pyarrow.parquet as pq

from benchmarks.inputs import REPOSITORY
from benchmarks.load import served
from benchmarks.pipeline import facts
from benchmarks.processes import run_module
from benchmarks.visitors_page import visit_all
from benchmarks.visitors_table import (
    HOSTILE_SHARE,
    Bound,
    Chances,
    Cost,
    Costs,
    Hostile,
    Report,
    Said,
    Turn,
    Won,
    table,
)
from benchmarks.visitors_taste import visitors
from benchmarks.visitors_votes import by_chance, revoted, vote_blind
from common.files import write_json, write_text
from pipeline.comparison.pairs import Side, judge, shared
from pipeline.core.composition import compose
from pipeline.core.config import CompareSettings, load
from pipeline.core.paths import ADAPTER, FEEDBACK, GGUF, MANIFEST, PREPARED, ROWS, TRAIN_REPORT
from pipeline.core.records import Manifest, Record, TrainReport
from pipeline.learning.manifest import LearnManifest
from pipeline.report.rows import RowResults
from pipeline.statistics.intervals import Interval, bootstrap, share
from serve.feedback import read_records

Found = TypeVar("Found", bound=Record)

SHOWN, ITS_TWIN = "Q8_0", "Q4_K_M"  # the files that visitors see; the first champion is compared with its twin
MADE = ("prepare", "train", "export")  # what makes a model's files
STAGES = (*MADE, "evaluate")
SPLITS = ("train", "validation", "test")
FRESH = 1_000_000  # seed of the visitors who vote blindly
CHANCES = 1000  # turns with votes that mean nothing

# Of a turn: the starter's chats in the champion's splits, which are replayed and measured, beside what visitors said.
SOURCES = "{starter: {files: [data/starter/*.jsonl], preferences: apart}, said: {files: [data/feedback/pairs/*.jsonl]}}"
DATA = (
    "data=preferences",
    "data.files=[]",
    f"data.sources={SOURCES}",
    "data.duplicates=exact",
    "data.leak_threshold=null",
    "data.questions=starter/questions.jsonl",
)
BEFORE = "before"  # where the champion is measured on the held-out pairs of a turn
FIRST = f"turn-1/{BEFORE}"  # where the first one is measured
DPO = (
    "train=dpo",
    "train.start_adapter=models/champion",
    "train.lr=5e-4",  # of this and 1e-3 with a tenth replayed the better one on validation
    "train.preference.replay=0.5",
    "train.effective_batch=16",
    "train.max_steps=30",
    "train.eval_steps=15",
    "train.save_steps=30",
    f"export.quantizations=[{SHOWN}]",
)


@dataclass(frozen=True)
class Bench:
    """Where it is done, and how much of it."""

    folder: Path
    model: str
    visitors: int  # of a turn
    votes: int
    settings: tuple[str, ...]  # of all stages

    def place(self, name: str) -> Path:
        """Return the workspace of a model: turn-0 is the first champion."""
        return self.folder / name

    @property
    def served(self) -> Path:
        """The GGUF files by the names of their workspaces."""
        return self.folder / "served"


def main() -> None:
    """Simulate, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="starter-m")
    parser.add_argument("--visitors", type=int, default=500, help="of each turn")
    parser.add_argument("--votes", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--hostile", type=int, default=5, help="draws of who is hostile")
    parser.add_argument("--quick", action="store_true", help="60 visitors, 500 votes, one turn of starter-s")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / ".cache/bench-visitors")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "benchmarks/results")
    parser.add_argument("overrides", nargs="*", help="of all stages, as train.max_steps=30")
    asked = parser.parse_args()
    if asked.quick:
        asked.model, asked.visitors, asked.votes, asked.turns, asked.hostile = "starter-s", 60, 500, 1, 0
    what = (asked.model, asked.visitors, asked.votes, (*asked.overrides,))
    digest = hashlib.sha256(repr((what, DATA, DPO)).encode()).hexdigest()[:8]  # other settings, another folder
    bench = Bench(asked.folder.absolute() / f"{asked.model}-{digest}", *what)
    report = simulate(bench, asked.turns, asked.hostile)
    write_json(asked.results / "loop.json", {**facts(), **report.model_dump()})
    write_text(asked.results / "loop.md", table(report))
    print(table(report))


def simulate(bench: Bench, turns: int, hostile: int) -> Report:
    """Return what comes of so many turns, and of so many first turns with hostile visitors."""
    once(bench, "turn-0", first_champion, Costs)
    said, found = [], []
    for number in range(1, turns + 1):
        said.append(once(bench, f"said-{number}", visited, Said))
        found.append(once(bench, f"turn-{number}", turn, Turn))
    against = [once(bench, f"hostile-{seed}", hostile_turn, Hostile) for seed in range(hostile)]
    chances = once(bench, "chance", chance_turns, Chances) if turns else None
    return Report(
        model=bench.model,
        visitors=bench.visitors,
        overrides=bench.settings,
        said=said,
        turns=found,
        hostile=against,
        chances=chances,
    )


def once(bench: Bench, name: str, find: Callable[[Bench, str], Found], kind: type[Found]) -> Found:
    """Return what was found in a workspace, which is made where it is not yet whole."""
    done = bench.place(name) / "found.json"
    if not done.is_file():
        shutil.rmtree(done.parent, ignore_errors=True)
        done.parent.mkdir(parents=True)
        for there in ("starter", "general"):
            (done.parent / there).symlink_to(REPOSITORY / there)
        find(bench, name).write(done)
        print(f"{name}: {done.read_text(encoding='utf-8')}", flush=True)
    return kind.read(done)


def first_champion(bench: Bench, name: str) -> Costs:
    """Train the starter on its chats and export it; keep its splits as files."""
    place = bench.place(name)
    costs = {stage: run(place, f"pipeline.stages.{stage}", *of_stage(bench)) for stage in MADE}
    for split in SPLITS:
        rows = pq.read_table(place / PREPARED / f"{split}.parquet").to_pylist()
        lines = [json.dumps({"messages": row["messages"]}, ensure_ascii=False) + "\n" for row in rows]
        write_text(place / "splits" / f"{split}.jsonl", "".join(lines))
    serve_as(bench, name, name, SHOWN)
    serve_as(bench, name, f"{name}-twin", ITS_TWIN)
    return Costs(steps=costs)


def visited(bench: Bench, name: str) -> Said:
    """Let visitors come to the server of the last two models; in the first turn of two files of the first champion."""
    number = int(name.removeprefix("said-"))
    models = f"turn-{number - 1}", f"turn-{number - 2}" if number > 1 else "turn-0-twin"
    folder, log, clock = bench.place(name) / "feedback", bench.place(name) / "server.log", Clock()
    with served(str(bench.served), log, feedback=folder) as (url, _):
        did = asyncio.run(visit_all(url, visitors(bench.visitors, number), models))
    return Said(did=dict(did), records=len(read_records(folder).records), server=clock.cost())


def turn(bench: Bench, name: str) -> Turn:
    """Learn from what visitors said until now, from the last model on, and let others vote."""
    number = int(name.removeprefix("turn-"))
    for earlier in range(1, number + 1):
        said = bench.place(f"said-{earlier}") / "feedback"
        shutil.copytree(said, bench.place(name) / "feedback", dirs_exist_ok=True)
    return learnt(bench, name, f"turn-{number - 1}")


def hostile_turn(bench: Bench, name: str) -> Hostile:
    """Learn from what the first turn's visitors were shown, a share of them hostile, and let others vote."""
    seed = int(name.removeprefix("hostile-"))
    feedback = bench.place(name) / "feedback"
    others = revoted(bench.place("said-1") / "feedback", feedback, HOSTILE_SHARE, "hostile", seed)
    make(bench, name, "turn-0", MADE)
    pairs = LearnManifest.read(bench.place(name) / FEEDBACK / MANIFEST).splits["train"].pairs
    return Hostile(visitors=others, learnt=pairs, won=votes(bench, name))


def learnt(bench: Bench, name: str, champion: str) -> Turn:
    """Make the model that feedback makes of a champion, hold it against that one, and let visitors vote."""
    costs = make(bench, name, champion, STAGES)
    measure_before(bench, name, champion)
    place = bench.place(name)
    splits, trained = LearnManifest.read(place / FEEDBACK / MANIFEST).splits, TrainReport.read(place / TRAIN_REPORT)
    rows, old, first = (RowResults.read(bench.place(one) / ROWS) for one in (name, f"{name}/{BEFORE}", FIRST))
    verdict = judge(Side(rows, SHOWN), Side(old, SHOWN), gate(bench))
    return Turn(
        learnt={split: counts.pairs for split, counts in splits.items()},
        costs=costs,
        validation_loss=trained.validation_loss,
        validation_accuracy=trained.validation_accuracy,
        preferred=Bound.of(share([one is True for one in rows.models[SHOWN].preferred])),
        gate=str(verdict),
        promoted=verdict.finding == "better",
        loss=Bound.of(lost(rows, first)),
        right=Bound.of(gained(rows, first)),
        won=votes(bench, name),
    )


def make(bench: Bench, name: str, champion: str, stages: Sequence[str]) -> dict[str, Cost]:
    """Make the model that a workspace's feedback makes of a champion; return what each step took."""
    place = bench.place(name)
    for folder in ("data", "models"):
        (place / folder).mkdir()
    (place / "data/starter").symlink_to(bench.place("turn-0") / "splits")
    (place / "models/champion").symlink_to(bench.place(champion) / ADAPTER)
    costs = {"learn": run(place, "pipeline", "learn", "learn.folder=feedback")}
    costs |= {stage: run(place, f"pipeline.stages.{stage}", *of_stage(bench, *DATA, *DPO)) for stage in stages}
    serve_as(bench, name, name, SHOWN)
    return costs


def votes(bench: Bench, name: str) -> Won:
    """Let visitors vote between a workspace's model and the first champion who have said nothing yet."""
    return vote_blind(bench.served, "turn-0", name, visitors(bench.votes, FRESH), bench.votes)


def chance_turns(bench: Bench, name: str) -> Chances:
    """Hold the first turn's model against the champion by its gate, with votes that mean nothing."""
    new, old = (RowResults.read(bench.place(one) / ROWS) for one in ("turn-1", FIRST))
    both = shared(new.pairs, old.pairs)
    ours, theirs = ([one is True for one in rows.models[SHOWN].preferred] for rows in (new, old))
    ours, theirs = [ours[here] for here, _ in both], [theirs[there] for _, there in both]
    return Chances(
        turns=CHANCES,
        pairs=len(both),
        differ=fmean(here != there for here, there in zip(ours, theirs, strict=True)),
        promoted=by_chance(ours, theirs, CHANCES, gate(bench).level),
    )


def gate(bench: Bench) -> CompareSettings:
    """Return the settings by which a turn's model is held against the champion."""
    return load(compose(REPOSITORY / "conf", [f"model={bench.model}", "compare.quality=preference"])).compare


def measure_before(bench: Bench, name: str, champion: str) -> None:
    """Measure a champion on the same rows, questions and held-out pairs as the workspace's model."""
    place, theirs = bench.place(name), bench.place(champion)
    before = place / BEFORE
    (before / "models").mkdir(parents=True)
    for there, of in (("starter", place), ("general", place), ("data", place), (ADAPTER, theirs), (GGUF, theirs)):
        (before / there).symlink_to(of / there)
    run(before, "pipeline.stages.evaluate", *of_stage(bench, *DATA))


def lost(new: RowResults, old: RowResults) -> Interval:
    """Return by how many nats a token a model's loss is above another's, on the test rows that both have."""
    ours, theirs = new.models[SHOWN].nats, old.models[SHOWN].nats
    both = shared(new.rows[: len(ours)], old.rows[: len(theirs)])
    above = [float(ours[here] or 0) - float(theirs[there] or 0) for here, there in both]
    return bootstrap(above, [new.tokens[here] for here, _ in both])


def gained(new: RowResults, old: RowResults) -> Interval:
    """Return by how much its share of right answers is above the other's, on the questions that both have."""
    ours, theirs = new.models[SHOWN].right, old.models[SHOWN].right
    both = shared(new.questions[: len(ours)], old.questions[: len(theirs)])
    return bootstrap([float(ours[here]) - float(theirs[there]) for here, there in both], [1.0] * len(both))


def of_stage(bench: Bench, *more: str) -> tuple[str, ...]:
    """Return what a stage is told: all rows are measured, so that models are held against each other on the same."""
    usual = (f"model={bench.model}", "tracking=none", "export.base=[]", "evaluate.stop_when_sure=false")
    return (*usual, *more, *bench.settings)


def serve_as(bench: Bench, workspace: str, name: str, type_: str) -> None:
    """Put a file of a workspace among those that are served."""
    folder = bench.place(workspace) / GGUF
    file = Manifest.read(folder / MANIFEST).models[type_].file
    bench.served.mkdir(exist_ok=True)
    link = bench.served / f"{name}.gguf"
    link.unlink(missing_ok=True)
    link.symlink_to(folder / file)


def run(folder: Path, module: str, *arguments: str) -> Cost:
    """Run a module in a workspace and return what it took; end where it fails."""
    clock = Clock()
    run_module(folder, module, *arguments)
    return clock.cost()


class Clock:
    """Tells what processes took that were started since it was made, and have ended."""

    def __init__(self) -> None:
        self._began, self._before = time.monotonic(), self._used()

    def cost(self) -> Cost:
        """Return it."""
        seconds, used = time.monotonic() - self._began, self._used() - self._before
        return Cost(seconds=round(seconds, 1), cpu_seconds=round(used, 1), load=round(os.getloadavg()[0], 1))

    @staticmethod
    def _used() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
