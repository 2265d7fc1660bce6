"""`tunesmith feedback forget`: nothing of a visitor is left in any place, and the models that learnt it are named."""

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feedback_hub import DATASET, feedback_hub
from learning import learnt_from
from learnt_from import fingerprint
from mlflow import MlflowClient
from said import chatter, keep, thumb, vote

from pipeline import cli
from pipeline.commands import forget as command
from pipeline.core.records import PrepareReport
from pipeline.erasure import workspace as workspaces
from serve.feedback import FeedbackStore, read_records, visitor_of

REPO = Path(__file__).parents[3]
VISITOR = visitor_of("the one")
MARK = "xylophone"  # in all that the visitor says, and nobody else
STAGES = f"""
stages:
  prepare:
    cmd: {sys.executable} {REPO}/tests/helpers/learnt_from.py prepare
    deps: [data/feedback]
    outs: [data/prepared, data/rejected.jsonl, data/examples.json, data/forgetting, reports/prepare.json]
  train:
    cmd: {sys.executable} {REPO}/tests/helpers/learnt_from.py train
    deps: [data/prepared, data/examples.json, reports/prepare.json]
    outs: [models/adapter, reports/evaluation.html]
"""
Forget = Callable[..., str]


def run(*arguments: str) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    return done.stdout


def commit() -> None:
    run("git", "add", "-A")
    run("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "results")


def learnt() -> str:
    """Learns from what is kept, commits what comes of it, and pushes; returns the data's digest."""
    learnt_from(folder="feedback")
    run("dvc", "repro", "-q")
    run("dvc", "push", "-q", "--run-cache")
    commit()
    return PrepareReport.read(Path("reports/prepare.json")).compared_digest


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository that has learnt twice: without the visitor, and with. Its runs are in MLflow, one is registered."""
    folder = tmp_path_factory.mktemp("made") / "work"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PYTHONPATH", str(REPO))
        patch.setenv("DVC_ROOT", str(folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        run("git", "init", "-q")
        run("dvc", "init", "-q")
        run("dvc", "remote", "add", "-q", "-d", "store", str(folder / "remote"))
        (folder / "dvc.yaml").write_text(STAGES)
        (folder / ".gitignore").write_text("/remote\n/feedback\n/data/feedback\n/data/learnt\n/conf\n/ml*\n")
        (folder / "conf").symlink_to(REPO / "conf")
        keep(folder / "feedback", *chatter(9))
        before = learnt()
        keep(folder / "feedback", *said())
        tell_mlflow(before, learnt())
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of it, at the same path, entered: MLflow and DVC keep absolute ones."""
    kept = tmp_path / "kept"
    shutil.copytree(made, kept, symlinks=True)
    monkeypatch.chdir(made)
    monkeypatch.setenv("DVC_ROOT", str(made))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield made
    mlflow.set_tracking_uri(None)
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(made)
    kept.rename(made)


@pytest.fixture
def forget(place: Path, capsys: pytest.CaptureFixture[str]) -> Forget:
    """The command: what it prints, or the line that it ends with."""

    def call(*arguments: str, status: int = 0) -> str:
        capsys.readouterr()
        ended = cli.run(["feedback", "forget", "--visitor", *arguments])
        printed = capsys.readouterr()
        assert ended == status, printed.err
        return printed.err.splitlines()[-1] if status else printed.out

    return call


def said() -> list[Any]:
    """What the visitor says; learnt, not held out."""
    return [
        vote(
            "the one",
            f"Who plays the {MARK} number {number}?",
            f"I play the {MARK} {number}",
            f"No {MARK} {number * 7}",
        )
        for number in range(4)
    ] + [thumb("the one", f"What is a {MARK}?", f"A {MARK}.")]


def tell_mlflow(before: str, after: str) -> None:
    client = MlflowClient("sqlite:///mlflow.db")
    experiment = client.create_experiment("tunesmith", artifact_location=Path("mlartifacts").absolute().as_uri())
    for digest in (before, after):
        run = client.create_run(experiment, tags={"data_digest": digest, "fingerprint": fingerprint(digest)})
        for name in ("data.html", "evaluation.json", "manifest.json"):
            text = MARK if name != "manifest.json" and digest == after else "figures"
            client.log_text(run.info.run_id, text, name)
    client.create_registered_model("tunesmith")
    for digest in (before, after):
        tags = {
            "data_digest": digest,
            "sha256": digest[:16] * 4,
            "file": "small-Q8_0.gguf",
            "adapter_digest": "ad" * 32,
        }
        version = client.create_model_version("tunesmith", Path("mlartifacts").absolute().as_uri(), tags=tags)
        client.set_registered_model_alias("tunesmith", "champion", str(version.version))
    later = {"fingerprint": "later", "ancestors": f"{fingerprint(after)} {fingerprint(before)}", "file": "later.gguf"}
    client.create_model_version("tunesmith", Path("mlartifacts").absolute().as_uri(), tags=later)


def places_with(folder: Path) -> list[str]:
    """The files that have the visitor's words or number; git's own have digests alone."""
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_relative_to(folder / "conf") and has_it(path.read_bytes())
    ]


def has_it(content: bytes) -> bool:
    if content[:4] == b"PAR1":
        content = json.dumps(pq.read_table(io.BytesIO(content)).to_pylist()).encode()
    return MARK.encode() in content or VISITOR.encode() in content


def test_nothing_is_left_and_the_models_that_learnt_it_are_named(forget: Forget, place: Path) -> None:
    before = places_with(place)
    for part in (
        "feedback/",
        "data/feedback/",
        "data/learnt/",
        "data/prepared/",
        ".dvc/cache/",
        "remote/",
        "mlartifacts/",
    ):
        assert any(path.startswith(part) for path in before), part
    objects = {path.name for path in (place / ".dvc/cache/files").rglob("*") if path.is_file()}
    printed = forget(VISITOR)
    assert places_with(place) == []
    digest = PrepareReport.read(place / "reports/prepare.json").compared_digest
    assert f"models/adapter: training {fingerprint(digest)}" in printed
    assert f"version 2 of tunesmith, the champion: small-Q8_0.gguf, SHA-256 {digest[:16] * 4}; " in printed
    assert f"its adapter, SHA-256 {'ad' * 32}\n" in printed
    assert "version 1" not in printed
    assert "version 3 of tunesmith: later.gguf" in printed  # which went on from it
    assert len(read_records(place / "feedback").records) == len(chatter(9))
    # What was made before the visitor came is there, and so are the models.
    left = {path.name for path in (place / ".dvc/cache/files").rglob("*") if path.is_file()}
    assert 0 < len(objects - left) < len(objects) / 2
    run("git", "stash", "-q")
    run("git", "checkout", "-q", "HEAD~1")
    run("dvc", "checkout", "-q", "-f")
    assert pq.read_table("data/prepared/train.parquet").num_rows > 0
    assert (place / "models/adapter/lineage.json").is_file()


def test_learn_makes_the_next_rows_without_it(forget: Forget, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = [(path.name, path.read_bytes()) for path in (place / "feedback").iterdir()]
    forget(VISITOR)
    for name, content in copy:
        (place / "feedback" / name).write_bytes(content)  # somebody brings a copy back
    manifest = learnt_from(folder="feedback")
    assert manifest.left_out["of a visitor who is forgotten"] == len(said())
    assert not has_it(Path("data/feedback/manifest.json").read_bytes())
    run("dvc", "repro")


def test_interrupted_anywhere_it_is_called_again(
    forget: Forget, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each of the places that it deletes in, it is ended once, before that place and after it."""
    steps = [
        (command.records, "forget_in_folder"),
        (command.workspace, "forget_rows"),
        (command.Versions, "forget"),
        (command, "forget_in_runs"),
        (workspaces, "_delete"),
        (command.workspace, "forget_prepared"),
        (command.workspace, "forget_in_manifests"),
    ]
    for owner, name in steps:
        real = getattr(owner, name)
        for after in (False, True):

            def ended(*arguments: Any, real: Any = real, after: bool = after) -> None:
                if after:
                    real(*arguments)
                raise KeyboardInterrupt

            monkeypatch.setattr(owner, name, ended)
            forget(VISITOR, status=130)
        monkeypatch.setattr(owner, name, real)
    printed = forget(VISITOR)
    assert places_with(place) == []
    digest = PrepareReport.read(place / "reports/prepare.json").compared_digest
    assert f"training {fingerprint(digest)}" in printed
    assert "version 2 of tunesmith, the champion" in printed
    assert forget(VISITOR).startswith("nothing is left to delete")


def test_the_copy_of_a_turn_that_is_under_way_goes_too(forget: Forget, place: Path) -> None:
    shutil.copytree(place / "feedback", place / "data/turn/records")
    forget(VISITOR)
    assert list((place / "data/turn/records").iterdir())
    assert places_with(place) == []


def test_what_a_killed_writer_left_goes_too(forget: Forget, place: Path) -> None:
    for left in ("data/.feedback.old.tmp", "data/.prepared.tmp", "data/.prepare.tmp"):
        shutil.copytree(place / "data/feedback", place / left)
    forget(VISITOR)
    assert places_with(place) == []


def test_a_server_goes_on_while_somebody_is_forgotten(forget: Forget, place: Path) -> None:
    with FeedbackStore(place / "feedback") as store:
        store.add(thumb("the one", f"One more {MARK}", "Yes."))
        forget(VISITOR[:8])
        store.add(thumb("another", "And me?", "Yes."))
    assert places_with(place) == []
    assert len(read_records(place / "feedback").records) == len(chatter(9)) + 1


def test_a_remote_that_is_away_is_named_and_reached_by_the_next_call(forget: Forget, place: Path) -> None:
    (place / "remote").rename(place / "elsewhere")
    assert "not in this command's reach: DVC's remote store: there is nothing at" in forget(VISITOR)
    run("dvc", "remote", "add", "-q", "other", "ssh://nobody@127.0.0.1:9/away")
    assert "not reached: DVC's remote other" in forget(VISITOR, status=1)
    run("dvc", "remote", "remove", "-q", "other")
    (place / "elsewhere").rename(place / "remote")
    assert all(path.startswith("remote/") for path in places_with(place))
    forget(VISITOR)
    assert places_with(place) == []


def test_the_dataset_is_written_anew_and_its_history_is_named(
    forget: Forget, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = [path.read_bytes() for path in (place / "feedback").glob("*.jsonl")]
    (others,) = [content for content in contents if not has_it(content)]
    (his,) = [content for content in contents if has_it(content)]
    with feedback_hub(monkeypatch, tmp_path, {"feedback-1.jsonl": others + his, "feedback-2.jsonl": his}) as hub:
        learnt_from(dataset=DATASET)
        assert places_with(tmp_path / "hub")
        shutil.rmtree(place / "feedback")  # another machine's: the number is found in the dataset
        printed = forget(VISITOR[:8], "--dataset", DATASET)
        assert hub.files == {DATASET: {"feedback-1.jsonl": others}}
        assert hub.commits == [["feedback-1.jsonl", "feedback-2.jsonl"]]
        assert "not in this command's reach: the history of owner/feedback" in printed
        assert not places_with(tmp_path / "hub")
        forget(VISITOR, "--dataset", DATASET)
        assert len(hub.commits) == 1
        hub.files.clear()  # it went private: the hub says so to nobody
        assert "did not give owner/feedback" in forget(VISITOR, "--dataset", DATASET, status=1)
    assert places_with(place) == []


@pytest.mark.parametrize(
    ("number", "error"),
    [
        ("12", "give the number that the page shows, or 8 digits of it"),
        ("../../../", "give the number that the page shows"),
        ("0" * 8, "no visitor has a number that begins with 00000000; whole, it is taken as it is"),
    ],
)
def test_a_number_of_nobody_deletes_nothing(forget: Forget, place: Path, number: str, error: str) -> None:
    before = places_with(place)
    assert error in forget(number, status=1)
    assert places_with(place) == before


def test_a_parquet_file_is_searched_by_its_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [f"a {MARK}"]}), tmp_path / "rows.parquet", compression="zstd")
    assert places_with(tmp_path) == ["rows.parquet"]
