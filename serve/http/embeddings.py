"""OpenAI's embeddings: texts as vectors, one after the other, each in turn with what is to be answered."""

import base64
from collections.abc import Sequence
from typing import Literal

import numpy as np

from llama.embedding import unit
from llama.errors import RequestError
from llama.types import Prompt, TokenIds
from serve.engine import Engine
from serve.http.answers import Json
from serve.http.fields import EMBEDDINGS_HARMLESS, EMBEDDINGS_REFUSED, called, check_fields
from serve.http.requests import Fields, Whole
from serve.models.registry import Model

MOST = 2048  # texts of a request, as with OpenAI


class EmbeddingsRequest(Fields):
    """Texts to turn into vectors."""

    model: str
    input: str | list[str] | list[Whole] | list[list[Whole]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Whole | None = None

    def texts(self) -> list[Prompt]:
        """Return what is to be turned into vectors. Raises RequestError."""
        check_fields(self.model_extra, EMBEDDINGS_HARMLESS, EMBEDDINGS_REFUSED)
        if isinstance(self.input, str):
            return [self.input]
        ids = [token for token in self.input if isinstance(token, int)]
        if ids:
            return [TokenIds(ids)]
        texts = [text for text in self.input if not isinstance(text, int)]
        if not 0 < len(texts) <= MOST:
            raise RequestError(f"input can have 1 to {MOST} texts, not {len(texts)}.", param="input")
        return [text if isinstance(text, str) else TokenIds(text) for text in texts]


async def embedded(body: EmbeddingsRequest, engine: Engine) -> Json:
    """Return the vector of each text. Raises RequestError."""
    embeddings = await _embeddings(body, engine)
    while len({model for *_, model in embeddings}) > 1:  # one came in the other's place: their vectors are of two kinds
        embeddings = await _embeddings(body, engine)
    data: list[Json] = []
    for place, (vector, *_) in enumerate(embeddings):
        told = _written(_cut(vector, body.dimensions), body.encoding_format)
        data.append({"object": "embedding", "index": place, "embedding": told})
    tokens = sum(read for _, read, _ in embeddings)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": embeddings[0][2].name, "usage": usage}


async def _embeddings(body: EmbeddingsRequest, engine: Engine) -> list[tuple[np.ndarray, int, Model]]:
    """Return each text's vector, its tokens and the model that made it."""
    embeddings = []
    for place, text in enumerate(body.texts()):
        with called({"prompt": f"input[{place}]" if isinstance(body.input, list) else "input"}):
            embeddings.append(await engine.embed(body.model, text))
    return embeddings


def _cut(vector: np.ndarray, dimensions: int | None) -> np.ndarray:
    """Return a vector's beginning, of length one again, as some models are made for it (Kusupati et al. 2022)."""
    if dimensions is None or dimensions == len(vector):
        return vector
    if not 1 <= dimensions <= len(vector):
        text = f"dimensions must be a whole number from 1 to {len(vector)}, not {dimensions}."
        raise RequestError(text, param="dimensions")
    return unit(vector[:dimensions])


def _written(vector: np.ndarray, form: str | None) -> str | Sequence[float]:
    if form == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return [float(number) for number in vector]
