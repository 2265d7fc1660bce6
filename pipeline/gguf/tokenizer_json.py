"""What a tokenizer.json says of how texts are read."""

import json
import re
from pathlib import Path
from typing import Any

from serve.tokenizer import FORMS

LOOKS_SPECIAL = re.compile(r"<(?!0x)/?[|\w:-]+>")  # no byte of SentencePiece's
# Steps of a normalizer that llama.cpp does itself, as SentencePiece does.
OWN_STEPS = ("Prepend", "Replace")


def read_tokenizer(model: Path) -> dict[str, Any]:
    """A model's tokenizer.json; empty where its folder has none."""
    path = model / "tokenizer.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def split_pattern(tokenizer: dict[str, Any]) -> str | None:
    """The regular expression by which texts are split into words."""
    for step in _steps(tokenizer.get("pre_tokenizer")):
        if step.get("type") == "Split":
            return step["pattern"].get("Regex")
    return None


def normal_form(tokenizer: dict[str, Any]) -> str:
    """The Unicode normal form that texts are brought into, one of FORMS."""
    forms = [step["type"] for step in _steps(tokenizer.get("normalizer")) if step["type"] in FORMS]
    return forms[-1] if forms else "none"


def unknown_steps(tokenizer: dict[str, Any]) -> list[str]:
    """What else is done to texts first, that neither llama.cpp nor the chat server does."""
    return [step["type"] for step in _steps(tokenizer.get("normalizer")) if step["type"] not in (*FORMS, *OWN_STEPS)]


def plain_tokens(tokenizer: dict[str, Any]) -> list[str]:
    """Normal tokens that look like special ones, as `</s>` and `<br>`: llama.cpp takes some for such."""
    special = {token["content"] for token in tokenizer.get("added_tokens", [])}
    vocabulary = tokenizer.get("model", {}).get("vocab", {})
    return sorted(text for text in vocabulary if LOOKS_SPECIAL.fullmatch(text) and text not in special)


def stripping_tokens(tokenizer: dict[str, Any], side: str) -> list[str]:
    """Added tokens that take white space along, before them (`lstrip`) or after them (`rstrip`), as Phi-3's do."""
    return [token["content"] for token in tokenizer.get("added_tokens", []) if token.get(side)]


def merges_by_id(tokenizer: dict[str, Any]) -> bool:
    """Whether pairs of tokens are merged in the order of the ids that they become."""
    model = tokenizer.get("model", {})
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model.get("merges", []))
    merged = [model["vocab"]["".join(pair)] for pair in pairs]
    return merged == sorted(merged)


def adds_bos(tokenizer: dict[str, Any]) -> bool:
    """Whether a special token is put before a text."""
    steps = _steps(tokenizer.get("post_processor"))
    return any("SpecialToken" in part for step in steps for part in step.get("single", [])[:1])


def prepend_scheme(tokenizer: dict[str, Any]) -> str | None:
    """Where SentencePiece's space before a word is put if there is none: `first`, `always` or `never`; else None."""
    schemes = [step.get("prepend_scheme") for step in _steps(tokenizer.get("pre_tokenizer"))]
    return next((scheme for scheme in schemes if scheme), None)


def _steps(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The steps of a part of a tokenizer, which may be one or a sequence of them."""
    if not part:
        return []
    inner = next((part[name] for name in ("normalizers", "pretokenizers", "processors") if name in part), None)
    return [part] if inner is None else [step for one in inner for step in _steps(one)]
