"""What docs/security.md promises of the images, looked for in images and containers themselves."""

import gzip
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import docker
import pytest
import yaml
from docker.models.containers import Container
from docker.types import Ulimit
from project import ROOT, project_files

from pipeline import cli
from pipeline.provenance.images import Stream
from pipeline.provenance.sbom import sbom_of_image

SERVICE = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["serve"]
CPU_BUILD = ["--build-arg", "BASE=debian:bookworm-slim", "--build-arg", "TORCH=cpu"]
# Where people keep what is nobody's business, and where it would be no secret: what is copied on purpose.
SECRETS = (
    *(".env", ".env.local", ".netrc", "signing.key", "conf/mine.pem", ".dvc/config.local", "mlflow.db"),
    *("data/raw/private.jsonl", "feedback/said.jsonl", "models/signatures/x.intoto.jsonl", "wheels/pip.conf"),
)
COPIED = {"serve": {"serve/__init__.py"}, "train": {"serve/__init__.py", "README.md"}}
MARK = "hf_" + "planted_"  # in two, since this file is in the train image, too

pytestmark = [pytest.mark.images, pytest.mark.slow, pytest.mark.timeout(2400)]


def planted(engine: docker.DockerClient, image: str) -> set[str]:
    """The names of the planted texts that stand anywhere in an image: in its layers, its history or its settings."""
    found: set[str] = set()
    sent = io.BufferedReader(Stream(engine.images.get(image).save()))
    with tarfile.open(fileobj=sent, mode="r|") as archive:
        for entry in archive:
            content = archive.extractfile(entry)
            if content is not None:
                found |= names_in(content)
    return found


def names_in(content: IO[bytes]) -> set[str]:
    """The names of the planted texts in a layer, packed or not."""
    is_packed = isinstance(content, io.BufferedReader) and content.peek(2)[:2] == b"\x1f\x8b"
    layer = gzip.GzipFile(fileobj=content) if is_packed else content
    found, rest = set[str](), b""
    while chunk := layer.read(1 << 20):
        found |= {name.decode() for name in re.findall(MARK.encode() + rb"<([^>]+)>", rest + chunk)}
        rest = chunk[-200:]  # a text may stand across two of them
    return found


@pytest.fixture(scope="module")
def littered(images: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone as it is here, with secrets lying about in it."""
    folder = tmp_path_factory.mktemp("clone")
    for name in filter(lambda name: (ROOT / name).is_file(), project_files()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "wheels", folder / "wheels")
    for name in (*SECRETS, *COPIED["train"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("a") as file:
            file.write(f"# {MARK}<{name}>\n")
    return folder


@pytest.mark.parametrize("kind", ["serve", "train"])
def test_no_secret_that_lies_in_the_folder_is_in_any_layer(
    engine: docker.DockerClient, littered: Path, buildkit: str, kind: str
) -> None:
    tag = f"tunesmith-prov-{kind}:secrets"
    options = CPU_BUILD if kind == "train" else ["--build-arg", "VARIANTS=few"]
    command = [buildkit, "build", "--file", f"Dockerfile.{kind}", "--tag", tag, *options, "."]
    environment = os.environ | {"DOCKER_BUILDKIT": "1", "HF_TOKEN": f"{MARK}<HF_TOKEN>"}
    done = subprocess.run(command, cwd=littered, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    try:
        assert planted(engine, tag) == COPIED[kind]
    finally:
        engine.images.remove(tag, force=True)


@pytest.fixture(scope="module")
def reciter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, readable for any user."""
    folder = tmp_path_factory.mktemp("models")
    subprocess.run([sys.executable, ROOT / "tests/helpers/tiny_gguf.py", folder], check=True)
    folder.chmod(0o755)
    return folder


@pytest.fixture
def chat(engine: docker.DockerClient, images: None, reciter: Path) -> Iterator[Container]:
    """The serve image under all that compose.yaml limits it by."""
    memory = re.sub(r"\$\{\w+:-(\w+)\}", r"\1", SERVICE["mem_limit"])
    limit = SERVICE["ulimits"]["nofile"]
    container = engine.containers.run(
        "tunesmith-serve:test",
        detach=True,
        user="12345",
        environment={"SERVE_MODEL": "reciter"},
        volumes={str(reciter): {"bind": "/models", "mode": "ro"}},
        ports={"7860/tcp": ("127.0.0.1", None)},
        read_only=SERVICE["read_only"],
        cap_drop=SERVICE["cap_drop"],
        security_opt=SERVICE["security_opt"],
        mem_limit=memory,
        pids_limit=SERVICE["pids_limit"],
        ulimits=[Ulimit(name="nofile", soft=limit, hard=limit)],
    )
    yield container
    container.remove(force=True, v=True)


def asked(container: Container) -> str:
    """What a container says to a question, once it is ready."""
    deadline = time.monotonic() + 180
    while True:
        container.reload()
        assert container.status != "exited", container.logs().decode()
        assert time.monotonic() < deadline, container.logs().decode()
        try:
            url = f"http://127.0.0.1:{container.ports['7860/tcp'][0]['HostPort']}/v1/chat/completions"
            asked = {"model": "reciter", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
            body = json.dumps(asked).encode()
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
                return str(json.load(response)["choices"][0]["message"]["content"])
        except urllib.error.HTTPError as error:
            if error.code != 503:  # until it is ready
                pytest.fail(error.read().decode())
        except (OSError, LookupError):
            time.sleep(1)


def output(container: Container, *command: str) -> str:
    status, text = container.exec_run(list(command))
    assert status == 0, text.decode()
    return text.decode()


def test_the_chat_answers_without_rights_and_within_its_limits(engine: docker.DockerClient, chat: Container) -> None:
    assert asked(chat).strip().startswith("Certainly, here comes")
    status = dict(line.split(":\t", 1) for line in output(chat, "cat", "/proc/1/status").splitlines() if ":\t" in line)
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert status["NoNewPrivs"].strip() == "1"
    if any("seccomp" in option for option in engine.info()["SecurityOptions"]):
        assert status["Seccomp"].strip() == "2"  # filtered, by the engine's own profile
    assert not [option for option in SERVICE["security_opt"] if "seccomp" in option]
    attributes = chat.attrs["HostConfig"]
    assert attributes["PidsLimit"] == SERVICE["pids_limit"]
    assert attributes["Memory"] > 0
    files = re.search(r"^Max open files\s+(\d+)\s+(\d+)", output(chat, "cat", "/proc/1/limits"), re.MULTILINE)
    assert files
    assert {int(number) for number in files.groups()} == {SERVICE["ulimits"]["nofile"]}
    assert chat.exec_run(["touch", "/app/written"]).exit_code != 0


@pytest.fixture
def derived(engine: docker.DockerClient, images: None, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Builds an image on the serve image with a text in it, always of one name."""
    tag = "tunesmith-prov-signed:test"

    def build(text: str) -> str:
        (tmp_path / "text").write_text(text)
        (tmp_path / "Dockerfile").write_text("FROM tunesmith-serve:test\nCOPY text /app/text\n")
        engine.images.build(path=str(tmp_path), tag=tag, rm=True)
        return tag

    yield build
    engine.images.remove(tag, force=True)


def test_an_image_is_signed_and_a_byte_of_it_that_changes_is_told_by_its_layer(
    derived: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"docker:{derived('one')}"
    assert cli.run(["keygen", "mine"]) == 0
    assert cli.run(["verify", name, "--key", "mine.pub"]) == 1
    assert "is unsigned: there is no models/signatures/" in capsys.readouterr().err
    assert cli.run(["sign", name, "--key", "mine.key"]) == 0
    assert cli.run(["verify", name, "--key", "mine.pub"]) == 0
    derived("ond")
    capsys.readouterr()
    assert cli.run(["verify", name, "--key", "mine.pub"]) == 1
    said = capsys.readouterr().err
    assert re.search(r"image has changed: .*; layer \d+ has changed: ", said), said


def test_an_images_bill_has_its_packages_and_its_systems(images: None) -> None:
    bill: dict[str, Any] = json.loads(sbom_of_image("tunesmith-serve:test"))
    purls = {part["purl"].split("@")[0] for part in bill["components"] if "purl" in part}
    assert {"pkg:pypi/llama-cpp-python", "pkg:pypi/uvicorn", "pkg:deb/debian/libgomp1", "pkg:deb/debian/libc6"} <= purls
    assert sbom_of_image("tunesmith-serve:test") == sbom_of_image("tunesmith-serve:test")
