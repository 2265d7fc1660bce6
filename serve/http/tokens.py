"""Texts as token ids and back, as llama.cpp and vLLM write them."""

from llama.types import TokenIds
from serve.engine import Engine
from serve.http.answers import Json
from serve.http.fields import called
from serve.http.requests import DetokenizeRequest, TokenizeRequest


async def tokenized(body: TokenizeRequest, engine: Engine, model: str, context: int) -> Json:
    """Return token ids as llama.cpp and vLLM write them, with the text of each where asked for. Raises RequestError."""
    if not (body.with_pieces or body.return_token_strs):
        tokens = await engine.tokens(model, body.text())
        return {"tokens": tokens, "count": len(tokens), "max_model_len": context}
    spelled = await engine.spelled(model, body.text())
    told: Json = {"tokens": [token for token, _ in spelled], "count": len(spelled), "max_model_len": context}
    if body.with_pieces:
        told["tokens"] = [{"id": token, "piece": _whole_text(piece)} for token, piece in spelled]
    if body.return_token_strs:
        told["token_strs"] = [piece.decode(errors="replace") for _, piece in spelled]
    return told


async def detokenized(body: DetokenizeRequest, engine: Engine, model: str) -> Json:
    """Return a text as llama.cpp names it, and as vLLM does. Raises RequestError."""
    with called({"prompt": "tokens"}):
        spelled = await engine.spelled(model, TokenIds(body.tokens)) if body.tokens else []
    text = b"".join(piece for _, piece in spelled).decode(errors="replace")
    return {"content": text, "prompt": text}


def _whole_text(piece: bytes) -> str | list[int]:
    """Return a token's text; the bytes of one that is no text by itself."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)
