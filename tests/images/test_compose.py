"""compose.yaml as it stands, run by Docker Compose: PostgreSQL, MLflow over it, training, a server of the champion.

PostgreSQL comes from Debian's packages here, since its own image may be out of reach.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import httpx
import pytest
from project import ROOT
from servers import free_port
from tiny_gguf import write_scripted

from pipeline.core.composition import CONF
from pipeline.core.composition import compose as composed
from pipeline.core.config import load
from pipeline.tracking.registry import mlflow_client, register, set_champion

pytestmark = [pytest.mark.images, pytest.mark.long, pytest.mark.timeout(2400)]

PREFIX = "tunesmith-compose"
POSTGRES = """\
FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends postgresql && rm -rf /var/lib/apt/lists/*
ENV PATH=/usr/lib/postgresql/15/bin:$PATH
COPY entrypoint.sh /
VOLUME /var/lib/postgresql/data
CMD ["sh", "/entrypoint.sh"]
"""
# What PostgreSQL's own image does with its variables, as far as compose.yaml sets them.
ENTRYPOINT = """\
set -e
data=/var/lib/postgresql/data
chown postgres "$data"
as="setpriv --reuid postgres --regid postgres --clear-groups"
if [ ! -s "$data/PG_VERSION" ]; then
  printf %s "$POSTGRES_PASSWORD" > /tmp/password
  chmod 644 /tmp/password
  $as initdb --pgdata "$data" --username "$POSTGRES_USER" --pwfile /tmp/password --auth scram-sha-256
  echo "host all all all scram-sha-256" >> "$data/pg_hba.conf"
  echo "CREATE DATABASE $POSTGRES_DB;" | $as postgres --single -D "$data" postgres
fi
exec $as postgres -D "$data" -c listen_addresses='*' -c unix_socket_directories=/tmp,/var/run/postgresql
"""

Compose = Callable[..., str]


@pytest.fixture(scope="module")
def overrides(
    engine: docker.DockerClient, images: None, build: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """What a test changes of compose.yaml: the images, which are built here, and the ports."""
    folder = tmp_path_factory.mktemp("postgres")
    (folder / "Dockerfile").write_text(POSTGRES)
    (folder / "entrypoint.sh").write_text(ENTRYPOINT)
    engine.images.build(path=str(folder), tag=f"{PREFIX}:postgres")
    build(f"{PREFIX}:mlflow", "Dockerfile.mlflow")
    build(f"{PREFIX}:serve", "Dockerfile.serve", EXTRAS="registry", VARIANTS="few")
    ports = {"serve": (free_port(), 7860), "mlflow": (free_port(), 5000)}
    lines = ["services:", f"  postgres: {{image: '{PREFIX}:postgres'}}", "  train: {image: 'tunesmith-train:test'}"]
    for name, (here, there) in ports.items():
        lines.append(
            f"  {name}: {{image: '{PREFIX}:{name}', build: !reset null, ports: !override ['127.0.0.1:{here}:{there}']}}"
        )
    path = folder / "overrides.yaml"
    path.write_text("\n".join(lines) + "\n")
    yield path
    for name in ("postgres", "mlflow", "serve"):
        engine.images.remove(f"{PREFIX}:{name}", force=True)


@pytest.fixture(scope="module")
def run(compose: list[str], overrides: Path) -> Iterator[Compose]:
    """Runs Docker Compose on the repository's file, and returns what it prints."""
    files = [part for file in ("compose.yaml", "compose.cpu.yaml", overrides) for part in ("--file", str(file))]
    command = [*compose, "--project-name", PREFIX, *files]
    environment = os.environ | {"USER_ID": str(os.getuid() or 1000)}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    yield run
    run("--profile", "*", "down", "--volumes", "--timeout", "5")


def address(overrides: Path, service: str) -> str:
    """Where a service answers on this machine."""
    port = overrides.read_text().partition(f"  {service}: ")[2].partition("127.0.0.1:")[2].partition(":")[0]
    return f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def tracked(run: Compose, overrides: Path) -> str:
    """The address of MLflow."""
    run("up", "--detach", "--wait", "--no-build", "mlflow")
    return address(overrides, "mlflow")


def test_mlflow_answers_to_its_names_and_to_no_other(tracked: str) -> None:
    for name, status in (("localhost:5000", 200), ("mlflow:5000", 200), ("elsewhere.example", 403)):
        assert (
            httpx.get(f"{tracked}/api/2.0/mlflow/experiments/get?experiment_id=0", headers={"Host": name}).status_code
            == status
        )


def test_training_finds_mlflow_by_its_name(run: Compose, tracked: str) -> None:
    ask = "import mlflow; print([experiment.name for experiment in mlflow.search_experiments()])"
    said = run("run", "--rm", "--no-TTY", "train", "python", "-c", ask)
    assert said.splitlines()[-1] == "['Default']"


def test_serve_serves_the_champion_also_after_all_were_down(
    run: Compose, tracked: str, overrides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracked)
    model = write_scripted(tmp_path / "reciter.gguf", [b" Certainly", b", here"])
    settings = load(composed(ROOT / CONF, [])).tracking
    with mlflow_client(settings) as client:
        set_champion(client, register(client, settings, "reciter", [model], {}, None))
    for _ in range(2):
        run("up", "--detach", "--wait", "--no-build", "serve")
        asked = {"model": "tunesmith@champion", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
        answer = httpx.post(f"{address(overrides, 'serve')}/v1/chat/completions", json=asked, timeout=60).json()
        assert answer["model"] == "tunesmith@champion/reciter"
        assert answer["choices"][0]["message"]["content"] == " Certainly, here"
        run("--profile", "*", "down", "--timeout", "30")
