"""Runs in a real MLflow, on sqlite and behind a server, also what is recorded while it is away or before a kill."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from evaluated import evaluation
from mlflow import MlflowClient
from mlflow_runs import CONFIG, SECONDS, eventually, four_first_runs, runs, steps, training
from omegaconf import OmegaConf

from common.errors import Hopeless, Interrupted, UserError
from pipeline.commands import deliver
from pipeline.core.config import Config, load
from pipeline.core.records import LEARNT_FROM, PrepareReport
from pipeline.tracking import delivery, system_metrics
from pipeline.tracking import run as tracking
from pipeline.tracking.journal import JOURNAL, Journal
from pipeline.tracking.run import PARENT, Run, open_run, tracked, tracking_uri, training_folder

REPO = Path(__file__).parents[3]
NOWHERE = "http://127.0.0.1:9"  # where nothing listens
PREPARED = {"train": 800, "validation": 60, "test": 40}  # rows
# As MLflow's documentation lists them; its page draws no others.
MACHINE = (
    *("cpu_utilization_percentage", "system_memory_usage_megabytes", "system_memory_usage_percentage"),
    *("disk_usage_percentage", "disk_usage_megabytes", "disk_available_megabytes"),
    *("network_receive_megabytes", "network_transmit_megabytes"),
)


class Server:
    """`mlflow server` on a database of its own, which can be away for a while."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self.process is None:
            place = ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db", "--artifacts-destination", "files"]
            command = [sys.executable, "-m", "mlflow", "server", *place, "--port", str(self.port), "--workers", "1"]
            with (self.folder / "log").open("ab") as log:
                self.process = subprocess.Popen(
                    command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True, env=os.environ
                )
        eventually(self.answers)

    def stop(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
        assert not self.answers()

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as response:  # noqa: S310
                return bool(response.status == 200)
        except OSError:
            return False


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database to copy; to make one takes seconds."""
    database = tmp_path_factory.mktemp("blank") / "mlflow.db"
    MlflowClient(f"sqlite:///{database}").search_experiments()
    return database


@pytest.fixture(scope="module")
def folder(blank: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the database of this module is."""
    return Path(shutil.copy(blank, tmp_path_factory.mktemp("tracking"))).parent


@pytest.fixture(scope="module")
def the_server(blank: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(Path(shutil.copy(blank, tmp_path_factory.mktemp("server"))).parent)
    yield server
    server.stop()


@pytest.fixture
def server(the_server: Server) -> Server:
    """The one server, running."""
    the_server.start()
    return the_server


@pytest.fixture(autouse=True)
def root(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(folder))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv(PARENT, raising=False)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(delivery, "PAUSE", 0.1)
    monkeypatch.setattr(tracking, "FAREWELL", float(SECONDS))


@pytest.fixture
def client(folder: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder}/mlflow.db")


def config(experiment: str = "tunesmith", uri: str | None = None, **train: Any) -> Config:
    return replace(
        CONFIG,
        tracking=replace(CONFIG.tracking, experiment=experiment, uri=uri),
        train=replace(CONFIG.train, **train),
    )


@contextmanager
def warned() -> Iterator[list[str]]:
    """What is said about MLflow within the block."""
    said: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        shown = warnings.showwarning
        warnings.showwarning = lambda message, *_, **__: said.append(str(message)) if "MLflow" in str(message) else None
        yield said
        warnings.showwarning = shown


def delivered(run: Run) -> bool:
    assert run.delivery is not None
    return run.delivery.journal.sent == run.delivery.journal.size


# What a run holds


def test_one_run_gets_what_two_stages_record(folder: Path, client: MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text("{}")
    (tmp_path / "metrics.json").write_text("{}")
    with tracked(config("two"), tmp_path / "abc", "train") as run:
        run.params(config("two"), ("model", "train"))
        run.metrics({"train.loss": 2.0}, step=10)
        run.metrics({"train.loss": 1.0}, step=20)
        run.tags({"fingerprint": "abc"})
        run.artifact(tmp_path / "train.json")
        first = str(run.id)
    assert client.get_run(first).info.status == "FINISHED"
    with tracked(config("two"), tmp_path / "abc", "export") as run:
        assert run.id == first
        assert client.get_run(run.id).info.status == "RUNNING"
        run.params(config("two"), ("export",))
        run.metrics({"tuned": {"loss": 0.5, "by": {"sum": 1.0}}, "model": "no number", "nothing": None})
        run.artifact(tmp_path / "metrics.json")

    (recorded,) = runs(client, "two")
    assert recorded.info.status == "FINISHED"
    assert recorded.info.run_name == "starter-m on starter"
    assert recorded.data.params["model.name"] == "starter-m"
    assert recorded.data.params["train.lora.r"] == "32"
    assert recorded.data.params["export.quantizations"] == "['F16', 'Q8_0', 'Q4_K_M']"
    assert recorded.data.metrics == {"train.loss": 1.0, "tuned.loss": 0.5, "tuned.by.sum": 1.0}
    assert steps(client, first) == [10, 20]
    assert steps(client, first, "tuned.loss") == [0]
    assert recorded.data.tags["fingerprint"] == "abc"
    assert {item.path for item in client.list_artifacts(first)} == {"params.yaml", "train.json", "metrics.json"}
    assert Path(recorded.info.artifact_uri.removeprefix("file://")).is_relative_to(folder / "mlartifacts")
    assert (tmp_path / "abc/mlflow_run").read_text() == first


def test_the_splits_that_were_read_are_the_runs_data_sets(client: MlflowClient, tmp_path: Path) -> None:
    splits = {name: {"rows": rows, "sha256": name[0] * 64} for name, rows in PREPARED.items()}
    prepared = PrepareReport.model_validate(evaluation("starter-s", {})["prepared"] | {"splits": splits})
    for _ in range(2):  # a training that goes on records them again
        with tracked(config("data"), tmp_path / "abc", "starter-s") as run:
            run.splits(prepared, LEARNT_FROM)
    with tracked(config("data"), tmp_path / "abc", "starter-s") as run:
        run.splits(prepared, ["test"])
    (recorded,) = runs(client, "data")
    read = {one.tags[0].value: one.dataset for one in recorded.inputs.dataset_inputs}
    assert len(recorded.inputs.dataset_inputs) == len(read) == 3
    for name, split in prepared.splits.items():
        assert (read[name].name, read[name].digest) == (f"starter/{name}", split.sha256[:36])
        assert json.loads(read[name].profile) == {"num_rows": split.rows}
        assert json.loads(read[name].source)["uri"] == f"data/prepared/{name}.parquet"


def test_the_commit_is_a_tag(folder: Path, client: MlflowClient, tmp_path: Path, monkeypatch: Any) -> None:
    names = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, env=os.environ | names)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, text=True, check=True)
    monkeypatch.chdir(tmp_path)
    with tracked(config("commit"), tmp_path / "abc", "x") as run:
        tags = client.get_run(str(run.id)).data.tags
    assert (tags["git_commit"], tags["git_dirty"]) == (head.stdout.strip(), "false")
    assert tags["mlflow.source.git.commit"] == head.stdout.strip()


def test_outside_of_git_there_is_no_commit(client: MlflowClient, tmp_path: Path) -> None:
    with tracked(config("no commit"), tmp_path, "x") as run:
        assert "git_commit" not in client.get_run(str(run.id)).data.tags


def test_a_changed_param_becomes_a_tag(client: MlflowClient, tmp_path: Path) -> None:
    with tracked(config("changed"), tmp_path, "x") as run:
        run.params(config(), ("train",))
        run.params(config(), ("train",))  # the same again is nothing new
    assert not [key for key in client.get_run(str(run.id)).data.tags if key.startswith("changed.")]
    with tracked(config("changed"), tmp_path, "x") as run:
        run.params(config(save_steps=7), ("train",))
    data = client.get_run(str(run.id)).data
    assert data.params["train.save_steps"] == str(CONFIG.train.save_steps)
    assert data.tags["changed.train.save_steps"] == "7"


def test_long_settings_and_odd_names_do_not_fail(client: MlflowClient, tmp_path: Path) -> None:
    with warned() as said, tracked(config("odd"), tmp_path, "x") as run:
        run.params(config())
        run.metrics({"accuracy": {"held-out (hard) / ä?": 0.5, "x" * 300: 1.0}, "loss": float("nan")})
        run.metrics({str(number): 0.0 for number in range(1500)}, step=1)  # more than one batch
    assert said == []
    (recorded,) = runs(client, "odd")
    assert recorded.data.metrics["accuracy.held-out _hard_ _ ä_"] == 0.5
    assert len(recorded.data.metrics) == 1503
    assert json.dumps(recorded.data.metrics["loss"]) == "NaN"


def test_what_mlflow_refuses_is_said_and_everything_else_is_recorded(client: MlflowClient, tmp_path: Path) -> None:
    with warned() as said, tracked(config("refused"), tmp_path / "abc", "x") as run:
        assert run.delivery is not None
        run.delivery.journal.append("metrics", {"loss": 2.0}, 1)
        run.delivery.journal.append("metrics", {"a name?": 1.0}, 1)
        run.metrics({"loss": 1.0}, step=2)
        run.artifact(tmp_path / "missing")
        run.delivery.journal.append("artifact", str(tmp_path / "gone since"))
        run.tags({"after": "all"})
    (recorded,) = runs(client, "refused")
    assert steps(client, run.id, "loss") == [1, 2]
    assert recorded.data.tags["after"] == "all"
    assert recorded.info.status == "FINISHED"
    assert len(said) == 3
    for part in ("MLflow refuses metrics {'a name?': 1.0} (", "/missing is not kept", "MLflow does not keep /"):
        assert [line for line in said if part in line and "\n" not in line]


def test_who_started_what_is_where_mlflows_columns_look_for_it(
    client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "ada")
    with tracked(config("columns"), tmp_path, "train") as run:
        pass
    (recorded,) = runs(client, "columns")
    tags = recorded.data.tags
    assert (recorded.info.user_id, tags["mlflow.user"]) == ("ada", "ada")
    assert (tags["mlflow.source.name"], tags["mlflow.source.type"]) == ("tunesmith train", "LOCAL")
    assert recorded.info.run_name == "starter-m on starter"
    assert run.before is None


def test_a_user_without_a_name_is_no_error(client: MlflowClient, tmp_path: Path, monkeypatch: Any) -> None:
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 54321)
    with tracked(config("nameless"), tmp_path, "train"):
        pass
    (recorded,) = runs(client, "nameless")
    assert "mlflow.user" not in recorded.data.tags


def test_all_settings_are_kept_beside_the_run_as_they_were_last(client: MlflowClient, tmp_path: Path) -> None:
    place = tmp_path / "mlflow.db"
    first = config("settings", uri=f"sqlite:///{place}")
    for stage, settings in (("train", first), ("export", replace(first, export=replace(first.export, adapter=True)))):
        with tracked(settings, tmp_path / "abc", stage) as run:
            pass
    kept = MlflowClient(f"sqlite:///{place}").download_artifacts(str(run.id), "params.yaml", str(tmp_path))
    assert load(OmegaConf.load(kept)) == settings != first


def test_a_password_is_no_setting_that_is_kept(tmp_path: Path) -> None:
    secret = config("secret", uri="postgresql://ada:pa%40ss@localhost:1/runs")
    with warned(), tracked(secret, tmp_path, "train"):
        pass
    text = (tmp_path / "mlflow_artifacts/params.yaml").read_text()
    assert "uri: postgresql://localhost:1/runs" in text
    assert "pa%40ss" not in text


def test_a_setting_is_kept_as_far_as_mlflow_takes_it_and_says_where_it_was_cut(
    client: MlflowClient, tmp_path: Path
) -> None:
    longest, longer = "x" * (6000 - len("['']")), "x" * 7000
    for experiment, prompt in (("longest", longest), ("longer", longer)):
        asked = replace(CONFIG.evaluate, prompts=[prompt])
        with warned() as said, tracked(replace(config(experiment), evaluate=asked), tmp_path / experiment, "x") as run:
            run.params(replace(CONFIG, evaluate=asked), ("evaluate",))
        assert said == []
    (whole,), (cut,) = (runs(client, experiment) for experiment in ("longest", "longer"))
    assert whole.data.params["evaluate.prompts"] == f"['{longest}']"
    assert len(cut.data.params["evaluate.prompts"]) == 6000
    assert cut.data.params["evaluate.prompts"].endswith("x … (cut; params.yaml has all of it)")
    kept = client.download_artifacts(cut.info.run_id, "params.yaml", str(tmp_path))
    assert longer in Path(kept).read_text()


def test_an_experiment_of_dvcs_is_found_by_its_name_and_its_baseline(
    client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "f" * 40)
    for name in ("sad-mule", "wise-owl"):  # the second has the same settings, and so the same run
        monkeypatch.setenv("DVC_EXP_NAME", name)
        with tracked(config("dvc"), tmp_path, "train"):
            pass
    experiment = client.get_experiment_by_name("dvc")
    assert experiment is not None
    for condition, found in (("`dvc.experiment` = 'wise-owl'", 1), ("`dvc.baseline` LIKE 'ffff%'", 1)):
        assert len(client.search_runs([experiment.experiment_id], f"tags.{condition}")) == found


def test_a_job_of_a_sweep_is_its_parents_child(
    client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = open_run(config("sweep").tracking, tmp_path / "sweep", "sweep")
    monkeypatch.setenv(PARENT, str(parent.id))
    with tracked(config("sweep"), tmp_path / "job", "job") as run:
        assert client.get_run(str(run.id)).data.tags["mlflow.parentRunId"] == parent.id
    parent.end("FINISHED")
    assert {run.info.status for run in runs(client, "sweep")} == {"FINISHED"}


def test_a_job_waits_for_its_parents_run_where_mlflow_was_away_as_the_parent_began(
    client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "PARENT_COMES", 0.0)
    parent = delivery.Delivery(Journal(tmp_path / "sweep"), config("late").tracking)
    Run(parent, "sweep").begin({"mlflow.runName": "sweep"}, {})
    monkeypatch.setenv(PARENT, str(parent.journal.folder))
    with warnings.catch_warnings(record=True) as said, tracked(config("late"), tmp_path / "job", "job"):
        pass
    assert any("it does not have the sweep's run yet" in str(warning.message) for warning in said)
    for folder in ("sweep", "job"):
        late = delivery.Delivery(Journal(tmp_path / folder), config("late").tracking)
        late.start()
        late.close(None)
    (child,) = [run for run in runs(client, "late") if run.info.run_id != parent.journal.run_id]
    assert child.data.tags["mlflow.parentRunId"] == parent.journal.run_id


def test_a_job_whose_parents_journal_is_gone_has_none(
    client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PARENT, str(tmp_path / "removed"))
    with tracked(config("alone"), tmp_path / "job", "job") as run:
        assert "mlflow.parentRunId" not in client.get_run(str(run.id)).data.tags


def test_tracking_can_be_off(client: MlflowClient, tmp_path: Path) -> None:
    off = replace(CONFIG, tracking=replace(CONFIG.tracking, enabled=False, experiment="off"))
    with tracked(off, tmp_path / "abc", "x") as run:
        run.params(off)
        run.metrics({"loss": 1.0}, step=1)
        run.mark("SIGTERM at step 1")
        run.artifact(tmp_path / "missing")
        assert (run.id, run.before) == (None, None)
    assert client.get_experiment_by_name("off") is None
    assert not (tmp_path / "abc").exists()


def test_runs_go_where_the_setting_says_else_the_environment_else_beside_the_repository(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    assert tracking_uri(CONFIG.tracking) == f"sqlite:///{folder.resolve()}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:1")
    assert tracking_uri(CONFIG.tracking) == "http://localhost:1"
    assert tracking_uri(replace(CONFIG.tracking, uri="sqlite:///x.db")) == "sqlite:///x.db"


# What the machine does meanwhile


def watching(experiment: str, **changes: Any) -> Config:
    """Settings by which the machine is read often."""
    settings = config(experiment, uri=changes.pop("uri", None))
    return replace(settings, tracking=replace(settings.tracking, **{"system_metrics_seconds": 0.05, **changes}))


def readings(run: Run) -> list[dict[str, float]]:
    assert run.delivery is not None
    found = [entry.value for entry, _ in run.delivery.journal.entries() if entry.kind == "metrics"]
    return [figures for figures in found if any(key.startswith("system/") for key in figures)]


def test_what_the_machine_does_is_under_the_names_that_mlflows_page_knows(client: MlflowClient, tmp_path: Path) -> None:
    parts = []
    for stage in ("train", "export"):
        with tracked(watching("system"), tmp_path, stage) as run:
            before = len(readings(run))
            eventually(lambda: len(readings(run)) >= before + 2)  # noqa: B023
        assert system_metrics.THREAD not in {thread.name for thread in threading.enumerate()}
        parts.append(len(readings(run)))
    (recorded,) = runs(client, "system")
    read = {key for key in recorded.data.metrics if not key.startswith("system/gpu_")}
    assert read == {f"system/{name}" for name in MACHINE}
    assert 0 <= recorded.data.metrics["system/cpu_utilization_percentage"] <= 100
    assert steps(client, run.id, "system/cpu_utilization_percentage") == list(range(parts[1]))


def test_what_the_machine_did_while_mlflow_was_away_is_delivered_later(client: MlflowClient, tmp_path: Path) -> None:
    with warned(), tracked(watching("system kept", uri=NOWHERE), tmp_path, "train") as run:
        eventually(lambda: len(readings(run)) >= 3)
    with tracked(watching("system kept", system_metrics=False), tmp_path, "export") as run:
        pass
    found = steps(client, run.id, "system/system_memory_usage_megabytes")
    assert found == list(range(len(found))) == list(range(len(readings(run))))


def test_the_machine_is_not_watched_where_it_is_off(tmp_path: Path) -> None:
    for enabled, watch in ((True, False), (False, True)):
        settings = watching("unwatched", enabled=enabled, system_metrics=watch)
        with tracked(settings, tmp_path, "train"):
            assert system_metrics.THREAD not in {thread.name for thread in threading.enumerate()}


def test_figures_that_cannot_be_read_are_said_once_and_end_no_stage(
    client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = psutil.net_io_counters
    monkeypatch.setattr("psutil.net_io_counters", lambda: None)  # as in a container without interfaces
    with warned() as said, tracked(watching("hidden"), tmp_path / "first", "train") as run:
        run.metrics({"loss": 1.0}, 1)
    assert [line.partition(" (")[0] for line in said] == ["MLflow gets no system metrics"]
    monkeypatch.setattr("psutil.net_io_counters", known)
    with warned() as said, tracked(watching("lost"), tmp_path / "second", "train") as run:
        eventually(lambda: readings(run))
        monkeypatch.setattr("psutil.disk_usage", lambda _: {}["gone"])
        eventually(lambda: said)
        run.metrics({"loss": 1.0}, 1)
    assert [line.partition(" (")[0] for line in said] == ["MLflow gets no more system metrics of this stage"]
    assert client.get_experiment_by_name("hidden") is not None


# How a run ends, and goes on


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KeyError("mine"), "FAILED"),
        (UserError("mine"), "FAILED"),
        (Interrupted("mine"), "KILLED"),
        (KeyboardInterrupt("mine"), "KILLED"),
        (SystemExit("mine"), "KILLED"),
    ],
)
def test_an_exception_ends_the_run_and_passes_through(
    client: MlflowClient, tmp_path: Path, error: BaseException, status: str
) -> None:
    with pytest.raises(type(error), match="mine"), tracked(config("ended"), tmp_path, "x") as run:
        raise error
    assert eventually(lambda: delivered(run))
    assert client.get_run(str(run.id)).info.status == status


def test_a_request_to_stop_while_the_run_is_ended_is_neither_lost_nor_leaves_it_running(
    client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = iter([Interrupted("SIGTERM")])

    def end_when_asked(run: Run, status: str) -> None:
        for request in requests:
            raise request
        end(run, status)

    end = Run.end
    monkeypatch.setattr(Run, "end", end_when_asked)
    with pytest.raises(Interrupted, match="SIGTERM"), tracked(config("asked"), tmp_path, "x") as run:
        raise Hopeless("diverged")
    assert eventually(lambda: delivered(run))
    assert client.get_run(str(run.id)).info.status == "KILLED"


def last_step(run: Run) -> int:
    return max(run.steps.values(), default=-1)


def test_parts_of_a_training_know_what_came_before(client: MlflowClient, tmp_path: Path) -> None:
    with suppress(Interrupted), tracked(config("parts"), tmp_path, "train") as run:
        assert (run.before, last_step(run)) == (None, -1)
        run.metrics({"train": {"seconds": 1.0}})  # a figure of the whole run is no step
        assert last_step(run) == -1
        run.metrics({"train.loss": 0.5}, step=30)
        run.metrics({"validation.loss": 0.6}, step=30)
        run.metrics({"train.loss": 0.4}, step=40)
        raise Interrupted("SIGTERM at step 40; the same command goes on")
    with tracked(config("parts"), tmp_path, "export") as run:
        assert (run.before, last_step(run)) == (None, 40)
    with tracked(config("parts"), tmp_path, "train") as run:
        assert (run.before, last_step(run)) == ("KILLED", 40)
        for step in (40, 50):  # resumed at 35: nothing is recorded twice, and what had not been recorded is
            run.metrics({"train.loss": 0.3}, step=step)
            run.metrics({"validation.loss": 0.4}, step=step)
        run.mark("killed, resumed at step 45")
    (recorded,) = runs(client, "parts")
    assert recorded.data.tags["interruptions"] == "SIGTERM at step 40; killed, resumed at step 45"
    assert steps(client, run.id) == [30, 40, 50]
    assert steps(client, run.id, "validation.loss") == [30, 40, 50]
    assert client.get_metric_history(str(run.id), "train.loss")[1].value == 0.4


# MLflow is away


@pytest.mark.parametrize("uri", [NOWHERE, None])
def test_a_killed_training_goes_on_as_one_run_without_a_gap(
    client: MlflowClient, tmp_path: Path, uri: str | None
) -> None:
    process = training(tmp_path, 1, 0, **({"MLFLOW_TRACKING_URI": uri} if uri else {}))
    assert process.stdout is not None
    printed = next(step for step in process.stdout if int(step) == 50)
    process.kill()  # in the midst of the next step
    process.wait()
    process.stdout.close()
    with tracked(config(f"killed {uri}"), tmp_path, "train") as run:
        assert run.before == "RUNNING"
        assert last_step(run) >= int(printed)
        last = last_step(run) + 10
        for step in range(31, last + 1):
            run.metrics({"train.loss": 1 / step}, step)
    recorded = client.get_run(str(run.id))
    assert steps(client, run.id) == list(range(1, last + 1))
    assert recorded.info.status == "FINISHED"
    first = next(entry for entry, _ in Journal(tmp_path).entries())
    assert recorded.data.tags["journal"] == first.value["journal"]
    assert recorded.info.start_time == first.time if uri else True


def test_a_clone_goes_on_with_the_run_that_its_adapter_names_if_mlflow_knows_that(
    client: MlflowClient, tmp_path: Path
) -> None:
    with tracked(config("clone"), tmp_path / "here", "train") as run:
        trained = str(run.id)
    with tracked(config("clone"), tmp_path / "clone", "export", trained) as run:
        run.metrics({"size": 1.0})
        assert run.id == trained
    assert client.get_run(trained).data.metrics == {"size": 1.0}
    with tracked(config("clone"), tmp_path / "another", "export", "0" * 32) as run:
        assert run.id not in (None, "0" * 32)
    assert client.get_run(str(run.id)).info.run_name == "starter-m on starter"


def test_another_database_and_a_deleted_run_are_told_everything_again(
    client: MlflowClient, blank: Path, tmp_path: Path
) -> None:
    ids = []
    shutil.copy(blank, tmp_path / "other.db")
    (tmp_path / "report.json").write_text("{}")
    for part, uri in enumerate([None, f"sqlite:///{tmp_path}/other.db", None]):
        with tracked(config("again", uri=uri), tmp_path / "abc", "train") as run:
            run.metrics({"train.loss": 1.0}, step=part)
            run.artifact(tmp_path / "report.json")
        ids.append(str(run.id))
    assert ids[0] == ids[2]  # known again by the journal's name
    other = MlflowClient(f"sqlite:///{tmp_path}/other.db")
    assert steps(other, ids[1]) == [0, 1]
    assert steps(client, ids[0]) == [0, 1, 2]

    client.delete_run(ids[0])
    with tracked(config("again"), tmp_path / "abc", "train") as run:
        run.metrics({"train.loss": 1.0}, step=3)
    assert run.id not in ids
    assert steps(client, run.id) == [0, 1, 2, 3]
    assert {item.path for item in client.list_artifacts(str(run.id))} == {"params.yaml", "report.json"}


def test_a_deleted_database_is_made_anew_with_everything(blank: Path, tmp_path: Path) -> None:
    database = Path(shutil.copy(blank, tmp_path))
    for first, last in ((1, 3), (2, 5)):
        process = training(tmp_path / "abc", first, last, DVC_ROOT=str(tmp_path))
        process.communicate()
        assert process.returncode == 0
        database.rename(tmp_path / f"{last}.db")
    first, second = MlflowClient(f"sqlite:///{tmp_path}/3.db"), MlflowClient(f"sqlite:///{tmp_path}/5.db")
    (old,), (new,) = runs(first, "tunesmith"), runs(second, "tunesmith")
    assert steps(first, old.info.run_id) == [1, 2, 3]
    assert steps(second, new.info.run_id) == [1, 2, 3, 4, 5]
    assert (tmp_path / "abc/mlflow_run").read_text() == new.info.run_id != old.info.run_id


def test_four_first_runs_at_once_make_one_database(tmp_path: Path) -> None:
    four_first_runs(tmp_path, f"sqlite:///{tmp_path}/mlflow.db")


def test_whoever_is_killed_while_the_database_is_made_leaves_none(tmp_path: Path) -> None:
    uri, temporary = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / ".mlflow.db.tmp"
    command = f"from pipeline.tracking.delivery import connect; connect({uri!r})"
    process = subprocess.Popen([sys.executable, "-c", command], cwd=REPO)
    while not (temporary.exists() and temporary.stat().st_size):  # some of its tables are there
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "mlflow.db").exists()
    assert delivery.connect(uri).search_experiments()
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize("uri", [NOWHERE, "nonsense://x", "sqlite:////proc/no/mlflow.db"])
def test_where_mlflow_is_out_of_reach_it_is_said_and_the_stage_goes_on(tmp_path: Path, uri: str) -> None:
    done = []
    with warned() as said, tracked(config(uri=uri), tmp_path, "x") as run:
        assert run.id is None
        eventually(lambda: said)
        for step in range(3):
            run.params(CONFIG)
            run.metrics({"loss": 1.0}, step)
            run.tags({"a": "b"})
            time.sleep(0.2)  # it is tried again meanwhile
        done.append("the stage")
    assert done == ["the stage"]
    first, last = said
    assert first.startswith("MLflow is out of reach (")
    assert first.endswith(f"); metrics are kept in {tmp_path}/{JOURNAL} and delivered later")
    assert last.startswith("MLflow has not taken all of this stage (")
    assert f"{tmp_path}/{JOURNAL} keeps it for the next stage of these settings" in last
    assert "\n" not in first + last


def test_a_warning_is_one_line_each_time() -> None:
    twice = "from pipeline.tracking.delivery import warn; warn('MLflow is away'); warn('MLflow is away')"
    command = [sys.executable, "-c", twice]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(REPO)}, capture_output=True, text=True)
    assert done.stderr.splitlines() == ["mlflow:0: UserWarning: MLflow is away"] * 2


def test_the_next_stage_delivers_what_was_kept(client: MlflowClient, tmp_path: Path) -> None:
    report = tmp_path / "workspace/report.json"
    report.parent.mkdir()
    report.write_text("then")
    with warned(), tracked(config("kept", uri=NOWHERE), tmp_path / "abc", "train") as run:
        run.params(CONFIG)
        run.metrics({"train.loss": 1.0}, step=1)
        run.artifact(report)
    ended = time.time()
    report.unlink()  # as `dvc exp run --temp` does with its workspace
    with warned() as said, tracked(config("kept"), tmp_path / "abc", "export") as run:
        run.metrics({"size": 1.0})
    assert said == []
    (recorded,) = runs(client, "kept")
    assert recorded.info.run_name == "starter-m on starter"
    assert recorded.info.start_time <= ended * 1000
    assert recorded.data.metrics == {"train.loss": 1.0, "size": 1.0}
    assert client.get_metric_history(str(run.id), "train.loss")[0].timestamp <= ended * 1000
    assert Path(client.download_artifacts(str(run.id), "report.json", str(tmp_path))).read_text() == "then"


def test_a_command_delivers_what_is_kept_when_no_stage_follows(
    client: MlflowClient, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    away = config(uri=NOWHERE)
    journal = training_folder(away, "abc")
    assert journal == folder.resolve() / ".checkpoints/abc"
    with warned(), tracked(away, journal, "evaluate") as run:
        run.metrics({"tuned.loss": 1.0})
    monkeypatch.chdir(REPO)
    with warned() as said:
        deliver.run([f"tracking.uri={NOWHERE}"])
    assert said
    assert capsys.readouterr().out == ""
    deliver.run(["tracking.experiment=by command"])
    assert capsys.readouterr().out == f"delivered {journal}/{JOURNAL}\n"
    deliver.run()
    assert capsys.readouterr().out == ""
    (recorded,) = runs(client, "by command")
    assert recorded.data.metrics == {"tuned.loss": 1.0}
    assert recorded.info.status == "FINISHED"


def test_a_command_delivers_what_sweeps_and_their_trainings_keep(
    client: MlflowClient, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = config(uri=NOWHERE)
    monkeypatch.setattr(tracking, "FAREWELL", 0.1)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").symlink_to(REPO / "conf")
    places = [training_folder(away, "sweeps/lr/abc"), training_folder(away, "sweeps/lr/trial-3/abc")]
    with warned():
        for place in (*places, Path("sweeps/lr"), Path("multirun/today")):
            with tracked(away, place, "train") as run:
                run.tags({"place": place})
    deliver.run(["tracking.experiment=of sweeps"])
    assert {run.data.tags["place"] for run in runs(client, "of sweeps")} == {
        *map(str, places),
        "sweeps/lr",
        "multirun/today",
    }


def test_a_server_that_goes_and_comes_back_misses_nothing(server: Server, tmp_path: Path) -> None:
    with warned() as said, tracked(config(uri=server.uri), tmp_path, "train") as run:
        run.metrics({"train.loss": 1.0}, step=1)
        eventually(lambda: delivered(run))
        server.stop()
        for step in range(2, 40):
            run.metrics({"train.loss": 1 / step}, step)
        run.artifact(REPO / "README.md")
        eventually(lambda: said)
        server.start()
        eventually(lambda: delivered(run))
        run.metrics({"train.loss": 0.0}, step=40)
    away, back = said
    assert away.startswith("MLflow is out of reach (")
    assert back == f"MLflow is back and has taken what {tmp_path}/{JOURNAL} kept for it"
    client = MlflowClient(server.uri)
    assert steps(client, run.id) == list(range(1, 41))
    assert client.get_run(str(run.id)).info.status == "FINISHED"
    assert {item.path for item in client.list_artifacts(str(run.id))} == {"params.yaml", "README.md"}


def test_a_server_leaves_out_what_it_is_told_twice(server: Server, tmp_path: Path) -> None:
    with tracked(config("twice", uri=server.uri), tmp_path, "train") as run:
        for step in range(10):
            run.metrics({"train.loss": 1.0, "grad_norm": float("nan")}, step)
        run.params(CONFIG)
    (tmp_path / "mlflow_sent").unlink()  # killed before it was written
    (tmp_path / "mlflow_run").unlink()
    with warned() as said, tracked(config("twice", uri=server.uri), tmp_path, "train") as again:
        again.metrics({"train.loss": 1.0}, 10)
    assert said == []
    assert again.id == run.id
    client = MlflowClient(server.uri)
    assert len(runs(client, "twice")) == 1
    assert steps(client, run.id) == list(range(11))
    assert steps(client, run.id, "grad_norm") == list(range(10))
    assert not [key for key in client.get_run(str(run.id)).data.tags if key.startswith("changed.")]


def test_a_server_that_does_not_answer_stops_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "FAREWELL", 0.1)
    with socket.socket() as silent, warned() as said:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with tracked(config(uri=f"http://127.0.0.1:{silent.getsockname()[1]}"), tmp_path, "x") as run:
            assert run.delivery is not None
            for step in range(100):
                run.metrics({"loss": 1.0}, step)
            assert run.id is None
            assert not run.delivery.tried.is_set()
        (left,) = said
    assert left.startswith("MLflow has not taken all of this stage (no answer yet); ")
    run.delivery.thread.join(SECONDS)  # the connection broke when the block ended


def test_the_thread_ends_with_its_block(client: MlflowClient, tmp_path: Path) -> None:
    with tracked(config("thread"), tmp_path, "x") as run:
        assert delivery.THREAD in {thread.name for thread in threading.enumerate()}
    assert run.delivery is not None
    assert not run.delivery.thread.is_alive()


def test_a_full_disk_ends_the_stage_with_its_own_error(
    tmp_path: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise UserError("the journal is full")

    def fill() -> None:
        monkeypatch.setattr(Journal, "append", refuse)
        raise UserError("the checkpoint is full")

    with pytest.raises(UserError, match="the checkpoint is full"), tracked(config("full"), tmp_path, "x"):
        fill()
    with pytest.raises(UserError, match="the journal is full"), tracked(config("full"), tmp_path, "x"):
        pass
