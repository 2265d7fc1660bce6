"""One round: a sweep in a repository of its own is harmed, started again until it ends, and compared.

Every check follows from what was seen before the harm, never from how long something took: a slow machine makes a
round longer, not wrong.
"""

import json
import shutil
import time
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path
from threading import Timer

from chaos_disk import small_disk
from chaos_process import run, step_of
from chaos_rounds import Round
from sweep_bench import SAVE_STEPS, SweepBench, ranking, winner
from sweep_mlflow import faults, recorded
from sweep_plan import Blow, FullDisk, Harm, LostMlflow, Plan
from sweep_process import SWEEP, Mlflow, SweepStart, has_come, mlflow_of, seen

CHECKS = {
    "ranking": "ranking and winner are the undisturbed sweep's, to the bit",
    "kept": "what was finished is neither run again nor overwritten",
    "work": "no more than save_steps updates of a trial are trained twice, and none where it was asked to stop",
    "status": "it ends with 0 if it is done, 75 if it was asked to stop; without a traceback",
    "orphans": "nothing outlives the sweep",
    "mlflow": "it has one parent, a run a trial, each step once, and how all ended",
}
DISK = 64 << 20  # bytes
TROUBLED = "No space left on device"


class SweepRound(Round):
    """One round in progress."""

    def __init__(self, name: str, plan: Plan, bench: SweepBench) -> None:
        """Have it in a folder of its own on the bench."""
        super().__init__(name, plan, bench.folder, needs_mount=plan.disk is not None)
        self.plan, self.bench = plan, bench
        self.usual = bench.undisturbed(plan.launcher)
        self.repository = self.folder / "repository"
        self.environment = bench.environment(self.folder, self.repository)
        self.early = False  # whether the last harm came as the sweep began, which may not take signals yet
        self.asked = False  # whether the start before was asked to stop, and nothing else
        self.kept: dict[Path, tuple[int, str]] = {}  # what may not change any more
        self.lines: dict[Path, list[int]] = {}  # the updates that each job has told of, before this start
        self.finished = False
        self.mlflow: Mlflow

    def set_up(self, stack: ExitStack) -> None:
        """Copy the repository; where a disk is to be full, lay its folder on a small one."""
        shutil.copytree(self.bench.template, self.repository, symlinks=True)
        if self.plan.disk is not None:
            stack.enter_context(small_disk(self.repository / self.plan.disk, DISK))
        self.mlflow = stack.enter_context(mlflow_of(self.folder, self.plan.mlflow, self.environment))

    def harm_until_done(self) -> None:
        """One start after the other, each with the harms that come before it ends."""
        harms = list(self.plan.harms)
        while not self.finished:
            self.start(harms)

    def start(self, harms: list[Harm]) -> None:
        """Start the sweep, harm it until it has to end, wait for its end and judge what it did."""
        command = self.bench.command(self.plan.launcher, f"tracking.uri={self.mlflow.uri}")
        with SweepStart(self.repository, command, self.next_log(), self.environment) as start:
            done = []
            while harms and not any(self.ends(harm) for harm in done):
                harm = harms.pop(0)
                if self.harm(start, harm):
                    done.append(harm)
                elif not start.alive():
                    self.result.notes.append(f"it ended before {harm}")
                    break
            status = start.end()
            if left := start.orphans():
                self.blame("orphans", f"processes {left} live on after start {self.result.starts}")
        self.make_room()
        self.judge(start, status, done)

    def harm(self, start: SweepStart, harm: Harm) -> bool:
        """Harm a sweep once it has come so far; false if it ended before."""
        whole = {"outcome": self.usual.outcomes, "end": self.usual.outcomes}.get(harm.moment, self.usual.updates)
        count = whole if harm.moment == "end" else max(1, round(harm.share * whole))
        self.early = harm.moment == "start" or has_come(seen(self.repository), harm.moment, count)
        if not start.wait_for(harm.moment, count):
            return False
        time.sleep(harm.delay * self.usual.seconds[harm.moment])
        if isinstance(harm.trouble, Blow):
            return self.strike(start, harm.trouble, harm.delay)
        if isinstance(harm.trouble, FullDisk):
            self.fill(self.repository / harm.trouble.folder)
        else:
            self.lose_mlflow(harm.trouble)
        return start.alive()

    def strike(self, start: SweepStart, blow: Blow, delay: float) -> bool:
        """Hit a sweep, or a worker as soon as there is one with a job."""
        while start.alive():
            if start.strike(blow.target, blow.signals, delay / 10):
                return True
            time.sleep(0.01)
        return False

    def lose_mlflow(self, trouble: LostMlflow) -> None:
        """Take MLflow away, for a time or until all is over."""
        self.mlflow.take_away()
        if trouble.seconds:
            timer = Timer(trouble.seconds, self.mlflow.give_back)
            timer.daemon = True
            timer.start()

    def fill(self, folder: Path) -> None:
        """Leave no room on a disk."""
        with suppress(OSError), (folder / "ballast").open("ab", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))

    def make_room(self) -> None:
        """Take away what fills a disk."""
        if self.plan.disk is not None:
            (self.repository / self.plan.disk / "ballast").unlink(missing_ok=True)

    def judge(self, start: SweepStart, status: int, done: list[Harm]) -> None:
        """Compare with what was known before this start."""
        self.check_kept()
        self.check_work(done)
        self.check_status(start, status, done)
        self.finished = status == 0

    def check_kept(self) -> None:
        """Check that finished jobs are as they were, and note which are finished now."""
        for path, before in self.kept.items():
            if not path.is_file() or state_of(path) != before:
                self.blame("kept", f"start {self.result.starts} has changed {path.relative_to(self.repository)}")
        for outcome in (self.repository / SWEEP).glob("*/step-*/outcome.json"):
            if json.loads(outcome.read_text(encoding="utf-8"))["status"] != "stopped":
                job = outcome.parent
                files = [path for path in job.rglob("*") if path.is_file() and path.name != "lock"]
                self.kept |= {path: state_of(path) for path in files if path not in self.kept}

    def check_work(self, done: list[Harm]) -> None:
        """Check where each job went on from; a worker that was killed leaves several stretches in one start's log."""
        now = seen(self.repository).lines
        for log, steps in now.items():
            for last, step in pairwise(steps):
                lost = last - step + 1
                self.result.lost = max(self.result.lost, lost)
                if lost > SAVE_STEPS:
                    self.blame("work", f"{log.relative_to(self.repository)}: {lost} updates were trained again")
            if steps and steps[0] <= (rung := rung_before(log)):
                self.blame("work", f"{log.relative_to(self.repository)} begins with {steps[0]}, behind rung {rung}")
            before = len(self.lines.get(log, []))
            if self.asked and before and len(steps) > before and steps[before] <= steps[before - 1]:
                self.blame("work", f"{log.relative_to(self.repository)}: asked to stop at {steps[before - 1]}, "
                                   f"went on with {steps[before]}")  # fmt: skip
        self.lines = now
        blows = [harm.trouble for harm in done]
        self.asked = bool(blows) and not self.early and all(isinstance(b, Blow) and not b.kills for b in blows)

    def check_status(self, start: SweepStart, status: int, done: list[Harm]) -> None:
        """Check how a start ended by what was done to it."""
        text, number = start.text(), self.result.starts
        importing = self.early and text.rstrip().endswith("KeyboardInterrupt")  # Python's own words until it is ours
        if "Traceback (most recent call last)" in text and not importing:
            self.blame("status", f"start {number} shows a traceback")
        hit = [harm for harm in done if self.ends(harm)]
        if status and not hit:
            self.blame("status", f"start {number} ended with {status} though nothing was done that ends it")
        for harm in hit:
            if isinstance(harm.trouble, FullDisk) and status and (status not in (1, 75) or TROUBLED not in text):
                self.blame("status", f"start {number} ended with {status}, and not for the full disk")
            if isinstance(harm.trouble, Blow) and not harm.trouble.kills and not self.early and status not in (0, 75):
                self.blame("status", f"start {number} was asked to stop and ended with {status}")

    def compare(self) -> None:
        """Check what the sweep gave in the end."""
        if (ranked := ranking(self.repository)) != self.usual.ranking:
            differing = [pair for pair in zip(self.usual.ranking, ranked, strict=True) if pair[0] != pair[1]]
            self.blame("ranking", f"undisturbed and now: {differing}")
        if winner(self.repository) != self.usual.winner:
            self.blame("ranking", f"the winner's file is {winner(self.repository)}")
        self.mlflow.give_back()
        run(self.repository, self.environment, "pipeline", "deliver", f"tracking.uri={self.mlflow.uri}")
        for fault in faults(self.usual.recorded, recorded(self.mlflow.uri)):
            self.blame("mlflow", fault)

    def ends(self, harm: Harm) -> bool:
        """Return whether harm ends the start that has it; a worker that is killed is only tried again."""
        trouble = harm.trouble
        if isinstance(trouble, Blow):
            return self.plan.launcher == "basic" or trouble.target != "worker" or not trouble.kills
        return isinstance(trouble, FullDisk)


def rung_before(log: Path) -> int:
    """Return where the rung before a job's stopped; 0 for the first one."""
    stops = sorted(step_of(path) for path in log.parent.parent.glob("step-*"))
    return [0, *stops][stops.index(step_of(log.parent))]


def state_of(path: Path) -> tuple[int, str]:
    """Return what changes when a file is written again."""
    about = path.stat()
    return about.st_mtime_ns, str(about.st_size)
