"""One round: a training in a repository of its own is harmed, started again until it ends, and compared.

Every check follows from what was seen before the harm, never from how long something took: a slow machine makes a
round longer, not wrong.
"""

import json
import re
import shutil
import time
from contextlib import ExitStack

import yaml
from chaos_bench import ADAPTER, CURVE, Bench
from chaos_disk import give_room, small_disk
from chaos_plan import Damage, Harm, Plan
from chaos_process import Start, run, step_of
from chaos_rounds import Round

CHECKS = {
    "adapter": "the adapter is the undisturbed training's, to the bit",
    "loss.csv": "so is the curve",
    "orphans": "nothing outlives DVC, and no more than the running update is trained",
    "status": "DVC counts the stage as finished if and only if it is",
    "work": "no more than save_steps updates are lost, and none where the trainer was asked to stop",
    "message": "a trainer that was asked to stop says at which step it goes on",
}
AFTER_DVC = 2  # updates: the one that runs when DVC ends, and one more if that just passed the end of its own


class TrainRound(Round):
    """One round in progress."""

    def __init__(self, name: str, plan: Plan, bench: Bench) -> None:
        """It works in a folder of its own on the bench."""
        super().__init__(name, plan, bench.folder, needs_mount=plan.disk is not None)
        self.plan = plan
        self.bench = bench
        self.repository = self.folder / "repository"
        self.checkpoints = self.repository / ".checkpoints" if plan.disk is None else self.folder / "small"
        self.environment = bench.environment(self.folder)
        self.reached = 0  # the last update that was seen, and
        self.least = 0  # the least that the next start may go on from
        self.damaged: set[int] = set()  # steps of checkpoints that no start has looked at since
        self.finished = False

    def set_up(self, stack: ExitStack) -> None:
        """The repository with this round's settings; where the disk is small, it is filled and then given room."""
        shutil.copytree(self.bench.template, self.repository, symlinks=True)
        settings = [*self.bench.settings, f"train.save_total_limit={self.plan.checkpoints_kept}"]
        if self.plan.disk is not None:
            size = int(self.plan.disk * self.bench.usual.checkpoint_bytes)
            stack.enter_context(small_disk(self.checkpoints, size))
            settings.append(f"runtime.checkpoint_root={self.checkpoints}")
        run(self.repository, self.environment, "pipeline", "adopt", *settings)
        if self.plan.disk is not None:
            self.fill_disk()
            give_room(self.checkpoints)

    def harm_until_done(self) -> None:
        """A start for each harm, and one that nothing is done to."""
        for harm in self.plan.harms:
            if not self.finished:
                self.start(harm)
        if not self.finished:
            self.start()

    def start(self, harm: Harm | None = None) -> None:
        """Starts the stage, harms it if told to, waits for its end and judges what it did."""
        with self.started() as start:
            before: list[int] = []  # the updates that were seen when the blow came
            struck = False
            if harm and start.wait_for(harm.moment, self.bench.steps if harm.moment == "finish" else harm.step):
                time.sleep(harm.delay * self.bench.usual.seconds[harm.moment])
                before = start.steps()
                struck = start.strike(harm.blow.target, harm.blow.signals, harm.delay / 10)
            status = self.ended(start)
        asked_to_stop = struck and harm is not None and not harm.blow.kills and bool(before)
        if asked_to_stop and self.reached < self.bench.steps:
            self.check_message(start.text(), before[-1])
            self.least = max(self.least, before[-1])
        if status and not struck:
            self.blame("status", f"start {self.result.starts} ended with {status} though nothing was done to it")
        if harm and not struck:
            self.result.notes.append("finished first")
        if harm and harm.damage and not self.finished:
            self.damage(harm.damage)

    def fill_disk(self) -> None:
        """Starts the stage where there is no room for its checkpoints."""
        with self.started() as start:
            self.ended(start)
        if self.finished:
            self.result.notes.append("there was room enough")
        elif not re.search(r"^train: cannot save .*: No space left on device; ", start.text(), re.MULTILINE):
            self.blame("message", "the full file system is not what the stage ends with")
        newest = start.newest_checkpoint()
        if newest is not None and not newest[1]:
            self.blame("work", f"checkpoint-{newest[0]} is left, though it did not fit")

    def started(self) -> Start:
        """The stage, on its way."""
        return Start(self.repository, self.checkpoints, self.next_log(), self.environment)

    def ended(self, start: Start) -> int:
        """Waits for the end of DVC and of all that it started, and judges it by what was known before; DVC's status."""
        status = start.end()
        lines = len(start.steps())
        if left := start.orphans():
            self.blame("orphans", f"processes {left} live on after DVC")
        if (more := len(start.steps()) - lines) > AFTER_DVC:
            self.blame("orphans", f"{more} updates were trained after DVC was gone")
        self.check_work(start)
        self.finished = status == 0
        if (self.finished or self.counts_as_finished()) and not self.same_adapter():
            self.blame("status", f"DVC ended with {status} and takes the stage for finished, but the adapter is not")
        return status

    def check_work(self, start: Start) -> None:
        """Where this start went on from, and where the next one has to."""
        resumed = start.went_on_from()
        if resumed is not None:
            self.result.lost = max(self.result.lost, self.reached - resumed)
            if resumed < self.least:
                self.blame("work", f"start {self.result.starts} went on from {resumed} instead of {self.least}")
            if resumed in self.damaged:
                self.blame("work", f"start {self.result.starts} went on from {resumed}, which is damaged")
            self.reached = max([resumed, *start.steps()])
            self.damaged.clear()
        newest = max(self.complete(), default=0)
        self.least = max(self.least, self.reached - self.bench.save_steps, newest)

    def check_message(self, text: str, before: int) -> None:
        """The line of a trainer that was asked to stop while it trained."""
        found = re.search(r"^train: [\w ]+: resumable at step (\d+)", text, re.MULTILINE)
        if found is None:
            self.blame("message", f"start {self.result.starts} does not say that it is resumable")
        elif int(found[1]) < before:
            self.blame("message", f"start {self.result.starts} says step {found[1]}, but {before} was done")

    def damage(self, damage: Damage) -> None:
        """Cuts, alters or removes a file of the newest complete checkpoint; only the one before it counts then."""
        steps = self.complete()
        if not steps:
            self.result.notes.append("no checkpoint to damage")
            return
        (checkpoint,) = self.checkpoints.glob(f"*/checkpoint-{steps[-1]}")
        listed = json.loads((checkpoint / "complete.json").read_text(encoding="utf-8"))["files"]
        path = checkpoint / share_of([*sorted(listed), "complete.json"], damage.file)
        content = path.read_bytes()
        place = int(damage.place * (len(content) - 1))
        if damage.kind == "flip" and path.name == "complete.json":
            place = 0  # most of its letters tell nothing that a start needs
        if damage.kind == "delete":
            path.unlink()
        elif damage.kind == "truncate":
            path.write_bytes(content[:place])
        elif content:
            path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        self.result.notes.append(f"{damage.kind} {checkpoint.name}/{path.name}")
        self.damaged.add(steps[-1])
        self.least = self.reached = max(self.complete(), default=0)

    def complete(self) -> list[int]:
        """The steps of all checkpoints that are complete and not damaged."""
        marks = self.checkpoints.glob("*/checkpoint-*/complete.json")
        return sorted({step_of(path.parent) for path in marks} - self.damaged)

    def counts_as_finished(self) -> bool:
        """Whether DVC has recorded the stage, or sees nothing to do for it."""
        said = run(self.repository, self.environment, "dvc", "status", "--json", "train")
        lock = yaml.safe_load((self.repository / "dvc.lock").read_text(encoding="utf-8"))
        return "train" in lock["stages"] or json.loads(said.splitlines()[-1]) == {}

    def same_adapter(self) -> bool:
        """Whether the adapter is there and the undisturbed training's."""
        path = self.repository / ADAPTER
        return path.is_file() and path.read_bytes() == self.bench.usual.adapter

    def compare(self) -> None:
        """What the training gave in the end."""
        if not self.same_adapter():
            self.blame("adapter", "it differs from the undisturbed training's")
        curve = self.repository / CURVE
        if not curve.is_file() or curve.read_text(encoding="utf-8") != self.bench.usual.curve:
            self.blame("loss.csv", "it differs from the undisturbed training's")
        if not self.counts_as_finished():
            self.blame("status", "DVC does not take the stage for finished")


def share_of(values: list[str], share: float) -> str:
    """The value that lies at this share of the list."""
    return values[int(share * len(values))]
