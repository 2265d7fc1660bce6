"""What a configuration names, as links under inputs/: which, to where, and what is refused."""

import re
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from pipeline.core.composition import compose
from pipeline.core.config import Config, load
from pipeline.core.inputs import link_inputs, named

REPO = Path(__file__).parents[3]
GENERAL = ("general/texts.jsonl", "general/instructions.jsonl")  # what conf/evaluate names
STARTERS = ("starter/general/statements.jsonl", "starter/general/transcripts.jsonl")  # and the starter's recipe


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all kinds of inputs; the working folder, `repository`, is beside it."""
    for name in ("chats.jsonl", "questions.jsonl", "template.jinja", "task.yaml", "set/a.jsonl", "other/b.jsonl"):
        (tmp_path / "outside" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "outside" / name).write_text(name)
    for name in (*GENERAL, *STARTERS):
        (tmp_path / "repository" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "repository" / name).write_text(name)
    (tmp_path / "repository/data/raw").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "repository")
    return tmp_path / "outside"


def config(*overrides: str) -> Config:
    return load(compose(REPO / "conf", ["data.questions=null", *overrides]))


def linked(*overrides: str) -> dict[str, Any]:
    """What `all_linked` gives, but for general texts, which each configuration has."""
    return {name: path for name, path in all_linked(*overrides).items() if not name.startswith("general/")}


def all_linked(*overrides: str) -> dict[str, Any]:
    """What inputs/ has that is in use, by name: where a link leads, or what a folder of links has."""
    link_inputs(named(config(*overrides)))
    found = {path.relative_to("inputs"): path for path in sorted(Path("inputs").rglob("*")) if path.is_symlink()}
    return {str(name): str(path.readlink()) for name, path in found.items()}


def refused(*overrides: str) -> str:
    with pytest.raises(UserError) as raised:
        named(config(*overrides))
    return str(raised.value)


def test_all_that_is_named_is_linked_wherever_it_stands(outside: Path) -> None:
    found = linked(
        f"model.path={outside}/set",
        "model.merge_path=../outside/other",
        f"model.chat_template={outside}/template.jinja",
        f"data.files=[{outside}/chats.jsonl,data/raw/**/*,../outside/set/*.jsonl]",
        "data.questions=../outside/questions.jsonl",
        f"evaluate.tasks=[arc_easy,{outside}/task.yaml]",
        "data.clean.tokenizer=${model.path}",
    )
    assert found == {
        "tokenizer": f"{outside}/set",
        "chat_template": f"{outside}/template.jinja",
        "data_files/0-chats.jsonl": f"{outside}/chats.jsonl",
        "data_folder_1": "../../outside/set",
        "data_folder_2": "../data/raw",
        "merge_model": "../../outside/other",
        "model": f"{outside}/set",
        "questions": "../../outside/questions.jsonl",
        "tasks/0-task.yaml": f"{outside}/task.yaml",
    }
    assert (Path("inputs") / "questions").read_text() == "questions.jsonl"
    assert Path("inputs/data_folder_3").read_text() == "The configuration names nothing here.\n"


def test_several_files_of_questions_and_votes_of_visitors_are_watched(outside: Path) -> None:
    found = linked(
        "data.files=[data/raw/*]",
        f"data.questions=[../outside/questions.jsonl,{outside}/chats.jsonl]",
        f"evaluate.judge.votes={outside}/set",
        "model=llama-3.2-1b",
    )
    assert found == {
        "data_folder_1": "../data/raw",
        "questions/0-questions.jsonl": "../../../outside/questions.jsonl",
        "questions/1-chats.jsonl": f"{outside}/chats.jsonl",
        "votes": f"{outside}/set",
    }
    said = refused("data.files=[data/raw/*]", "evaluate.judge.votes=nowhere")
    assert "evaluate.judge.votes names nowhere, which is no file or folder here" in said


def test_general_texts_are_watched_under_the_names_of_their_files(outside: Path) -> None:
    more = f"+evaluate.general.ours.files=[{outside}/chats.jsonl]"
    found = named(config("data=alpaca", "evaluate.general.statements=null", more))
    assert found["general"] == [Path(STARTERS[1]), outside / "chats.jsonl"]
    assert "evaluate.general.ours.files names notes/*.jsonl, which is no file here" in refused(
        "data=alpaca", "+evaluate.general.ours.files=[notes/*.jsonl]"
    )
    own = named(config("data=alpaca", "model=llama-3.2-1b", "model.chat_template=null"))
    assert own["general"] == [Path(name) for name in GENERAL]


def test_files_of_own_splits_are_watched_as_those_to_train_on(outside: Path) -> None:
    found = linked(
        f"data.files=[{outside}/chats.jsonl]",
        f"data.validation_files=[{outside}/questions.jsonl]",
        f"data.test_files=[{outside}/set/*]",
        "model=llama-3.2-1b",
    )
    assert found == {
        "data_files/0-chats.jsonl": f"{outside}/chats.jsonl",
        "data_files/1-questions.jsonl": f"{outside}/questions.jsonl",
        "data_folder_1": f"{outside}/set",
    }
    assert refused(f"data.files=[{outside}/chats.jsonl]", f"data.test_files=[{outside}/no.jsonl]").startswith(
        "data.test_files names "
    )


def test_files_of_each_source_are_watched_under_its_key(outside: Path) -> None:
    own = f"own: {{files: [{outside}/chats.jsonl, {outside}/set/*], test_files: [{outside}/questions.jsonl]}}"
    sources = f"data.sources={{{own}, other: {{files: [{outside}/other/*]}}, hub: {{path: owner/chats}}}}"
    assert linked("data.files=[]", sources, "model=llama-3.2-1b") == {
        "data_files/0-chats.jsonl": f"{outside}/chats.jsonl",
        "data_files/1-questions.jsonl": f"{outside}/questions.jsonl",
        "data_folder_1": f"{outside}/other",
        "data_folder_2": f"{outside}/set",
    }
    assert refused("data.files=[]", "data.sources={own: {files: [nowhere.jsonl]}}").startswith(
        "data.sources.own.files names nowhere.jsonl, which is no file here"
    )
    assert refused("data.files=[]", "data.sources={own: {files: [data/*.jsonl]}}").startswith(
        "data.sources.own.files has a pattern that begins in data, below which prepare writes"
    )


def test_what_a_task_includes_is_watched_too(outside: Path) -> None:
    (outside / "task.yaml").write_text("include: set/base.yaml")
    (outside / "set/base.yaml").write_text("task: mine")
    found = linked("data=alpaca", f"evaluate.tasks=[{outside}/task.yaml]")
    assert found["tasks/0-task.yaml"] == f"{outside}/task.yaml"
    assert found["tasks/1-base.yaml"] == f"{outside}/set/base.yaml"
    (outside / "set/base.yaml").unlink()
    assert "names include: " in refused("data=alpaca", f"evaluate.tasks=[{outside}/task.yaml]")


def test_feedback_is_watched_and_what_becomes_of_it_need_not_be_there_yet(outside: Path) -> None:
    found = linked("learn.folder=../outside/set", "data.files=[data/feedback/pairs/*.jsonl]", "model=llama-3.2-1b")
    assert found == {"feedback": "../../outside/set"}
    assert refused("learn.folder=gone") == "learn.folder names gone, which is no folder here"


def test_what_is_named_no_more_is_linked_no_more(outside: Path) -> None:
    linked(f"data.files=[{outside}/chats.jsonl]", f"model.path={outside}/set", f"evaluate.tasks=[{outside}/task.yaml]")
    assert linked("data=alpaca", "model=llama-3.2-1b", "model.chat_template=null") == {}
    assert sorted(path.name for path in Path("inputs").iterdir()) == [
        "chat_template", "data_files", *(f"data_folder_{number}" for number in range(1, 7)), "feedback", "general",
        "merge_model", "model", "questions", "start_adapter", "tasks", "tokenizer", "votes",
    ]  # fmt: skip
    assert [path.name for path in Path("inputs/tasks").iterdir()] == ["unused"]


def test_dvc_yaml_lists_each_name_and_no_other(outside: Path) -> None:
    listed = set(re.findall(r"- inputs/(\w+)", (REPO / "dvc.yaml").read_text()))
    assert listed == set(named(config("data=alpaca", "model=llama-3.2-1b", "model.chat_template=null")))


def test_the_links_in_git_are_those_of_params_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("starter", "pipeline"):
        (tmp_path / name).symlink_to(REPO / name)
    monkeypatch.chdir(tmp_path)
    assert all_linked("data.questions=starter/questions.jsonl") == {
        str(path.relative_to(REPO / "inputs")): str(path.readlink())
        for path in sorted((REPO / "inputs").rglob("*"))
        if path.is_symlink()
    }


def test_linked_folders_below_a_watched_one_are_watched_too_and_inner_ones_once(outside: Path) -> None:
    Path("data/raw/mine").symlink_to(outside / "set")
    Path("data/raw/own").mkdir()
    found = linked("data.files=[data/raw/**/*.jsonl,data/raw/own/*.jsonl]")
    assert {name: target for name, target in found.items() if "folder" in name} == {
        "data_folder_1": "../data/raw",
        "data_folder_2": "../data/raw/mine",
    }


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.files=[nowhere.jsonl]", "data.files names nowhere.jsonl, which is no file here"),
        ("data.files=[nowhere/*]", "data.files names nowhere, which is no folder here"),
        ("data.questions=/nowhere", "data.questions names /nowhere, which is no file here"),
        ("model.path=./nowhere", "model.path names ./nowhere, which is no folder here"),
        (
            "model.chat_template=../nowhere",
            "model.chat_template names ../nowhere, which is no file here; a path out of",
        ),
        ("evaluate.tasks=[../mine.yaml]", "evaluate.tasks names ../mine.yaml, which is no file here; a path out of"),
        ("evaluate.tasks=[mine.yaml]", "evaluate.tasks names mine.yaml, which is no file here"),
        ("data.files=[data/**/*.jsonl]", "data.files has a pattern that begins in data, below which prepare writes"),
    ],
)
def test_what_is_not_there_or_cannot_be_watched_is_refused(outside: Path, override: str, said: str) -> None:
    settings = [override] if override.startswith("data.files") else ["data=alpaca", override]
    assert refused(*settings).startswith(said)


def test_more_folders_than_dvc_yaml_lists_are_refused(outside: Path) -> None:
    names = [f"{outside}/{number}" for number in range(7)]
    for name in names:
        Path(name).mkdir()
    said = refused(f"data.files=[{','.join(f'{name}/*.jsonl' for name in names)}]")
    assert said == f"data.files reaches into 7 folders ({', '.join(names)}), and DVC watches 6; name files"


def test_a_file_of_the_users_among_the_links_is_not_removed(outside: Path) -> None:
    linked(f"data.files=[{outside}/chats.jsonl]")
    Path("inputs/data_files/mine.jsonl").write_text("mine")
    with pytest.raises(UserError, match=r"^inputs/data_files/mine\.jsonl is no link that compose made; move it away$"):
        linked(f"data.files=[{outside}/chats.jsonl]")
    assert Path("inputs/data_files/mine.jsonl").read_text() == "mine"
