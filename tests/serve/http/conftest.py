"""A server in this process, for the tests of what clients ask."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from gguf import PoolingType
from servers import whole_app
from thinkers import write_thinkers
from tiny_gguf import write_random

from serve.engine import Engine
from serve.models.registry import Model, find_models
from serve.settings import Settings


@pytest.fixture(scope="package")
def talker(models: dict[str, Model], tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """It has the models of all tests, those that think, and `vectors`, which embeds."""
    folder = write_thinkers(tmp_path_factory.mktemp("thinkers"))
    write_random(folder / "vectors.gguf", template=None, pooling=PoolingType.MEAN)
    limits = Settings(model="random", max_tokens=64, max_loaded_models=8, rate=0, context=1 << 10)
    with Engine({**models, **find_models(folder)}, limits) as engine:
        yield TestClient(whole_app(engine, limits), raise_server_exceptions=False)
