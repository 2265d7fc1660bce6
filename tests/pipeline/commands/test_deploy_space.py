"""A Space: what its folder holds, what the Hub is asked for, and that it has answered."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from servers import started_server
from space_hub import MODEL_COMMIT, SPACE, SpaceHub, started_space_hub
from tiny_gguf import FAREWELL, write_random, write_scripted

from pipeline import cli
from pipeline.deployment import question, space

TOKEN = "hf_of_the_test"
FILE_PATH = "/{repo_id}/resolve/{revision}/{filename}"
Run = Callable[..., str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that says one sentence."""
    folder = tmp_path_factory.mktemp("models")
    write_scripted(folder / "polite.gguf", [f" {word}".encode() for word in FAREWELL.split()])
    return folder


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server, as it is up in a Space."""
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with started_server(log, "/readyz", models=folder) as (url, _):
        yield url


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: str) -> Iterator[SpaceHub]:
    """A Hub, and the token that opens it."""
    hub = started_space_hub()
    hub.host = server
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.url}{FILE_PATH}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # a protocol with servers of its own
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for module in (space, question):
        monkeypatch.setattr(module, "POLL", 0.01)
    yield hub
    hub.shutdown()
    hub.server_close()


@pytest.fixture(autouse=True)
def model(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model in a working folder of its own, with its card; no token is set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    path = tmp_path / "models/gguf/polite.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes((folder / "polite.gguf").read_bytes())
    (tmp_path / "models/card.json").write_text('{"prompts": ["Hello?"]}')
    return path


@pytest.fixture
def deployed(model: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command, and returns what it says."""

    def run(*arguments: str, name: str = SPACE, of: str = str(model)) -> str:
        capsys.readouterr()
        status = cli.run(["deploy", "space", "--repo", name, "--model", of, *arguments])
        said = capsys.readouterr()
        assert status == 0, said.err
        return said.out

    return run


@pytest.fixture
def refused(model: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """The one line that the command ends with."""

    def line(*arguments: str, name: str = SPACE, of: str = str(model)) -> str:
        capsys.readouterr()
        assert cli.run(["deploy", "space", "--repo", name, "--model", of, *arguments]) == 1
        (said,) = capsys.readouterr().err.splitlines()
        return said.removeprefix("deploy space: ")

    return line


def head(text: str) -> dict[str, Any]:
    """What the Hub reads of a README.md."""
    return yaml.safe_load(text.split("---\n")[1])


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_docker_space_is_what_its_build_copies_and_the_model(deployed: Run, model: Path) -> None:
    said = deployed("--sdk", "docker", "--dry-run")
    folder = Path("deploy/tiny")
    names = files_of(folder)
    beside = {name for name in names if name.partition("/")[0] not in ("common", "llama", "serve")}
    assert beside - {"scripts/slim_venv.sh"} == {
        *(".dockerignore", ".gitattributes", "Dockerfile", "LICENSE", "NOTICE", "README.md"),
        *(
            "constraints.txt",
            "hashes.txt",
            "manifest.json",
            "models/card.json",
            "models/gguf/polite.gguf",
            "pyproject.toml",
            "scripts/setup.py",
        ),
    }
    assert {"serve/__main__.py", "serve/page/page.js", "llama/source.py", "common/files.py"} <= names
    assert not [name for name in names if "__pycache__" in name]
    assert 'ENV SERVE_PROXY="1"' in (folder / "Dockerfile").read_text().splitlines()
    assert head((folder / "README.md").read_text()) == {
        "title": "tiny", "emoji": "💬", "sdk": "docker", "app_port": 7860
    }  # fmt: skip
    assert (folder / "models/gguf/polite.gguf").samefile(model)  # no second copy of what may be gigabytes
    assert "HF_TOKEN is not set" in said
    assert "forgot" not in said
    assert f"folder    deploy/tiny: {len(names) - 1} files" in said


def test_a_gradio_space_installs_the_locked_packages_and_runs_the_same_server(deployed: Run) -> None:
    deployed("--sdk", "gradio", "--dry-run", "--out", "space")
    folder = Path("space")
    named = head((folder / "README.md").read_text())
    requirements = (folder / "requirements.txt").read_text().split()
    assert (named["sdk"], named["python_version"], named["app_file"]) == ("gradio", "3.12", "app.py")
    assert f"gradio=={named['sdk_version']}" in requirements
    assert {line.partition("==")[0] for line in requirements} >= {"fastapi", "huggingface-hub", "llguidance", "uvicorn"}
    assert [line for line in requirements if line not in (folder / "constraints.txt").read_text().split()] == [
        "pydantic<=2.12.5,>=2.11.10"  # gradio[mcp]'s, with which a Space installs them
    ]
    assert not {"torch", "llama-cpp-python"} & {line.partition("==")[0] for line in requirements}
    assert json.loads((folder / "settings.json").read_text()) == {
        "SERVE_PROXY": "1",
        "SERVE_HOST": "0.0.0.0",  # noqa: S104 - what a Space shows
        "SERVE_PORT": "7860",
    }
    assert "serve/__main__.py" in files_of(folder)
    assert "Dockerfile" not in files_of(folder)


def test_the_plan_comes_first_and_one_commit_brings_it_all(hub: SpaceHub, deployed: Run, model: Path) -> None:
    said = deployed()
    assert said.splitlines()[:5] == [
        f"Space     {SPACE}, Docker Space on CPU basic, new, private: for those with access alone",
        "account   owner, a PRO account: a Docker Space, 10 ZeroGPU Gradio Spaces; it has 0 (by the Hub's "
        "documentation of 2026-07-21)",
        f"model     polite.gguf, {model.stat().st_size / 1e6:.1f} MB, uploaded",
        "feedback  gone when the Space restarts; --feedback keeps it",
        "secrets   none",
    ]
    assert (hub.made["sdk"], hub.made["visibility"], hub.made.get("hardware")) == ("docker", "private", None)
    assert hub.commits == ["polite.gguf"]
    assert set(hub.contents) == files_of(Path("deploy/tiny"))
    assert hub.contents["models/gguf/polite.gguf"] == model.read_bytes()
    assert f"{SPACE}: building\n{SPACE}: app starting\n{SPACE}: running\n" in said
    assert f"answer    {FAREWELL}" in said


def test_what_differs_alone_is_sent_and_what_went_before_is_taken_away(
    hub: SpaceHub, deployed: Run, model: Path
) -> None:
    deployed()
    assert "nothing differs" in deployed()
    assert len(hub.commits) == 1
    sent = len(hub.sent)
    hub.contents["picture.png"] = b"somebody's own"
    other = write_random(model.with_name("other.gguf"))
    deployed(of=str(other))
    assert len(hub.sent) == sent + 1
    assert {"models/gguf/other.gguf", "picture.png"} <= set(hub.contents)
    assert "models/gguf/polite.gguf" not in hub.contents


def test_a_space_that_holds_something_else_is_left_alone(hub: SpaceHub, deployed: Run, refused: Run) -> None:
    hub.made = {"sdk": "docker"}
    hub.make(private=True, contents={"game.py": b"print()"})
    assert refused().startswith(f"{SPACE} holds something else (game.py); name another, or add --force")
    assert refused("--sdk", "gradio").startswith(f"{SPACE} is a Docker Space on CPU basic; leave --sdk out")
    deployed("--force")
    assert {"game.py", "Dockerfile"} <= set(hub.contents)


def test_a_model_of_the_hub_is_named_at_its_commit_and_not_sent(hub: SpaceHub, deployed: Run) -> None:
    said = deployed(of="hf://owner/model@v1/*Q8_0.gguf")
    assert f"model     owner/model at {MODEL_COMMIT[:12]}, 5.0 MB, fetched by the Space at each start" in said
    assert not hub.sent
    settings = f'ENV SERVE_MODELS="hf://owner/model@{MODEL_COMMIT}/*Q8_0.gguf"'
    assert settings in hub.contents["Dockerfile"].decode().splitlines()
    assert head(hub.contents["README.md"].decode())["models"] == ["owner/model"]


def test_a_free_account_gets_a_gradio_space_on_zerogpu(hub: SpaceHub, deployed: Run, refused: Run) -> None:
    hub.user["isPro"] = False
    assert refused("--sdk", "docker") == (
        "owner, a free account, may make no Docker Space on CPU basic: no Docker Space (PRO, Team and Enterprise may), "
        "2 ZeroGPU Gradio Spaces, with a verified address and 30 days old; it has 0 (by the Hub's documentation of "
        "2026-07-21); --sdk gradio makes a ZeroGPU Gradio Space"
    )
    assert hub.private is None
    said = deployed()
    assert (hub.made["sdk"], hub.made["hardware"]) == ("gradio", "zero-a10g")
    assert "app.py" in hub.contents
    assert "never asks for a GPU" in said


def test_an_account_that_may_make_neither_is_told_so(hub: SpaceHub, refused: Run) -> None:
    hub.user["isPro"] = False
    zero = {"stage": "RUNNING", "hardware": {"current": "zero-a10g", "requested": "zero-a10g"}}
    hub.others = [{"id": f"owner/{name}", "runtime": zero} for name in ("one", "two")]
    assert "may make neither kind of Space: no Docker Space" in refused()
    assert hub.private is None


def test_the_token_must_be_the_owners_and_may_write(hub: SpaceHub, refused: Run, deployed: Run) -> None:
    assert refused(name="other/tiny").startswith("HF_TOKEN is owner's, who is not other and in no organization")
    hub.user |= {"orgs": [{"name": "owner"}], "name": "somebody"}
    assert "owner, an organization with a Team or Enterprise plan: a Docker Space" in deployed()
    hub.user["auth"] = {"accessToken": {"role": "read"}}
    assert refused().startswith("HF_TOKEN may only read")


def test_nothing_becomes_public_unasked(hub: SpaceHub, deployed: Run, refused: Run) -> None:
    assert refused("--public").endswith("Nobody is here to say so; add --yes")
    assert hub.private is None
    deployed("--public", "--yes")
    assert hub.private is False
    assert refused().startswith(f"{SPACE} is public; add --public")


def test_secrets_go_by_name_and_their_values_nowhere_else(
    hub: SpaceHub, deployed: Run, refused: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPACE_TOKEN", "hf_secret")
    given = ("--feedback", "owner/said", "--secret", "HF_TOKEN=SPACE_TOKEN")
    said = deployed(*given)
    assert hub.secrets == {"HF_TOKEN": "hf_secret"}
    assert "secrets   HF_TOKEN (of SPACE_TOKEN)" in said
    assert 'ENV SERVE_FEEDBACK_REPO="owner/said"' in hub.contents["Dockerfile"].decode()
    assert not [name for name, content in hub.contents.items() if b"hf_secret" in content or TOKEN.encode() in content]
    assert "hf_secret" not in said
    assert refused("--feedback", "owner/said").startswith("a Space keeps feedback in owner/said with a token")
    assert refused("--secret", "HF_TOKEN=hf_se.cret").startswith("--secret wants names alone")
    assert refused("--secret", "SERVE_LOGIN").endswith("the variable that has its value is not set here; export it")
    hub.datasets["owner/said"] = False
    assert refused(*given).startswith("owner/said is public, and so would be what visitors say")


def test_an_upload_that_breaks_off_leaves_nothing_and_is_gone_on_with(
    hub: SpaceHub, deployed: Run, refused: Run
) -> None:
    hub.refuses = lambda _: True
    assert refused().startswith(f"{SPACE} did not get it all and is as it was (HTTP 400: not taken)")
    assert not hub.commits
    hub.refuses = lambda _: False
    deployed()
    assert len(hub.commits) == 1


@pytest.mark.parametrize(
    ("end", "status", "line"),
    [
        ("/api/repos/create", 402, f"the Hub makes {SPACE} for a paid plan alone (HTTP 402: subscribe to PRO)"),
        ("/commit/main", 429, "the Hub asks to wait (HTTP 429: subscribe to PRO); the same command goes on"),
        ("/api/whoami-v2", 401, f"the Hub refuses {SPACE} (HTTP 401"),
        (f"/{SPACE}/secrets", 403, f"the Hub refuses {SPACE} (HTTP 403: subscribe to PRO)"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    hub: SpaceHub, refused: Run, monkeypatch: pytest.MonkeyPatch, end: str, status: int, line: str
) -> None:
    monkeypatch.setenv("SERVE_API_KEY", "secret")
    hub.refusals[end] = (status, "subscribe to PRO")
    assert refused("--secret", "SERVE_API_KEY").startswith(line)
    assert not hub.commits


def test_a_build_that_fails_shows_its_last_words(
    hub: SpaceHub, deployed: Run, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.stages = ["RUNTIME_ERROR", "BUILDING", "BUILD_ERROR"]  # the first is still the commit's before
    assert cli.run(["deploy", "space", "--repo", SPACE, "--model", str(model)]) == 1
    said = capsys.readouterr()
    assert said.out.endswith("one\ntwo\nerror: no space left on device\n")
    assert said.err == f"deploy space: {SPACE} does not come up (BUILD_ERROR): its page has the log, and restarts it\n"


def test_a_space_that_needs_another_key_is_waited_for_and_not_asked(
    hub: SpaceHub, deployed: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVE_LOGIN", "user:password")
    assert "ready     and not asked: with SERVE_LOGIN its API is closed" in deployed("--secret", "SERVE_LOGIN")


def test_what_is_here_is_looked_at_before_the_hub_is(
    hub: SpaceHub, refused: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refused(name="tiny").startswith("the repository must be named OWNER/NAME")
    assert refused(of="missing.gguf").startswith("missing.gguf is no file here")
    (tmp_path / "cut.gguf").write_bytes(model.read_bytes()[:5000])
    assert refused(of="cut.gguf").startswith("cut.gguf")
    assert not hub.requests
    (tmp_path / "mine").mkdir()
    assert refused("--dry-run", "--out", "mine").startswith("mine is there, and tunesmith deploy space has not written")
    monkeypatch.delenv("HF_TOKEN")
    assert refused().startswith("HF_TOKEN is not set")
    assert refused("--dry-run").endswith("name --sdk docker or gradio")
