"""Sweeps over jobs of arithmetic: what is planned, launched, promoted, tried again and refused, in which order."""

import errno
import functools
import json
import os
import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from common.errors import Interrupted, MachineError, UserError
from pipeline.core.composition import CONF, compose
from pipeline.core.trials import LOG, OUTCOME, TASK, Outcome, Task
from pipeline.sweeps.leash import LOCK, Leash
from pipeline.sweeps.main import alone_in
from pipeline.sweeps.plan import Request, begin, extended
from pipeline.sweeps.record import Folder
from pipeline.sweeps.run import Sweep, quoted, stopped_by_sigterm
from pipeline.sweeps.settings import read_settings
from pipeline.sweeps.standings import standings
from pipeline.tracking.run import Run

REPO = Path(__file__).parents[3]
PRESETS = {
    name: yaml.safe_load((REPO / CONF / f"hydra/sweeper/{name}.yaml").read_text()) for name in ("grid", "halving")
}
RATES = "train.lr=1e-5,2e-5,3e-5,4e-5,5e-5,6e-5,7e-5,8e-5"

Job = dict[str, str]  # overrides by key
Act = Callable[[Job, Path], None]


def request(*overrides: str, stage: str = "train", **settings: object) -> Request:
    given: dict[str, Any] = {**PRESETS["grid"], "name": "tried", **settings}
    keys = {key: value for key, value in given.items() if key not in ("_target_", "params")}
    return Request(
        name="tried",
        stage=stage,
        arguments=tuple(overrides),
        overrides=OverridesParser.create().parse_overrides(list(overrides)),
        settings=read_settings(keys),
        compose=lambda overrides: composed(tuple(overrides)),
    )


@functools.cache
def composed(overrides: tuple[str, ...]) -> DictConfig:
    return compose(REPO / CONF, list(overrides))


def halving(*overrides: str, **settings: object) -> Request:
    return request(*overrides, **{"min_steps": 2, "max_steps": 8, **settings})


def job_of(overrides: Sequence[str]) -> Job:
    return dict(override.split("=", 1) for override in overrides)


def finish(job: Job, folder: Path) -> None:
    """Be the better, the lower the rate."""
    loss = float(job["train.lr"]) * 1e5
    (folder / LOG).write_text("trained")
    Outcome(status="finished", steps=int(job.get("train.stop_step", 8)), validation_loss=loss).write(folder / OUTCOME)


class Launcher:
    """Acts as the jobs, and remembers them: each launch as pairs of trial and stop step."""

    def __init__(self, path: Path, act: Act = finish, starts: bool = True) -> None:
        self.path, self.act, self.starts, self.launched = path, act, starts, list[list[str]]()

    def __call__(self, jobs: Sequence[Sequence[str]], again: bool) -> None:
        self.launched.append([job_of(overrides)["hydra.sweep.subdir"] for overrides in jobs])
        for overrides in jobs:
            job = job_of(overrides)
            folder = self.path / job["hydra.sweep.subdir"]
            if self.starts:
                (folder / LOCK).touch()
            self.act(job, folder)


def run(asked: Request, path: Path, act: Act = finish, starts: bool = True) -> Launcher:
    launcher, folder = Launcher(path, act, starts), Folder(path)
    with alone_in(folder) as lock, Leash(lock) as leash:
        Sweep(folder, begin(asked, folder), asked, launcher, Run(), leash).run()
    return launcher


def ranking(asked: Request, path: Path) -> list[tuple[int, str]]:
    folder = Folder(path)
    return [(each.trial.number, each.state) for each in standings(folder, folder.read(), asked.settings)]


def test_the_best_half_goes_on_from_rung_to_rung(tmp_path: Path) -> None:
    launcher = run(halving(RATES), tmp_path)
    assert launcher.launched == [
        [f"{trial}/step-2" for trial in range(8)],
        [f"{trial}/step-4" for trial in range(4)],
        [f"{trial}/step-8" for trial in range(2)],
    ]
    assert ranking(halving(RATES), tmp_path)[0] == (0, "finished")


def test_only_the_stop_step_moves_and_checkpoints_are_the_sweeps_own(tmp_path: Path) -> None:
    jobs: list[Job] = []

    def act(job: Job, folder: Path) -> None:
        jobs.append(job)
        finish(job, folder)

    run(halving("train.lr=1e-5,2e-5", "model=starter-s"), tmp_path, act)
    first, last = jobs[0], jobs[-1]
    assert {key for key in first if first[key] != last[key]} == {"hydra.sweep.subdir", "train.stop_step"}
    assert {job["train.max_steps"] for job in jobs} == {"8"}
    assert {job["runtime.checkpoint_root"] for job in jobs} == {"'.checkpoints/sweeps/tried'"}
    assert first["model"] == "starter-s"


def test_a_grid_has_one_job_a_trial_and_no_stop(tmp_path: Path) -> None:
    jobs: list[Job] = []

    def act(job: Job, folder: Path) -> None:
        jobs.append(job)
        finish(job, folder)

    assert run(request("train.lr=2e-5,1e-5"), tmp_path, act).launched == [["0", "1"]]
    assert not any("train.stop_step" in job or "train.max_steps" in job for job in jobs)
    assert ranking(request("train.lr=2e-5,1e-5"), tmp_path) == [(1, "finished"), (0, "finished")]


def test_a_job_knows_what_it_is_and_what_is_hopeless(tmp_path: Path) -> None:
    run(halving(RATES), tmp_path)
    first, second = (Task.read(tmp_path / place / TASK) for place in ("0/step-2", "0/step-4"))
    assert (first.trial, first.stop_step, first.worst, first.limit) == (0, 2, 1.5, None)
    assert second.limit is not None
    assert (second.limit.step, second.limit.loss) == (3, pytest.approx(4.0))  # of the worst that went on


def test_a_loss_is_hopeless_only_where_trials_are_ranked_by_it(tmp_path: Path) -> None:
    def act(job: Job, folder: Path) -> None:
        finish(job, folder)
        made = Outcome.read(folder / OUTCOME)
        made.model_copy(update={"validation_accuracy": made.validation_loss and 1 / made.validation_loss}).write(
            folder / OUTCOME
        )

    run(halving(RATES, objective=["-validation_accuracy"]), tmp_path, act)
    assert Task.read(tmp_path / "0/step-4" / TASK).limit is None


@pytest.mark.parametrize(
    ("overrides", "objective", "said"),
    [
        (
            ["train.preference.beta=0.1,0.5", "train=dpo"],
            "validation_loss",
            "differ in train.preference.beta are",
        ),
        (["train=dpo,orpo"], "validation_loss", "differ in train are"),
        (["train.preference.beta=0.1,0.5", "train=dpo"], "-validation_accuracy", None),
        (["train.preference.replay=0.1,0.5", "train=dpo"], "validation_loss", None),
    ],
)
def test_losses_of_unlike_scale_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, overrides: list[str], objective: str, said: str | None
) -> None:
    with alone_in(Folder(tmp_path)):
        begin(request("data=preferences", *overrides, objective=[objective]), Folder(tmp_path))
    told = [record.getMessage() for record in caplog.records if "unlike scale" in record.getMessage()]
    assert len(told) == (said is not None)
    assert not said or said in told[0]


def test_what_has_an_outcome_is_not_launched_again(tmp_path: Path) -> None:
    asked = halving(RATES)

    def end(job: Job, folder: Path) -> None:
        if job["hydra.sweep.subdir"] == "2/step-4":
            raise KeyboardInterrupt
        finish(job, folder)

    with pytest.raises(KeyboardInterrupt):
        run(asked, tmp_path, end)
    assert run(asked, tmp_path).launched == [["2/step-4", "3/step-4"], ["0/step-8", "1/step-8"]]
    assert run(asked, tmp_path).launched == []


def test_a_trial_that_fails_is_last_and_ends_nothing(tmp_path: Path) -> None:
    def fail(job: Job, folder: Path) -> None:
        if job["train.lr"] == "1e-05":
            Outcome(status="failed", reason="the GPU's memory is full").write(folder / OUTCOME)
        else:
            finish(job, folder)

    launcher = run(halving(RATES), tmp_path, fail)
    assert launcher.launched[1] == [f"{trial}/step-4" for trial in (1, 2, 3, 4)]
    assert ranking(halving(RATES), tmp_path)[-1] == (0, "failed")


def test_a_value_that_cannot_be_is_refused_before_anything_runs(tmp_path: Path) -> None:
    asked = halving("train.lr=1e-5,2e-5,7", "train.scheduler=linear,cosin")
    launcher = run(asked, tmp_path)
    assert launcher.launched[0] == ["0/step-2", "2/step-2"]
    refused = {trial.number: trial.refused for trial in Folder(tmp_path).read().trials if trial.refused}
    assert set(refused) == {1, 3, 4, 5}
    assert str(refused[1]).startswith("train.scheduler is 'cosin'; it may be linear, ")


@pytest.mark.parametrize("override", ["train.lr=7,8", "train.lrr=1,2", "model=nope,neither"])
def test_where_every_trial_is_refused_the_sweep_is(tmp_path: Path, override: str) -> None:
    with pytest.raises(UserError, match=r"train\.lr is 7|train\.lrr is not a key|Could not find 'model/nope'"):
        begin(halving(override), Folder(tmp_path / "sweep"))
    assert not (tmp_path / "sweep").exists()


def test_a_job_that_ends_without_a_word_is_tried_again_and_then_has_failed(tmp_path: Path) -> None:
    def die(job: Job, folder: Path) -> None:
        with (folder / LOG).open("a") as log:
            log.write("begun\n")
        if job["train.lr"] != "1e-05":
            finish(job, folder)

    launcher = run(halving("train.lr=1e-5,2e-5,3e-5,4e-5"), tmp_path, die)
    assert launcher.launched[1:3] == [["0/step-2"], ["0/step-2"]]
    outcome = Folder(tmp_path).job(0, 2).outcome()
    assert outcome is not None
    assert re.match(
        r"its process has ended 3 times without a word, .*; see .*/0/step-2/log\.txt$", outcome.reason or ""
    )
    assert launcher.launched[3] == ["1/step-4", "2/step-4"]


def test_the_launchers_error_does_not_lose_what_its_jobs_have_done(tmp_path: Path) -> None:
    def act(job: Job, folder: Path) -> None:
        if job["train.lr"] == "3e-05" and not (folder / LOG).exists():
            (folder / LOG).write_text("begun")
            raise RuntimeError("a worker was killed")
        finish(job, folder)

    launcher = run(halving("train.lr=1e-5,2e-5,3e-5,4e-5"), tmp_path, act)
    assert launcher.launched[:3] == [[f"{trial}/step-2" for trial in range(4)], ["3/step-2"], ["2/step-2"]]


def test_a_job_that_was_preempted_is_launched_again_as_often_as_it_takes(tmp_path: Path) -> None:
    stops = iter(range(5))

    def preempt(job: Job, folder: Path) -> None:
        if job["train.lr"] == "2e-05" and next(stops, None) is not None:
            stopped = Outcome(status="stopped", reason="SIGTERM: resumable at step 1", preempted=True)
            stopped.write(folder / OUTCOME)
        else:
            finish(job, folder)

    launcher = run(halving("train.lr=1e-5,2e-5"), tmp_path, preempt)
    assert launcher.launched[1:6] == [["1/step-2"]] * 5
    assert ranking(halving("train.lr=1e-5,2e-5"), tmp_path)[1][0] == 1


def test_a_launcher_that_starts_nothing_ends_the_sweep_with_its_reason(tmp_path: Path) -> None:
    def refuse(job: Job, folder: Path) -> None:
        raise RuntimeError("sbatch: command not found")

    with pytest.raises(RuntimeError, match="sbatch"):
        run(halving(RATES), tmp_path, refuse, starts=False)


def test_a_launcher_that_cannot_write_ends_the_sweep_in_one_line(tmp_path: Path) -> None:
    def refuse(job: Job, folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(
        MachineError, match=r"^cannot write below .*: No space left on device; make room or grant access$"
    ):
        run(halving(RATES), tmp_path, refuse)


def test_a_job_that_was_stopped_ends_the_sweep_and_is_launched_again(tmp_path: Path) -> None:
    def stop(job: Job, folder: Path) -> None:
        (folder / LOG).write_text("begun")
        Outcome(status="stopped", reason="cannot write: No space left on device").write(folder / OUTCOME)

    with pytest.raises(
        Interrupted, match=r"^trial 0: cannot write: No space left on device; the same command goes on$"
    ):
        run(halving(RATES), tmp_path, stop)
    assert run(halving(RATES), tmp_path).launched[0] == [f"{trial}/step-2" for trial in range(8)]


def test_trials_whose_training_is_the_same_are_trained_once(tmp_path: Path) -> None:
    asked = halving("train.batch_size=1,2,4", "train.gradient_accumulation_steps=2,4", "train.lr=1e-5")
    launcher = run(asked, tmp_path)
    assert launcher.launched[0] == [f"{trial}/step-2" for trial in (0, 1, 3, 5)]  # updates of 2, 4, 8 and 16
    assert {trial.number: trial.same_as for trial in Folder(tmp_path).read().trials if trial.same_as is not None} == {
        2: 1,
        4: 3,
    }


def test_where_speed_counts_each_trial_is_its_own(tmp_path: Path) -> None:
    space = ("train.batch_size=1,2", "train.gradient_accumulation_steps=1,2", "train.lr=1e-5")
    roots: set[str] = set()

    def act(job: Job, folder: Path) -> None:
        roots.add(job["runtime.checkpoint_root"])
        Outcome(status="finished", tokens_per_second=5.0, validation_loss=1.0).write(folder / OUTCOME)

    asked = halving(*space, objective=["validation_loss", "-1e-3*tokens_per_second"])
    assert len(run(asked, tmp_path, act).launched[0]) == 4
    assert roots == {f"'.checkpoints/sweeps/tried/{trial}'" for trial in range(4)}


def test_a_weight_says_which_way_is_better(tmp_path: Path) -> None:
    asked = halving("train.lr=1e-5,2e-5,3e-5", objective=["-2*validation_loss"])
    run(asked, tmp_path)
    assert ranking(asked, tmp_path)[0] == (2, "finished")


def test_another_sweep_in_the_folder_is_refused_by_its_keys(tmp_path: Path) -> None:
    run(halving(RATES), tmp_path)
    for asked, keys in (
        (halving("train.lr=1e-5,2e-5"), "space of train.lr: 1e-5,2e-5,"),
        (halving(RATES, "train.seed=7"), "train.seed: 42 -> 7"),
        (halving(RATES, eta=4), "hydra.sweeper.eta: 2 -> 4"),
        (request(RATES, stage="export"), "stage: train -> export"),
    ):
        with pytest.raises(UserError) as raised:
            begin(asked, Folder(tmp_path))
        assert f"{tmp_path} has another sweep; differing: " in str(raised.value)
        assert keys in str(raised.value)
    begin(halving(RATES, "tracking=none", attempts=9), Folder(tmp_path))  # how it runs may differ


def test_a_sweep_goes_on_when_its_winner_was_adopted(tmp_path: Path) -> None:
    asked = halving(RATES)
    run(asked, tmp_path)
    changed = ("train.lr=1e-5", "train.max_steps=8")
    adopted = replace(asked, compose=lambda overrides: composed((*changed, *overrides)), composed={})
    assert begin(adopted, Folder(tmp_path)).trials == Folder(tmp_path).read().trials


@pytest.mark.parametrize(
    ("overrides", "settings", "said"),
    [
        ([RATES, "train.stop_step=4"], {}, "train.stop_step=4 and rungs both end trainings"),
        (["train.max_steps=4,8"], {}, "train.max_steps=4,8 and rungs both end trainings"),
        ([RATES, "+train.patience=2"], {}, "train.patience=2 and rungs both end trainings"),
        ([RATES], {"brackets": 4}, "brackets is 4, and there are 3 rungs (2, 4, 8)"),
        ([RATES], {"brackets": 3, "trials": 2, "sampler": "random"}, "2 trials are too few for 3 brackets"),
        ([RATES], {"sampler": "random"}, "sampler is random and hydra.sweeper.trials null"),
        ([RATES], {"min_steps": 9}, "min_steps is 9; it may be at most max_steps, which is 8"),
        ([RATES], {"max_steps": None}, "max_steps is null, and there are no rungs without it"),
        ([RATES], {"objective": ["2*loss"]}, "objective names loss; it may name validation_loss, "),
        ([RATES], {"objective": ["0*train_loss"]}, "objective has '0*train_loss'; a weight is a number above 0"),
        ([RATES, "experiment=tried-best"], {}, "experiment=tried-best is what this sweep would write; give it another"),
        (["experiment=r5,tried-best"], {}, "experiment=tried-best is what this sweep would write; give it another"),
        ([RATES], {"eta": 1}, "hydra.sweeper.eta is 1; it may be at least 2"),
        ([RATES], {"etta": 2}, "hydra.sweeper.etta is not a key of the configuration; hydra.sweeper has name, "),
        ([RATES], {"name": "a/b"}, "hydra.sweeper.name is 'a/b'; it is a folder's name"),
        ([RATES], {"name": "my sweep"}, "hydra.sweeper.name is 'my sweep'; it is a folder's name and an experiment's"),
    ],
)
def test_what_contradicts_itself_is_refused(
    tmp_path: Path, overrides: list[str], settings: dict[str, object], said: str
) -> None:
    with pytest.raises(UserError) as raised:
        begin(halving(*overrides, **settings), Folder(tmp_path / "sweep"))
    assert said in str(raised.value)
    assert not (tmp_path / "sweep").exists()


def test_a_sweep_that_is_refused_leaves_no_folder_and_takes_none(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there/results.csv").write_text("1")
    for name in ("new", "there"):
        with pytest.raises(UserError, match="is not a key"):
            run(request("train.lrr=1,2"), tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there"]
    assert (tmp_path / "there/results.csv").read_text() == "1"


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*/file/sweep: Not a directory; give access there, or name"):
        run(request("train.lr=1,2"), tmp_path / "file/sweep")


def test_a_plain_value_fixes_what_a_preset_sweeps_over(tmp_path: Path) -> None:
    asked = halving("train.lr=1e-5,2e-5", "train.scheduler=linear,cosine", "train.scheduler=constant")
    record = begin(asked, Folder(tmp_path))
    assert [trial.values for trial in record.trials] == [{"train.lr": "1e-05"}, {"train.lr": "2e-05"}]
    assert record.space == {"train.lr": "1e-5,2e-5"}
    assert record.fixed == ("train.scheduler=constant",)


def test_rungs_are_trainings_alone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="stops trainings at rungs, and export is none"):
        begin(halving(RATES, stage="export"), Folder(tmp_path))


def test_hyperbands_brackets_begin_together_each_a_rung_later(tmp_path: Path) -> None:
    launcher = run(halving(RATES, brackets=2), tmp_path)
    record = Folder(tmp_path).read()
    late = [trial.number for trial in record.trials if trial.bracket == 1]
    assert record.rungs == ((2, 4, 8), (4, 8))
    assert late
    assert set(launcher.launched[0]) == {f"{n}/step-{4 if n in late else 2}" for n in range(8)}


def test_a_sampler_learns_from_a_bracket_for_the_next(tmp_path: Path) -> None:
    space = "train.lr=tag(log,interval(1e-6,1e-3))"
    asked = halving(space, sampler="tpe", trials=24, brackets=2)
    run(asked, tmp_path)
    record = Folder(tmp_path).read()
    rates = {b: [float(t.values["train.lr"]) for t in record.trials if t.bracket == b] for b in (0, 1)}
    assert len(rates[0]) + len(rates[1]) == 24
    median = {b: sorted(each)[len(each) // 2] for b, each in rates.items()}
    assert median[1] < median[0]  # where the loss of these jobs is lower

    again = run(asked, tmp_path)
    assert again.launched == []
    assert Folder(tmp_path).read() == record


def test_a_sampler_proposes_the_same_after_a_kill(tmp_path: Path) -> None:
    asked = halving("train.lr=tag(log,interval(1e-6,1e-3))", sampler="tpe", trials=12, brackets=2)
    run(asked, tmp_path / "whole")

    done: list[Path] = []

    def end(job: Job, folder: Path) -> None:
        if len(done) == 14:  # within the second bracket
            raise KeyboardInterrupt
        done.append(folder)
        finish(job, folder)

    with pytest.raises(KeyboardInterrupt):
        run(asked, tmp_path / "killed", end)
    assert 0 < len(Folder(tmp_path / "killed").read().trials) <= 12
    run(asked, tmp_path / "killed")
    assert Folder(tmp_path / "killed").read().trials == Folder(tmp_path / "whole").read().trials


def test_a_sweep_is_extended_by_a_rung_that_its_best_reach_from_their_beginning(tmp_path: Path) -> None:
    run(halving(RATES), tmp_path)
    folder = Folder(tmp_path)
    extended(folder.read(), rungs_more=1, trials_more=0).write(folder.record_path)
    jobs: list[Job] = []

    def act(job: Job, folder: Path) -> None:
        jobs.append(job)
        finish(job, folder)

    assert run(halving(RATES), tmp_path, act).launched == [["0/step-16"]]
    assert (jobs[0]["train.stop_step"], jobs[0]["train.max_steps"]) == ("16", "16")


def test_a_sweep_is_extended_by_trials_and_trains_none_again(tmp_path: Path) -> None:
    asked = halving("train.lr=interval(1e-6,1e-4)", sampler="random", trials=4)
    run(asked, tmp_path)
    folder = Folder(tmp_path)
    before = folder.read()
    extended(before, rungs_more=0, trials_more=4).write(folder.record_path)
    launcher = run(asked, tmp_path)
    assert launcher.launched[0] == [f"{trial}/step-2" for trial in range(4, 8)]
    assert folder.read().trials[:4] == before.trials
    with pytest.raises(UserError, match="draws no sample that could be larger"):
        extended(before.model_copy(update={"settings": {**before.settings, "trials": None}}), 0, 1)


def test_more_trials_than_the_space_has_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    run(halving("train.lr=1e-6,2e-6,3e-6", sampler="random", trials=4), tmp_path)
    assert len(Folder(tmp_path).read().trials) == 3
    assert "tried: of 4 trials that are asked for the space has 3" in caplog.text


def test_an_experiment_that_is_not_the_sweeps_is_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = halving("train.lr=1e-6,2e-6")
    monkeypatch.chdir(tmp_path)
    run(asked, tmp_path / "first")
    winner = tmp_path / "conf/experiment/tried-best.yaml"
    winner.parent.mkdir(parents=True)
    winner.write_text("# mine\n")
    with pytest.raises(UserError, match=r"^conf/experiment/tried-best\.yaml, which this sweep would write, is none of"):
        run(asked, tmp_path / "second")
    assert winner.read_text() == "# mine\n"


def test_a_text_is_quoted_so_that_hydra_takes_it_as_it_is() -> None:
    for text in ("/a b/c", "it's", "a\\b", "${x}", "a=b,c"):
        (override,) = OverridesParser.create().parse_overrides([f"key={quoted(text)}"])
        assert override.value() == text


def test_sigterm_ends_a_sweep_as_an_interruption() -> None:
    with pytest.raises(Interrupted, match=r"^SIGTERM: the same command goes on$"), stopped_by_sigterm():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_the_record_is_readable_json_with_the_command(tmp_path: Path) -> None:
    run(halving(RATES), tmp_path)
    written = json.loads((tmp_path / "sweep.json").read_text())
    assert written["arguments"] == [RATES]
    assert written["trials"][3] == {"number": 3, "bracket": 0, "values": {"train.lr": "4e-05"}}
