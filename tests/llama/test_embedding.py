"""Texts as vectors, held against the vectors that the same weights make in another way."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from gguf import PoolingType
from tiny_gguf import write_encoder, write_random

from llama.embedding import Embedder, unit
from llama.errors import RequestError
from llama.model import BATCH
from llama.types import TokenIds

SHORT = list(b"So it is.")
LONG = list(b"So long, and thanks. " * 30)


@pytest.fixture(scope="module")
def embedders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Embedder]]:
    """One for each way to make one vector of a text's tokens, over the same weights."""
    folder = tmp_path_factory.mktemp("embedders")
    made = {}
    for pooling in (PoolingType.MEAN, PoolingType.CLS, PoolingType.LAST):
        path = write_random(folder / f"{pooling.name}.gguf", template=None, context=1024, pooling=pooling)
        made[pooling.name] = Embedder(path, 1024, threads=1)
    yield made
    for embedder in made.values():
        embedder.close()


def lasts(embedders: dict[str, Embedder], tokens: Sequence[int]) -> list[np.ndarray]:
    """Each token's own vector: that of the text which ends with it. All are equally long, by the norm at the end."""
    return [embedders["LAST"].embed(tokens[: end + 1]) for end in range(len(tokens))]


def test_tokens_become_one_vector_as_the_file_says(embedders: dict[str, Embedder]) -> None:
    own = lasts(embedders, SHORT)
    mean = unit(np.sum(own, axis=0))
    assert np.allclose(embedders["MEAN"].embed(SHORT), mean, atol=1e-4)
    assert np.allclose(embedders["CLS"].embed(SHORT), own[0], atol=1e-4)
    assert not np.allclose(mean, own[0], atol=1e-2)


def test_a_long_text_read_in_pieces_has_the_vector_of_one_piece(
    embedders: dict[str, Embedder], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert len(LONG) > 2 * BATCH
    in_pieces = embedders["LAST"].embed(LONG)
    monkeypatch.setattr("llama.embedding.BATCH", 1024)
    path = write_random(tmp_path / "whole.gguf", template=None, context=1024, pooling=PoolingType.LAST)
    with closing(Embedder(path, 1024, threads=1)) as whole:
        assert np.allclose(whole.embed(LONG), in_pieces, atol=1e-4)
        assert not np.allclose(whole.embed(LONG[:-1]), in_pieces, atol=1e-2)


def test_a_vector_is_of_length_one_and_depends_on_no_other_text(embedders: dict[str, Embedder]) -> None:
    for embedder in embedders.values():
        alone = embedder.embed(SHORT)
        assert float(np.linalg.norm(alone)) == pytest.approx(1)
        embedder.embed(LONG)
        assert np.array_equal(embedder.embed(SHORT), alone)


def test_an_encoder_reads_a_text_both_ways(tmp_path: Path) -> None:
    path = write_encoder(tmp_path / "bert.gguf", PoolingType.CLS)
    with closing(Embedder(path, 1024, threads=1)) as embedder:
        assert embedder.prompt("a b zz") == [2, 5, 6, 1, 3]  # within the marks of its own; no letter is no word
        one, other = embedder.embed([2, 5, 6, 3]), embedder.embed([2, 5, 7, 3])
        assert not np.allclose(one, other, atol=1e-2)  # of the first token, and the third has changed
        assert np.array_equal(embedder.embed([2, 5, 6, 3]), one)
        assert len(embedder.prompt("a " * 62)) == 64
        with pytest.raises(RequestError, match="this model's maximum is 64"):
            embedder.prompt("a " * 63)


def test_a_text_may_fill_the_context_and_not_go_beyond(embedders: dict[str, Embedder]) -> None:
    embedder = embedders["MEAN"]
    assert len(embedder.prompt(TokenIds([65] * 1024))) == 1024
    with pytest.raises(RequestError, match="takes 1025 tokens, and this model's maximum is 1024") as raised:
        embedder.prompt(TokenIds([65] * 1025))
    assert raised.value.code == "context_length_exceeded"
    assert len(embedder.prompt(TokenIds([65] * 1025), bounded=False)) == 1025


def test_nothing_has_no_direction() -> None:
    assert unit(np.zeros(3, np.float32)).tolist() == [0, 0, 0]
