"""The container images, built by `make images` and driven through the Docker SDK; skipped where no engine answers.

The serve image has the llama.cpp that is compiled already: its variants for all processors take ten minutes more, and a
test of their own.
"""

import io
import json
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import httpx
import pytest
import yaml
from docker.models.containers import Container

ROOT = Path(__file__).parents[2]
# As little as shows that each stage works; the pipeline's own tests look at what it learns.
SMALL_RUN = ["model=starter-s", "train.max_steps=4", "data.max_rows=200"]
# Half a minute on two cores, time enough to be stopped in.
LONGER_RUN = [
    "model=starter-s",
    "data.max_rows=200",
    "tracking=none",
    "train.max_steps=40",
    "train.save_steps=1000",
    "train.logging_steps=1",
]

# Bytes of a serve image without models, uncompressed: docs/serving.md says what they are.
LARGEST, LARGEST_API = 400e6, 270e6

pytestmark = [pytest.mark.images, pytest.mark.slow, pytest.mark.timeout(2400)]

Start = Callable[..., Container]


@pytest.fixture
def start_any(engine: docker.DockerClient) -> Iterator[Start]:
    """Starts a container of an image in the background, and removes it after the test."""
    containers = []

    def run(image: str, **options: object) -> Container:
        containers.append(engine.containers.run(image, detach=True, **options))
        return containers[-1]

    yield run
    for container in containers:
        container.remove(force=True, v=True)


@pytest.fixture
def start(start_any: Start, images: None) -> Start:
    """The same of one of the two images, `serve` or `train`."""
    return lambda image, **options: start_any(f"tunesmith-{image}:test", **options)


@pytest.fixture
def workspace(engine: docker.DockerClient, images: None) -> Iterator[dict[str, dict[str, str]]]:
    """A volume for train containers to share; Docker fills it with the image's copy of the project.

    A test asks for it before `start`: it is removed once no container has it any more.
    """
    volume = engine.volumes.create()
    yield {volume.name: {"bind": "/workspace", "mode": "rw"}}
    volume.remove()


@pytest.fixture(scope="session")
def reciter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that recites one sentence, readable for any user."""
    folder = tmp_path_factory.mktemp("models")
    subprocess.run([sys.executable, ROOT / "tests" / "helpers" / "tiny_gguf.py", folder], check=True)
    folder.chmod(0o755)
    return folder


def serving(folder: Path) -> dict[str, object]:
    """Options of a serve container that has a folder of models mounted and a port of its own."""
    return {
        "volumes": {str(folder): {"bind": "/models", "mode": "ro"}},
        "ports": {"7860/tcp": ("127.0.0.1", None)},
    }


def url(container: Container) -> str:
    container.reload()
    return f"http://127.0.0.1:{container.ports['7860/tcp'][0]['HostPort']}"


def wait_for(container: Container, health: str, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while container.health != health:
        assert container.status != "exited", container.logs().decode()
        assert time.monotonic() < deadline, f"{container.health}: {container.logs().decode()}"
        time.sleep(1)
        container.reload()


def output(container: Container, *command: str) -> str:
    status, text = container.exec_run(list(command))
    assert status == 0, text.decode()
    return text.decode()


def wait_for_line(container: Container, pattern: str) -> None:
    """Reads the container's output until a line of it begins with `pattern`."""
    said = b""
    for part in container.logs(stream=True, follow=True):
        said += part
        if re.search(rf"^{pattern}", said.decode(errors="replace"), re.MULTILINE):
            return
    pytest.fail(f"it ended without {pattern}: {said.decode()}")


def answer(container: Container) -> str:
    """What the chat says, asked as a program of a user's would."""
    from gradio_client import Client

    wait_for_line(container, "Tunesmith is on")
    reply = Client(url(container), verbose=False).predict("hello", temperature=0, max_tokens=8, api_name="/chat")
    return reply["content"][0]["text"]


def test_serve_image_answers_a_chat_without_root_and_compiler(start: Start, reciter: Path) -> None:
    container = start("serve", environment={"SERVE_MODEL": "reciter"}, **serving(reciter))
    wait_for(container, "healthy")

    with urllib.request.urlopen(f"{url(container)}/readyz") as response:  # noqa: S310, http to this machine
        assert response.status == 200
    assert answer(container).strip().startswith("Certainly, here comes")
    assert output(container, "id", "-u").strip() == "1000"
    tools = "for tool in cc gcc g++ c++ clang make cmake; do command -v $tool; done; true"
    assert output(container, "sh", "-c", tools) == ""
    output(container, "sh", "-c", "touch ~/written && mkdir -p $HF_HOME")  # as Hugging Face's own libraries do


def size(engine: docker.DockerClient, tag: str) -> int:
    """Bytes of an image less its models."""
    return sum(layer["Size"] for layer in engine.images.get(tag).history() if "gguf" not in layer["CreatedBy"])


def test_serve_image_is_small(engine: docker.DockerClient, images: None) -> None:
    assert size(engine, "tunesmith-serve:test") <= LARGEST


def test_serve_image_has_what_it_runs_and_no_more(start: Start, reciter: Path) -> None:
    container = start("serve", **serving(reciter))
    packages = set(output(container, "sh", "-c", "ls /opt/venv/lib/python3*/site-packages").split())
    assert {"gradio", "llama_cpp", "huggingface_hub"} <= packages
    assert not {"mlflow", "setuptools", "torch", "transformers"} & packages
    assert uncompiled(container, "serve.http.app, serve.page") == "[]"


def uncompiled(container: Container, modules: str) -> str:
    """What of all that an import brings is compiled anew each time."""
    cached = "[m.__cached__ for m in list(sys.modules.values()) if getattr(m, '__cached__', None)]"
    missing = f"print([c for c in {cached} if not pathlib.Path(c).exists()])"
    return output(container, "python", "-c", f"import pathlib, sys, {modules}; {missing}").strip()


def test_the_image_of_the_api_alone_answers_without_what_a_page_brings(
    engine: docker.DockerClient, start_any: Start, serve_api: str, reciter: Path
) -> None:
    container = start_any(serve_api, environment={"SERVE_MODEL": "reciter"}, read_only=True, **serving(reciter))
    wait_for(container, "healthy")
    question = {"model": "reciter", "max_tokens": 8, "messages": [{"role": "user", "content": "hello"}]}
    said = httpx.post(f"{url(container)}/v1/chat/completions", json=question, timeout=60).json()
    assert said["choices"][0]["message"]["content"].strip().startswith("Certainly, here comes")
    assert "Gradio is not installed" in httpx.get(url(container)).text

    packages = set(output(container, "sh", "-c", "ls /opt/venv/lib/python3*/site-packages").split())
    assert {"fastapi", "llama_cpp", "huggingface_hub"} <= packages
    assert not {"gradio", "pandas", "PIL", "setuptools"} & packages
    assert uncompiled(container, "serve.run") == "[]"
    assert size(engine, serve_api) <= LARGEST_API


def test_serve_images_install_nothing_and_raise_nobodys_rights(
    start: Start, start_any: Start, serve_api: str, reciter: Path
) -> None:
    for container in (start("serve", user="0", **serving(reciter)), start_any(serve_api, user="0", **serving(reciter))):
        installers = ["-name", "pip", "-o", "-name", "pip[0-9]*", "-o", "-name", "pip-*", "-o", "-name", "ensurepip"]
        assert output(container, "find", "/", "-xdev", *installers) == ""
        assert output(container, "find", "/", "-xdev", "-type", "f", "-perm", "/6000") == ""


# 12345 has neither a name nor a home, as on OpenShift.
@pytest.mark.parametrize("user", ["1000", "12345", "12345:12345"])
def test_serve_image_runs_locked_down(start: Start, reciter: Path, user: str) -> None:
    limits = {
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "mem_limit": "2g",
        "nano_cpus": 2_000_000_000,
    }
    container = start("serve", user=user, environment={"SERVE_MODEL": "reciter"}, **limits, **serving(reciter))
    assert answer(container).strip().startswith("Certainly, here comes")
    output(container, "sh", "-c", "touch /feedback/written")
    assert container.exec_run(["touch", "/app/written"]).exit_code != 0


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors get one build")
@pytest.mark.long
@pytest.mark.parametrize("variant", ["best", "haswell", "x64"])
def test_serve_image_runs_on_any_x86_64(
    engine: docker.DockerClient, start_any: Start, serve_variants: str, reciter: Path, variant: str
) -> None:
    chosen = {} if variant == "best" else {"TUNESMITH_CPU": variant}
    container = start_any(serve_variants, environment={"SERVE_MODEL": "reciter", **chosen}, **serving(reciter))
    assert answer(container).strip().startswith("Certainly, here comes")

    loaded = set(re.findall(r"libggml-cpu-(\w+)\.so", output(container, "cat", "/proc/1/maps")))
    there = output(container, "sh", "-c", "ls /opt/venv/lib/python3*/site-packages/llama_cpp/lib")
    variants = set(re.findall(r"libggml-cpu-(\w+)\.so", there))
    assert len(loaded) == 1
    assert loaded <= (variants if variant == "best" else {variant})
    assert {"x64", "haswell", "icelake", "zen4"} <= variants
    assert "sapphirerapids" not in variants  # it takes AMX, which virtual machines may only claim to have
    assert size(engine, serve_variants) <= LARGEST


def test_serve_image_stops_when_told(start: Start, reciter: Path) -> None:
    container = start("serve", **serving(reciter))
    wait_for(container, "healthy")
    container.stop(timeout=10)  # Docker's own patience, after which it kills
    assert container.wait()["StatusCode"] == 0


def test_serve_image_without_the_hub_ends_in_one_line(start: Start) -> None:
    environment = {"SERVE_MODELS": "hf://owner/name@v1"}
    container = start("serve", environment=environment, network_mode="none", read_only=True)
    assert container.wait(timeout=180)["StatusCode"] == 1
    (line,) = container.logs().decode().splitlines()
    assert line.startswith("error: hf://owner/name@v1")


@pytest.mark.parametrize("mounted", ["nothing", "a model cut short"])
def test_serve_image_with_a_wrong_mount_ends_in_one_line(
    start: Start, reciter: Path, tmp_path: Path, mounted: str
) -> None:
    tmp_path.chmod(0o755)
    if mounted == "a model cut short":
        (tmp_path / "short.gguf").write_bytes((reciter / "random.gguf").read_bytes()[:5000])
    container = start("serve", **serving(tmp_path))
    assert container.wait(timeout=180)["StatusCode"] == 1
    lines = container.logs().decode().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(
        "error: no *.gguf file in /models" if mounted == "nothing" else "error: /models/short.gguf"
    )


def test_train_image_runs_the_pipeline_and_the_serve_image_its_result(start: Start, tmp_path: Path) -> None:
    trainer = start("train", command=["sleep", "infinity"])
    assert output(trainer, "id", "-u").strip() == "1000"
    overrides = [word for setting in SMALL_RUN for word in ("-S", setting)]
    output(trainer, "dvc", "exp", "run", *overrides)
    assert {"base", "tuned", "gguf"} <= json.loads(output(trainer, "cat", "reports/metrics.json")).keys()

    chunks, _ = trainer.get_archive("/workspace/models/gguf")
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        tar.extractall(tmp_path, filter="data")
    tmp_path.chmod(0o755)
    server = start("serve", **serving(tmp_path))
    wait_for(server, "healthy")
    assert isinstance(answer(server), str)


def test_train_image_works_on_a_mounted_repository_as_its_owner(start: Start, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    clone = ["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(repository)]
    if subprocess.run(clone, capture_output=True).returncode:
        pytest.skip("this copy of the project is no git repository")
    subprocess.run(["chown", "-R", "1234", repository], check=False)  # works for root alone; others own it already
    owner = (repository / "dvc.yaml").stat().st_uid
    volumes = {str(repository): {"bind": "/workspace", "mode": "rw"}}
    container = start("train", command=["sleep", "infinity"], user=str(owner), volumes=volumes, network_mode="none")
    output(container, "dvc", "repro", "compose")
    output(container, "python", "-m", "llama.source")  # the converter is in the image: no network is asked
    assert (repository / "params.yaml").stat().st_uid == owner


def test_train_image_told_to_stop_saves_and_goes_on_from_there(
    workspace: dict[str, dict[str, str]], start: Start
) -> None:
    def run(*command: str) -> Container:
        return start("train", command=list(command), volumes=workspace, network_mode="none")

    def finish(*command: str) -> str:
        container = run(*command)
        status = container.wait(timeout=600)["StatusCode"]
        assert status == 0, container.logs().decode()
        return container.logs().decode()

    def recorded() -> object:
        lock = yaml.safe_load(finish("sh", "-c", "cat dvc.lock 2>/dev/null || true")) or {}
        return lock.get("stages", {}).get("train")

    # No checkpoint but the one that is saved on request.
    finish("tunesmith", "adopt", *LONGER_RUN)
    before = recorded()
    trainer = run("dvc", "repro", "train")
    wait_for_line(trainer, "step [2-9]/")
    trainer.stop(timeout=60)
    trainer.reload()
    state, said = trainer.attrs["State"], trainer.logs().decode()
    assert (state["Status"], state["Pid"]) == ("exited", 0)
    assert state["ExitCode"] == 75, said  # the stage's, where DVC says 255; 137 is Docker's kill
    stopped = re.search(r"^train: SIGINT: resumable at step (\d+)", said, re.MULTILINE)
    assert stopped, said
    assert recorded() == before

    said = finish("dvc", "repro", "train")
    assert re.search(rf"^resuming from \S+/checkpoint-{stopped[1]}$", said, re.MULTILINE)
    assert re.findall(r"^step (\d+)/", said, re.MULTILINE)[0] == str(int(stopped[1]) + 1)
    assert recorded() not in (None, before)


@pytest.mark.parametrize("user", ["12345", "12345:12345"])  # without a name, as on OpenShift
def test_train_image_runs_experiments_as_any_user(start: Start, user: str) -> None:
    container = start("train", command=["sleep", "infinity"], user=user, network_mode="none")
    output(container, "tunesmith", "adopt", "model=starter-s")  # a file of git's, which DVC's experiment then commits
    output(container, "dvc", "exp", "run", "compose")
    assert "adopted model = starter-s" in output(container, "tunesmith", "adopt")
    output(container, "python", "-c", "import getpass, torch._inductor.config; print(getpass.getuser())")


def test_train_image_raises_nobodys_rights(start: Start) -> None:
    container = start("train", command=["sleep", "infinity"], user="0")
    assert output(container, "find", "/", "-xdev", "-type", "f", "-perm", "/6000") == ""


@pytest.mark.parametrize(("image", "base"), [("serve", "python:3.11-slim-bookworm"), ("train", "debian:bookworm-slim")])
def test_images_say_what_they_are_made_of(engine: docker.DockerClient, images: None, image: str, base: str) -> None:
    labels = {
        name.removeprefix("org.opencontainers.image."): value
        for name, value in engine.images.get(f"tunesmith-{image}:test").labels.items()
    }
    known = engine.images.get(base).attrs.get("RepoDigests") or [engine.images.get(base).id]
    assert (labels["title"], labels["licenses"]) == (f"tunesmith-{image}", "Apache-2.0")
    assert (labels["base.name"], labels["base.digest"]) == (base, known[0].rpartition("@")[2])
    assert re.fullmatch(r"[0-9a-f]{40}", labels["revision"])
    assert "source" in labels


@pytest.mark.parametrize(
    ("origin", "source"),
    [
        ("https://me:secret@forge.example/owner/name.git", "https://forge.example/owner/name.git"),
        ("git@forge.example:owner/name.git", "https://forge.example/owner/name.git"),
        ("/home/me/name", ""),
    ],
)
def test_the_label_of_the_source_is_an_address_without_a_secret(tmp_path: Path, origin: str, source: str) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for command in (["init", "-q"], ["remote", "add", "origin", origin]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    command = ["make", "--silent", "--eval", "say: ; @echo $(SOURCE)", "say"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip() == source


@pytest.mark.long
def test_train_image_has_torchrun_for_several_processes(start: Start) -> None:
    container = start("train", command=["sleep", "infinity"], network_mode="none")
    settings = [*SMALL_RUN, "tracking=none", "train.check_export=false"]
    output(container, "tunesmith", "prepare", *settings)
    said = output(container, "torchrun", "--nproc-per-node", "2", "-m", "pipeline.stages.train", *settings)
    assert re.search(r"^step 4/4", said, re.MULTILINE), said
    assert json.loads(output(container, "cat", "reports/train.json"))["processes"] == 2


def test_train_image_brings_no_cuda_libraries_in_its_cpu_build(start: Start) -> None:
    container = start("train", command=["sleep", "infinity"])
    assert "+cpu" in output(container, "python", "-c", "import torch; print(torch.__version__)")
    assert "nvidia" not in output(container, "sh", "-c", "ls /opt/venv/lib/python3*/site-packages")


def test_compose_names_files_and_services_that_are_there() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert services.keys() == {"serve", "train", "mlflow", "postgres"}
    for service in services.values():
        assert (ROOT / service.get("build", {}).get("dockerfile", "Makefile")).is_file()
        assert {*service.get("depends_on", ())} <= services.keys()
    for name in ("serve", "mlflow"):
        assert (services[name]["read_only"], services[name]["cap_drop"]) == (True, ["ALL"])
    assert "ports" not in services["postgres"]
    assert services["mlflow"]["ports"] == ["${MLFLOW_ADDRESS:-127.0.0.1}:5000:5000"]  # it asks nobody who they are
