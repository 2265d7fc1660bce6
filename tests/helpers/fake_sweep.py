"""Folders of sweeps, written as their sweepers and jobs write them, with losses of an arithmetic's making."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from pipeline.core.trials import LOG, OUTCOME, PROGRESS, TASK, Outcome, Point, Task
from pipeline.sweeps.record import Folder, SweepRecord, Trial
from pipeline.sweeps.rungs import promoted
from pipeline.sweeps.settings import SweepSettings, read_settings
from pipeline.sweeps.space import combinations, dimensions

Loss = Callable[[Mapping[str, str], int], float]  # of a trial's values, at a step
DEFAULTS = yaml.safe_load(Path("conf/hydra/sweeper/grid.yaml").read_text(encoding="utf-8"))


class FakeSweep:
    """A sweep's folder that is filled job by job, or to its end."""

    def __init__(
        self,
        path: Path,
        space: Mapping[str, Sequence[str]],
        rungs: Sequence[Sequence[int]] = ((2, 4, 8),),
        loss: Loss = lambda values, step: 1.0,
        trials: Sequence[Trial] | None = None,
        **settings: object,
    ) -> None:
        """Plan it: each combination of the space a trial of the first bracket, unless there are `trials`."""
        given = {key: value for key, value in DEFAULTS.items() if key not in ("_target_", "params")}
        steps = {"min_steps": rungs[0][0], "max_steps": rungs[0][-1]} if rungs[0] else {}
        settings = {**given, "name": path.name, **steps, **settings}
        self.folder, self.loss, self.settings = Folder(path), loss, read_settings(settings)
        texts = {key: ",".join(values) for key, values in space.items()}
        asked = OverridesParser.create().parse_overrides([f"{key}={text}" for key, text in texts.items()])
        made = combinations(dimensions(asked)) if trials is None else []
        self.record = SweepRecord(
            schema_version=1,
            name=path.name,
            stage="train",
            arguments=("hydra/sweeper=halving", *(f"{key}={text}" for key, text in texts.items())),
            settings=settings,
            fixed=("model=starter-s",),
            space=texts,
            base={"train.max_steps": 8, "model.path": "starter"},
            data=None,
            rungs=tuple(map(tuple, rungs)),
            trials=tuple(trials or [Trial(number=n, bracket=0, values=dict(values)) for n, values in enumerate(made)]),
        )
        self.record.write(self.folder.record_path)

    def tell(self, number: int, step: int | None) -> Path:
        """Have a job told what to do; return its folder."""
        folder = self.folder.job(number, step).path
        Task(
            trial=number, sweep=str(self.folder.path), stop_step=step, mlflow_parent=None, worst=None, limit=None
        ).write(folder / TASK)
        return folder

    def advance(self, number: int, end: int | None, begin: int = 0, to: int | None = None) -> Path:
        """Have a job at its work, up to a step."""
        folder = self.tell(number, end)
        last = (end or 8) if to is None else to
        values = self.record.trials[number].values
        (folder / LOG).write_text("training\n", encoding="utf-8")
        points = [self.point(values, step, end or 8) for step in range(begin + 1, last + 1)]
        lines = [json.dumps(point.tree()) + "\n" for point in points]
        (folder / PROGRESS).write_text("".join(lines), encoding="utf-8")
        return folder

    def point(self, values: Mapping[str, str], step: int, end: int) -> Point:
        """Return what is measured at a step: of validation, every second."""
        validation = {} if step % 2 else {"validation_loss": self.loss(values, step)}
        return Point(step=step, of=end, train_loss=self.loss(values, step) + 0.1, **validation)

    def finish(self, number: int, step: int | None, begin: int = 0, status: str = "finished", reason: str = "") -> None:
        """Have a job done."""
        folder = self.advance(number, step, begin)
        loss = self.loss(self.record.trials[number].values, step or 8)
        figures = {"steps": step or 8, "validation_loss": loss, "train_loss": loss + 0.1, "tokens_per_second": 100.0}
        about = {"reason": reason} if reason else figures
        Outcome(status=status, **about, seconds=float(step or 8)).write(folder / OUTCOME)  # type: ignore[arg-type]

    def play(self, bracket: int = 0, rungs: int | None = None) -> None:
        """Have a bracket go through so many of its rungs, or all."""
        going = [t.number for t in self.record.trials if (t.bracket, t.same_as, t.refused) == (bracket, None, None)]
        begin = 0
        for step in (self.record.rungs[bracket] or (None,))[:rungs]:
            for number in going:
                self.finish(number, step, begin)
            scores = {number: self.loss(self.record.trials[number].values, step or 8) for number in going}
            going, begin = promoted(scores, len(going), self.settings.eta), step or 0

    @property
    def parts(self) -> tuple[Folder, SweepRecord, SweepSettings]:
        """What most functions are given."""
        return self.folder, self.record, self.settings
