"""The loop with visitors whose taste is known: what a turn is worth, what it costs, and what other minds do to it.

    make bench-visitors                                all of it, on starter-s: half an hour on two cores of one's own
    python -m benchmarks.visitors --model starter-m --turns 1 --hostile 0    what a turn of the default starter takes
    python -m benchmarks.visitors --seconds 600        what is begun in ten minutes; the same command goes on
    python -m benchmarks.visitors --quick              a small one, to see that it runs

In a copy of this repository a first champion is made of the starter's chats by `tunesmith repro` and `promote`, and
served. Visitors come to the page of that server, ask, read, vote and write answers anew (visitors_taste.py,
visitors_page.py). `tunesmith turn` learns from all that was said so far, by conf/experiment/turn.yaml, and its gate
decides. Then visitors who were not there before vote blindly between what the turn has made and the first champion
(visitors_votes.py). What the visitors of the first turn were shown is learnt from anew with a share of them hostile,
who say the contrary of what they like; and judged by the gate alone, without training, with votes that mean nothing.

What the folder has already is not done again; other settings, another folder.
"""

import argparse
import asyncio
import hashlib
import json
import math
import os
import re
import resource
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.inputs import REPOSITORY
from benchmarks.load import served
from benchmarks.pipeline import facts
from benchmarks.processes import copy_repository, run_module
from benchmarks.visitors_page import visit_all
from benchmarks.visitors_table import (
    HOSTILE_SHARE,
    Bound,
    Chances,
    Cost,
    Hostile,
    Loop,
    Pairs,
    Report,
    Said,
    Turn,
    Won,
    table,
)
from benchmarks.visitors_taste import visitors
from benchmarks.visitors_votes import answers, by_chance, counted, questions, revoted, votes
from common.files import write_json, write_text
from pipeline.comparison.pairs import shared
from pipeline.core.composition import compose
from pipeline.core.config import CompareSettings, load
from pipeline.core.paths import FEEDBACK, GGUF, MANIFEST, ROWS, TRAIN_REPORT, TURN_RECORD
from pipeline.core.records import Manifest, Record, TrainReport
from pipeline.learning.manifest import LearnManifest
from pipeline.learning.turn import TurnRecord
from pipeline.report.rows import RowResults
from pipeline.statistics.intervals import Interval, bootstrap, share
from serve.feedback import read_records

Found = TypeVar("Found", bound=Record)

SHOWN, ITS_TWIN = "Q8_0", "Q4_K_M"  # the files that visitors see; the first champion is compared with its twin
FRESH = 1_000_000  # seed of the visitors who vote blindly
CHANCES = 1000  # turns with votes that mean nothing
NOTHING_BETTER = 3  # the status of a turn after which the champion is who it was
# All rows are measured, so that models are held against each other on the same; of files those that visitors see.
MEASURED = ("export.base=[]", "evaluate.stop_when_sure=false")
FIRST = (*MEASURED, f"export.quantizations=[{SHOWN},{ITS_TWIN}]")
TURN = (f"export.quantizations=[{SHOWN}]",)
TOLD = re.compile(r"on ([\d,]+) pairs? \(([\d,]+) won, ([\d,]+) lost\)")  # by the gate


@dataclass(frozen=True)
class Bench:
    """Where it is done, and how much of it."""

    folder: Path
    model: str
    visitors: int  # of a turn
    votes: int
    overrides: tuple[str, ...] = ()  # of turns
    first: tuple[str, ...] = ()  # of all
    deadline: float = math.inf  # by time.monotonic, after which no part begins

    def place(self, name: str) -> Path:
        """Return the folder of a part: turn-0 is the first champion."""
        return self.folder / name

    @property
    def repository(self) -> Path:
        """Where turns are taken: always here, as the registry knows its place."""
        return self.folder / "repository"

    @property
    def served(self) -> Path:
        """The GGUF files by the names of the parts that made them."""
        return self.folder / "served"


class NoTimeLeft(Exception):
    """A part was not begun."""


def main() -> None:
    """Simulate as far as there is time, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="starter-s")
    parser.add_argument("--visitors", type=int, default=500, help="of each turn")
    parser.add_argument("--votes", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--hostile", type=int, default=5, help="draws of who is hostile")
    parser.add_argument("--quick", action="store_true", help="60 visitors, 500 votes, one turn of starter-s")
    parser.add_argument("--seconds", type=float, default=math.inf, help="after which no part begins")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / ".cache/bench-visitors")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "benchmarks/results")
    parser.add_argument("overrides", nargs="*", help="of turns, as train.lr=1e-4")
    asked = parser.parse_args()
    if asked.quick:
        asked.model, asked.visitors, asked.votes, asked.turns, asked.hostile = "starter-s", 60, 500, 1, 0
    what = (asked.model, asked.visitors, asked.votes, (*asked.overrides,))
    digest = hashlib.sha256(repr((what, FIRST, TURN)).encode()).hexdigest()[:8]
    bench = Bench(asked.folder.absolute() / f"{asked.model}-{digest}", *what, deadline=time.monotonic() + asked.seconds)
    loop = Loop.kept(asked.results / "loop.json").with_report(simulate(bench, asked.turns, asked.hostile))
    loop.write(asked.results / "loop.json")
    write_text(asked.results / "loop.md", table(loop))
    print(table(loop))


def simulate(bench: Bench, turns: int, hostile: int) -> Report:
    """Return what comes of so many turns, and of so many first turns with hostile visitors, as far as there is time."""
    said: list[Said] = []
    found: list[Turn] = []
    against: list[Hostile] = []
    try:
        once(bench, "turn-0", first_champion, Cost)
        for number in range(1, turns + 1):
            said.append(once(bench, f"said-{number}", visited, Said))
            found.append(once(bench, f"turn-{number}", turn, Turn))
        for seed in range(hostile):
            against.append(once(bench, f"hostile-{seed}", hostile_turn, Hostile))
    except NoTimeLeft as left:
        print(f"no time is left for {left}; the same command goes on")
    return Report(
        **facts(),
        model=bench.model,
        visitors=bench.visitors,
        overrides=bench.overrides,
        said=said,
        turns=found,
        hostile=against,
        chances=chance_turns(found[0], gate(bench)) if found else None,
    )


def once(bench: Bench, name: str, find: Callable[[Bench, str], Found], kind: type[Found]) -> Found:
    """Return what was found in a part, which is done where it is not yet whole. Raises NoTimeLeft."""
    done = bench.place(name) / "found.json"
    if not done.is_file():
        if time.monotonic() > bench.deadline:
            raise NoTimeLeft(name)
        shutil.rmtree(done.parent, ignore_errors=True)
        done.parent.mkdir(parents=True)
        find(bench, name).write(done)
        print(f"{name}: {done.read_text(encoding='utf-8')}", flush=True)
    return kind.read(done)


def first_champion(bench: Bench, name: str) -> Cost:
    """Tune the starter on its chats and promote it, in a repository of its own."""
    shutil.rmtree(bench.repository, ignore_errors=True)
    copy_repository(bench.repository)
    clock = Clock()
    tunesmith(bench, "adopt", f"model={bench.model}", *FIRST, *bench.first)
    tunesmith(bench, "repro")
    tunesmith(bench, "promote", "--quantization", SHOWN)
    cost = clock.cost()
    serve_as(bench, name, SHOWN)
    serve_as(bench, twin(name), ITS_TWIN)
    bench.repository.rename(bench.place(name) / "repository")
    return cost


def visited(bench: Bench, name: str) -> Said:
    """Let visitors come to the server of the champion and the one before; of the first one, of two of its files."""
    number = int(name.removeprefix("said-"))
    turns = (f"turn-{earlier}" for earlier in range(1, number))
    promoted = [turn for turn in turns if Turn.read(bench.place(turn) / "found.json").promoted]
    *_, before, champion = (twin("turn-0"), "turn-0", *promoted)
    folder, log, clock = bench.place(name) / "feedback", bench.place(name) / "server.log", Clock()
    with served(str(bench.served), log, feedback=folder) as (url, _):
        did = asyncio.run(visit_all(url, visitors(bench.visitors, number), (champion, before)))
    return Said(did=dict(did), records=len(read_records(folder).records), server=clock.cost())


def turn(bench: Bench, name: str) -> Turn:
    """Take a turn with what visitors said until now, after the last one, and let others vote."""
    number = int(name.removeprefix("turn-"))
    restore(bench, f"turn-{number - 1}")
    for earlier in range(1, number + 1):
        said = bench.place(f"said-{earlier}") / "feedback"
        shutil.copytree(said, bench.repository / "feedback", dirs_exist_ok=True)
    cost = take_turn(bench, name)
    found = made(bench, cost, vote(bench, name))
    bench.repository.rename(bench.place(name) / "repository")
    return found


def hostile_turn(bench: Bench, name: str) -> Hostile:
    """Take the first turn with a share of its visitors hostile, and let others vote."""
    seed = int(name.removeprefix("hostile-"))
    restore(bench, "turn-0")
    said = bench.place("said-1") / "feedback"
    others = revoted(said, bench.repository / "feedback", HOSTILE_SHARE, "hostile", seed)
    take_turn(bench, name)
    outcome = TurnRecord.read(bench.repository / TURN_RECORD)
    pairs = LearnManifest.read(bench.repository / FEEDBACK / MANIFEST).splits["train"].pairs
    return Hostile(visitors=others, learnt=pairs, promoted=outcome.promoted, won=vote(bench, name))


def restore(bench: Bench, name: str) -> None:
    """Put the repository back as it was after a turn."""
    shutil.rmtree(bench.repository, ignore_errors=True)
    shutil.copytree(bench.place(name) / "repository", bench.repository, symlinks=True)


def take_turn(bench: Bench, name: str) -> Cost:
    """Take a turn in the repository and serve what it made; return what it took."""
    clock = Clock()
    tunesmith(bench, "turn", *TURN, *bench.overrides, allowed=(0, NOTHING_BETTER))
    cost = clock.cost()
    serve_as(bench, name, SHOWN)
    return cost


def made(bench: Bench, cost: Cost, won: Won) -> Turn:
    """Return what the turn in the repository came to."""
    place = bench.repository
    outcome, trained = TurnRecord.read(place / TURN_RECORD), TrainReport.read(place / TRAIN_REPORT)
    splits = LearnManifest.read(place / FEEDBACK / MANIFEST).splits
    rows, first = (RowResults.read(where / ROWS) for where in (place, bench.place("turn-0") / "repository"))
    told = TOLD.search(outcome.why)
    return Turn(
        learnt={split: counts.pairs for split, counts in splits.items()},
        cost=cost,
        steps=trained.steps,
        validation_accuracy=trained.validation_accuracy,
        preferred=Bound.of(share([one is True for one in rows.models[SHOWN].preferred])),
        pairs=Pairs.of(*told.groups()) if told else None,
        gate=outcome.why,
        promoted=outcome.promoted,
        loss=Bound.of(lost(rows, first)),
        right=Bound.of(gained(rows, first)),
        won=won,
    )


def vote(bench: Bench, name: str) -> Won:
    """Let visitors vote between what a part made and the first champion who have said nothing yet."""
    asked = questions(visitors(bench.votes, FRESH), bench.votes)
    kept = bench.place("turn-0") / "answers.json"
    if not kept.is_file():
        write_json(kept, answers(bench.served, "turn-0", asked))
    old = json.loads(kept.read_text(encoding="utf-8"))
    return counted(votes(asked, old, answers(bench.served, name, asked)))


def chance_turns(turn: Turn, settings: CompareSettings) -> Chances | None:
    """Hold a turn's model against the champion by the gate's test, with votes that mean nothing."""
    if turn.pairs is None:
        return None
    alike = turn.pairs.rows - turn.pairs.won - turn.pairs.lost
    ours = [True] * turn.pairs.won + [False] * (turn.pairs.lost + alike)
    theirs = [False] * turn.pairs.won + [True] * turn.pairs.lost + [False] * alike
    return Chances(turns=CHANCES, pairs=turn.pairs.rows, promoted=by_chance(ours, theirs, CHANCES, settings.level))


def gate(bench: Bench) -> CompareSettings:
    """Return the settings by which a turn's model is held against the champion."""
    return load(compose(REPOSITORY / "conf", [f"model={bench.model}", "experiment=turn"])).compare


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


def twin(name: str) -> str:
    """Return the name of a champion's other file."""
    return f"{name}-twin"


def serve_as(bench: Bench, name: str, type_: str) -> None:
    """Put the repository's file of a type among those that are served."""
    folder = bench.repository / GGUF
    bench.served.mkdir(exist_ok=True)
    shutil.copy2(folder / Manifest.read(folder / MANIFEST).models[type_].file, bench.served / f"{name}.gguf")


def tunesmith(bench: Bench, *arguments: str, allowed: tuple[int, ...] = (0,)) -> None:
    """Run a verb in the repository; end where its status is another than those allowed."""
    registry = f"sqlite:///{bench.repository}/mlflow.db"  # and none of this machine's own
    alone = {"MLFLOW_TRACKING_URI": registry, "DVC_SITE_CACHE_DIR": str(bench.folder / "site"), "CI": "true"}
    run_module(bench.repository, "pipeline", *arguments, allowed=allowed, **alone)


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
