"""How a turn of the loop begins, and is gone on with; tests/chaos/test_turn_chaos.py takes whole ones under DVC."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
import yaml
from evaluated import evaluation, write_model
from feedback_hub import DATASET, feedback_hub
from learnt_from import BASE
from mlflow import MlflowClient
from mounts import may_mount, on_small_disk
from said import chatter, keep

from common.errors import UserError
from common.files import sha256
from pipeline import cli
from pipeline.commands import turn
from pipeline.core.records import Lineage
from pipeline.learning.forgotten import Forgotten, Traces
from pipeline.learning.turn import Turn, alone
from serve.feedback import visitor_of

REPO = Path(__file__).parents[3]
STATE = Path("data/turn/turn.json")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with conf/ and feedback, and no MLflow yet."""
    for name in ("conf", "starter", "general"):
        (tmp_path / name).symlink_to(REPO / name)
    keep(tmp_path / "feedback", *chatter(8))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    yield tmp_path
    mlflow.set_tracking_uri(None)


def interrupted(*overrides: str) -> Turn:
    """A turn whose `dvc repro` fails, as it is then under way."""
    with pytest.raises(UserError, match="`dvc repro` ended with status 5, see above; the same command goes on"):
        turn.run(overrides, lambda arguments: 5)
    return Turn.read(STATE)


def adapter(fingerprint: str, *ancestors: str, folder: Path = Path("models/adapter")) -> None:
    """The adapter of a training."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_model.safetensors").write_text(fingerprint)
    lineage = Lineage(fingerprint=fingerprint, mlflow_run=None, base=BASE, ancestors=ancestors)
    lineage.write(folder / "lineage.json")


def promoted(*trainings: str) -> None:
    """Versions of the registry, each gone on from those before; the last one is the champion."""
    client = MlflowClient(f"sqlite:///{Path('mlflow.db').absolute()}")
    client.create_registered_model("tunesmith")
    for at, name in enumerate(trainings):
        kept = Path("mlartifacts", name).absolute()
        adapter(name, *trainings[:at][::-1], folder=kept / "adapter")
        tags = {"adapter_digest": sha256(kept / "adapter"), "sha256": name} | ({"previous": str(at)} if at else {})
        version = client.create_model_version("tunesmith", kept.as_uri(), tags=tags)
        client.set_registered_model_alias("tunesmith", "champion", str(version.version))


def test_what_is_said_after_the_beginning_is_the_next_turns(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = interrupted()
    assert first.arguments == ["experiment=turn"]
    assert (first.pairs, first.labels, first.start, first.before) == (16, 16, "base", None)
    keep(place / "feedback", *chatter(12, each=3))
    assert interrupted() == first
    assert (
        f"on with the turn that began at {first.began}: 16 pairs and 16 labels of feedback" in capsys.readouterr().out
    )
    other = interrupted("train.lr=1e-4")
    assert "since it was begun with other settings: a new one begins" in capsys.readouterr().out
    assert other.pairs > first.pairs
    no_feedback()
    assert cli.run(["turn", "train.lr=1e-3"]) == 3
    assert not (place / "inputs/feedback").is_symlink()  # to what is there no more, which would end DVC


def test_stages_are_told_what_the_turn_began_with(place: Path) -> None:
    write_model(place, evaluation("starter-s", {"Q8_0": {"bytes": 100}}, fingerprint="ab" * 8))
    adapter("ab" * 8)
    interrupted("model=starter-s")
    params = yaml.safe_load((place / "params.yaml").read_text())
    assert params["learn"]["folder"] == "data/turn/records"
    assert params["train"]["start_adapter"] == "models/champion"
    assert (params["train"]["lr"], params["train"]["preference"]["loss"]) == (5e-4, "dpo")
    assert (place / "inputs/start_adapter/adapter_model.safetensors").read_text() == "ab" * 8
    assert len(list((place / "inputs/feedback").glob("feedback-*.jsonl"))) == 1
    adapter("cd" * 8)  # what the turn has trained
    assert interrupted("model=starter-s").start == "adapter"
    assert (place / "models/champion/adapter_model.safetensors").read_text() == "ab" * 8


def test_records_that_somebody_takes_out_are_learnt_no_more(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = interrupted()
    assert cli.run(["feedback", "forget", "--visitor", visitor_of("v1")]) == 0
    second = interrupted()
    assert "since what it began with has changed: a new one begins" in capsys.readouterr().out
    assert second.pairs == first.pairs - 2


@pytest.mark.parametrize(
    ("forgotten", "start", "printed"),
    [
        ("nobody", "champion", ()),
        ("third", "earlier", (3,)),
        ("second", "earlier", (3, 2)),
        ("first", "base", (3, 2, 1)),
    ],
)
def test_what_has_learnt_what_is_forgotten_is_not_gone_on_from(
    place: Path, capsys: pytest.CaptureFixture[str], forgotten: str, start: str, printed: tuple[int, ...]
) -> None:
    promoted("first", "second", "third")
    Forgotten().remember(place, "somebody", Traces(fingerprints=(forgotten,)))
    begun = interrupted()
    assert begun.start == start
    told = [line for line in capsys.readouterr().out.splitlines() if "has learnt what is forgotten" in line]
    assert [line.partition(" of ")[0] for line in told] == [f"version {number}" for number in printed]
    if start == "base":
        assert not Path("models/champion").exists()
    else:
        name = ("first", "second", "third")[2 - len(printed)]
        assert Lineage.read(Path("models/champion/lineage.json")).fingerprint == name


def test_an_adapter_that_has_learnt_what_is_forgotten_begins_no_turn(place: Path) -> None:
    adapter("own", "before")
    Forgotten().remember(place, "somebody", Traces(fingerprints=("before",)))
    assert interrupted().start == "base"


def test_a_line_that_is_being_written_is_the_next_turns(place: Path) -> None:
    (path,) = (place / "feedback").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:100])
    interrupted()
    assert (place / "data/turn/records" / path.name).read_bytes() == whole


def other_schema() -> None:
    (path,) = Path("feedback").iterdir()
    path.write_text("".join(json.dumps(json.loads(line) | {"schema": 3}) + "\n" for line in path.open()))


def no_feedback() -> None:
    for path in Path("feedback").iterdir():
        path.unlink()


def other_adapter() -> None:
    write_model(Path(), evaluation("starter-s", {"Q8_0": {"bytes": 100}}))
    adapter("ab" * 8)


@pytest.mark.parametrize(
    ("harm", "overrides", "status", "line"),
    [
        (other_schema, [], 3, "nothing is left to learn of 32 records: 32 of another schema"),
        (no_feedback, [], 3, "no feedback-*.jsonl in feedback"),
        (None, ["learn.folder=null"], 3, "learn.folder and learn.dataset are null"),
        (None, ["learn.folder=nowhere"], 3, "no feedback-*.jsonl in nowhere"),
        (None, ["train.start_adapter=models/mine"], 1, "a turn goes on from the champion"),
        (None, ["tracking=none"], 1, "there is no MLflow yet whose registry a champion could be in"),
        (
            None,
            ["data.sources.taught.files=[gone.jsonl]"],
            1,
            "data.sources.taught.files names gone.jsonl, which is no",
        ),
        (None, ["learn.held=1"], 1, "held"),
        (other_adapter, [], 1, "reports/evaluation.json is not of models/adapter"),
    ],
)
def test_what_cannot_be_ends_in_one_line_and_leaves_no_copy_of_what_was_said(
    place: Path, capsys: pytest.CaptureFixture[str],
    harm: Callable[[], None] | None, overrides: list[str], status: int, line: str,
) -> None:  # fmt: skip
    if harm:
        harm()
    assert cli.run(["turn", *overrides]) == status
    said = capsys.readouterr().err
    assert line in said
    assert said.startswith("turn: ")
    assert said.count("\n") == 1
    assert not list(place.glob("data/turn/*.json")) + list(place.glob("data/turn/records"))


def test_a_dataset_that_went_private_is_said_in_one_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = (place / "feedback").iterdir()
    with feedback_hub(monkeypatch, place, {path.name: path.read_bytes()}) as hub:
        first = interrupted("learn.folder=null", f"learn.dataset={DATASET}")
        assert first.source.startswith(f"{DATASET}@")
        hub.files.clear()
        assert interrupted("learn.folder=null", f"learn.dataset={DATASET}") == first  # it has what it began with
        assert cli.run(["turn", "learn.folder=null", f"learn.dataset={DATASET}", "train.seed=1"]) == 1
    said = capsys.readouterr().err
    assert "for a private or gated dataset set HF_TOKEN" in said
    assert said.count("\n") == 1


def test_a_second_process_waits_for_the_first(place: Path) -> None:
    with alone(), pytest.raises(UserError, match="another process takes a turn here"):
        turn.run([], lambda arguments: 0)


@pytest.mark.skipif(not may_mount(), reason="may not mount")
def test_a_full_disk_is_said_and_the_same_command_goes_on(place: Path) -> None:
    (place / "data").mkdir()
    ended = on_small_disk("data", "16k", f"{sys.executable} -m pipeline turn; echo status $?; ls data/turn")
    assert ended.stdout == "status 1\nlock\n"
    said = "cannot write data/turn/records: No space left on device; make room or grant access there, then run again"
    assert ended.stderr == f"turn: {said}\n"
    assert interrupted().pairs == 16


def test_the_stages_are_those_of_dvc() -> None:
    stages = yaml.safe_load((REPO / "dvc.yaml").read_text())["stages"]
    assert ["compose", *turn.STAGES] == list(stages)
