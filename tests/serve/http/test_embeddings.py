"""Embeddings as OpenAI's client asks for them."""

import base64
import math
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from openai import OpenAI
from servers import ROOT

from serve.http import fields
from serve.http.embeddings import MOST, EmbeddingsRequest

ASKED: Any = {"model": "vectors", "input": "hi"}
READ = [256, *b"hi"]  # with what the model wants around a text


def embed(talker: TestClient, **changed: Any) -> Any:
    answer = talker.post("/v1/embeddings", json=ASKED | changed)
    assert answer.status_code == 200, answer.text
    return answer.json()


def vectors(talker: TestClient, **changed: Any) -> list[list[float]]:
    return [each["embedding"] for each in embed(talker, **changed)["data"]]


def test_a_text_is_a_vector_of_length_one(talker: TestClient) -> None:
    answer = embed(talker)
    (data,) = answer.pop("data")
    assert (data["object"], data["index"], len(data["embedding"])) == ("embedding", 0, 64)
    assert math.hypot(*data["embedding"]) == pytest.approx(1)
    assert answer == {"object": "list", "model": "vectors", "usage": {"prompt_tokens": 3, "total_tokens": 3}}


def test_each_text_has_the_vector_that_it_has_alone(talker: TestClient) -> None:
    texts = ["hi", "so it is", "hi"]
    together = embed(talker, input=texts)
    assert [data["index"] for data in together["data"]] == [0, 1, 2]
    assert [data["embedding"] for data in together["data"]] == [vectors(talker, input=text)[0] for text in texts]
    assert together["usage"]["prompt_tokens"] == len("hi" + "so it is" + "hi") + 3
    assert vectors(talker, input=READ) == vectors(talker)
    assert vectors(talker, input=[READ, READ[:2]])[0] == vectors(talker)[0] != vectors(talker, input=[READ[:2]])[0]


def test_openais_client_reads_them_packed(talker: TestClient) -> None:
    client = OpenAI(base_url=f"{talker.base_url}/v1", api_key="none", http_client=talker, max_retries=0)
    (packed,) = client.embeddings.create(**ASKED).data
    (plain,) = client.embeddings.create(**ASKED, encoding_format="float").data
    assert packed.embedding == plain.embedding
    (text,) = vectors(talker, encoding_format="base64")
    assert np.frombuffer(base64.b64decode(str(text)), "<f4").tolist() == plain.embedding


def test_a_vector_can_be_cut(talker: TestClient) -> None:
    (whole,), (cut,) = vectors(talker), vectors(talker, dimensions=16)
    assert len(cut) == 16
    assert math.hypot(*cut) == pytest.approx(1)
    assert np.allclose(np.array(cut) * math.hypot(*whole[:16]), whole[:16], atol=1e-6)
    assert vectors(talker, dimensions=64) == [whole]


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [[]]}, "input[0]"),
        ({"input": [261]}, "input[0]"),
        ({"input": ["hi", "x y " * 300]}, "input[1]"),
        ({"input": "x" * 8001}, "input"),
        ({"input": ["a"] * (MOST + 1)}, "input"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": 65}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"model": "random"}, "model"),
        ({"of": 1}, "of"),
    ],
)
def test_what_cannot_be_a_vector_is_named(talker: TestClient, asked: dict, param: str) -> None:
    answer = talker.post("/v1/embeddings", json=ASKED | asked)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


def test_no_text_is_what_the_model_wants_around_one(talker: TestClient) -> None:
    assert vectors(talker, input="") == vectors(talker, input=READ[:1])


@pytest.mark.parametrize("name", sorted(fields.EMBEDDINGS_REFUSED))
def test_each_field_that_would_change_the_vector_is_refused(talker: TestClient, name: str) -> None:
    error = talker.post("/v1/embeddings", json=ASKED | {name: {"of": 1}}).json()["error"]
    assert (error["code"], error["param"]) == ("unsupported_parameter", name)
    for unasked in fields.EMBEDDINGS_REFUSED[name]:
        assert vectors(talker, **{name: unasked}) == vectors(talker, user="me")


def test_a_model_of_vectors_answers_nothing_and_is_read(talker: TestClient) -> None:
    hi = [{"role": "user", "content": "hi"}]
    for path, body in (
        ("chat/completions", {"messages": hi}), ("completions", {"prompt": "hi"}), ("responses", {"input": "hi"}),
        ("messages", {"messages": hi, "max_tokens": 4}),
    ):  # fmt: skip
        answer = talker.post(f"/v1/{path}", json={"model": "vectors"} | body)
        assert (answer.status_code, "vectors is an embedding model" in answer.text) == (400, True)
    assert talker.get("/v1/models/vectors").json()["id"] == "vectors"
    read = talker.post("/tokenize", json={"model": "vectors", "prompt": "hi"}).json()
    assert (read["tokens"], read["max_model_len"]) == (READ, 512)
    assert talker.post("/detokenize", json={"model": "vectors", "tokens": READ[1:]}).json()["content"] == "hi"


def test_the_documents_show_every_field() -> None:
    shown = (ROOT / "docs/serving.md").read_text()
    named = EmbeddingsRequest.model_fields.keys() | fields.EMBEDDINGS_HARMLESS | fields.EMBEDDINGS_REFUSED.keys()
    assert not [name for name in sorted(named) if f"`{name}`" not in shown]
