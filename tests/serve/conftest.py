"""The models and the server that the tests share; tiny_gguf.py says how the models come to say what they say."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import started_server
from tiny_gguf import ACCENTS, FAREWELL, write_random, write_scripted

from serve.engine import Engine
from serve.models.registry import Model, find_models
from serve.settings import Settings


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four models: `random` and `other` draw from the prompt, `accents` ends after a text, `endless` never does."""
    folder = tmp_path_factory.mktemp("models")
    write_random(folder / "random.gguf", seed=0)
    write_random(folder / "other.gguf", seed=1)
    write_scripted(folder / "nested" / "accents.gguf", [bytes([byte]) for byte in ACCENTS.encode()], context=1 << 18)
    words = [f" {word}".encode() for word in FAREWELL.split()]
    write_scripted(folder / "endless.gguf", words, loop=True, context=1 << 18)
    return folder


@pytest.fixture(scope="session")
def models(folder: Path) -> dict[str, Model]:
    return find_models(folder)


@pytest.fixture(scope="session")
def settings(folder: Path) -> Settings:
    """Room for an answer that lasts far longer than any test."""
    return Settings(models=str(folder), model="random", context=1 << 18, max_tokens=1 << 17)


@pytest.fixture
def engine(models: dict[str, Model], settings: Settings) -> Iterator[Engine]:
    with Engine(models, settings) as engine:
        yield engine


@pytest.fixture(scope="session")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that all tests of the page and its API share."""
    log = tmp_path_factory.mktemp("server") / "log.txt"
    limits = {"context": 1 << 18, "max_tokens": 1 << 17}
    with started_server(log, models=folder, model="random", **limits) as (url, _):
        yield url
