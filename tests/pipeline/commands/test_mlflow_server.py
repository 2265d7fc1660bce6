"""`tunesmith mlflow`: the pages are on the database that runs go to, with what the user asks of them."""

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow_runs import CONFIG, eventually, runs

from common.errors import UserError
from pipeline.commands import mlflow_server
from pipeline.tracking.run import PARENT, tracked, training_folder

REPO = Path(__file__).parents[3]
Run = Callable[..., tuple[str | None, list[str]]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The verb's command in a repository without runs."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv(PARENT, raising=False)
    monkeypatch.chdir(REPO)
    return lambda *arguments: mlflow_server.run(arguments)


def test_the_database_is_the_one_that_runs_go_to(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run() == (f"sqlite:///{tmp_path}/mlflow.db", [])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")
    assert run() == ("sqlite:///elsewhere.db", [])
    assert run("tracking.uri=sqlite:///named.db") == ("sqlite:///named.db", [])


def test_what_is_no_setting_of_tracking_goes_to_mlflow_as_it_is(run: Run) -> None:
    options = ["--port=5001", "--host", "0.0.0.0", "--allowed-hosts", "a,b", "--uvicorn-opts", "--header=x"]  # noqa: S104
    assert run(*options[:3], "tracking.experiment=mine", *options[3:])[1] == options


def test_a_server_is_named_without_its_password_and_none_is_started(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ada:secret@runs.example.org/team")
    assert run("--port", "5001") == (None, ["--port", "5001"])
    said = "the runs are at https://runs.example.org/team, which is a server already: none is started here\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("tracking.url=x", "tracking.url is not a key"),
        ("tracking.uri=mssql+nonsense://ada:secret@localhost/runs", "mssql+nonsense://localhost/runs is no address of"),
        ("tracking.uri=mssql+pymssql://ada:secret@localhost/runs", "mssql+pymssql://localhost/runs needs a driver"),
    ],
)
def test_what_cannot_be_shown_is_said_in_a_line(run: Run, argument: str, said: str) -> None:
    with pytest.raises(UserError) as raised:
        run(argument)
    assert said in str(raised.value)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_pages_show_what_was_kept_and_answer_to_the_hosts_that_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = f"sqlite:///{tmp_path}/runs.db"
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setattr("pipeline.tracking.run.FAREWELL", 0.1)
    away = replace(CONFIG, tracking=replace(CONFIG.tracking, uri="http://127.0.0.1:9"))
    with pytest.warns(UserWarning, match="MLflow"), tracked(away, training_folder(away, "abc"), "train") as recorded:
        recorded.metrics({"train.loss": 1.0}, 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = ["--port", str(port), "--workers", "1", "--allowed-hosts", "runs.example.org"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "mlflow", *given],
        cwd=REPO, env=os.environ | {"MLFLOW_TRACKING_URI": database}, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        assert eventually(lambda: status(port, "runs.example.org")) == 200
        assert status(port, "other.example.org") == 403
        started = Path(f"/proc/{process.pid}/cmdline").read_text().split("\0")
        assert str(port) in started
        assert not [part for part in started if "runs.db" in part]
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    (shown,) = runs(MlflowClient(database), "tunesmith")
    assert shown.data.metrics == {"train.loss": 1.0}


def status(port: int, host: str) -> int | None:
    """What the pages answer to a browser that calls them by this name; None where nobody listens yet."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None
