"""What of the disk a container sees: all that a stage needs, where it is, and nothing that hides the image."""

import subprocess
from pathlib import Path

import pytest

from common.errors import UserError
from pipeline.containers.mounts import outermost, places
from pipeline.core.composition import compose
from pipeline.core.config import Config, load

REPO = Path(__file__).parents[3]


def config(*overrides: str) -> Config:
    return load(compose(REPO / "conf", list(overrides)))


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository as DVC's working folder, with caches of its own."""
    folder = tmp_path / "repository"
    (folder / "inputs").mkdir(parents=True)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("pipeline.containers.mounts.HUB", {"HF_HOME": str(tmp_path / "hub")})
    return folder


def test_all_in_the_repository_is_one_place(repository: Path, tmp_path: Path) -> None:
    assert places(config(), Path.cwd()) == [tmp_path / "hub", repository]
    assert (repository / ".checkpoints").is_dir()  # of the caller's, before an engine could make it


def test_what_stands_elsewhere_is_a_place_of_its_own(repository: Path, tmp_path: Path) -> None:
    for name in ("model", "data", "runs", "disk"):
        (tmp_path / name).mkdir()
    (tmp_path / "data/chats.jsonl").write_text("{}")
    (repository / "inputs/model").symlink_to(tmp_path / "model")
    (repository / "models").symlink_to(tmp_path / "disk")
    settings = config(
        f"data.files=[{tmp_path}/data/chats.jsonl]",
        f"tracking.uri=sqlite:///{tmp_path}/runs/mlflow.db",
        f"runtime.checkpoint_root={tmp_path}/checkpoints",
    )
    found = places(settings, Path.cwd())
    assert {path.relative_to(tmp_path).as_posix() for path in found} == {
        "repository", "hub", "model", "data/chats.jsonl", "runs", "disk", "checkpoints"
    }  # fmt: skip


def test_a_worktree_brings_its_history(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=b"]
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    subprocess.run([*git, "worktree", "add", "-q", str(tmp_path / "tree")], check=True)
    monkeypatch.chdir(tmp_path / "tree")
    assert repository / ".git" in places(config(), Path.cwd())


def test_what_would_hide_the_image_is_refused(repository: Path) -> None:
    with pytest.raises(UserError, match=r"^/usr would hide /usr/bin of the image from a stage"):
        places(config("data.files=[/usr]"), Path.cwd())


def test_of_places_within_one_another_the_outermost_is_enough() -> None:
    paths = [Path(name) for name in ("/a/b", "/a", "/ab", "/a/b/c", "/ab")]
    assert outermost(paths) == [Path("/a"), Path("/ab")]
