"""What a tokenizer.json says of how texts are read."""

import json
import re
from pathlib import Path
from typing import Literal, Required, TypedDict

from llama.control import PIPES
from llama.tokenizer import FORMS

LOOKS_SPECIAL = re.compile(r"<(?!0x)/?[|\w:-]+>")  # no byte of SentencePiece's
# Steps of a normalizer that llama.cpp does itself, as SentencePiece does.
OWN_STEPS = ("Prepend", "Replace")
Merge = str | list[str]  # a pair of tokens, with a space between them where it is one text


class AddedToken(TypedDict):
    """A token that is found in a text before all else."""

    id: int
    content: str
    special: bool
    lstrip: bool
    rstrip: bool


class Step(TypedDict, total=False):
    """A normalizer, pre-tokenizer or post-processor, or a sequence of them."""

    type: Required[str]
    pattern: dict[str, str]  # of `Split`: the text or the regular expression, by its kind
    prepend_scheme: str  # of `Metaspace`
    single: list[dict[str, object]]  # of `TemplateProcessing`
    normalizers: list["Step"]
    pretokenizers: list["Step"]
    processors: list["Step"]


class TokenizerModel(TypedDict, total=False):
    """The vocabulary, and what it is read by."""

    type: Required[str]
    vocab: Required[dict[str, int]]
    merges: list[Merge]
    unk_token: str | None
    byte_fallback: bool
    ignore_merges: bool


class TokenizerJson(TypedDict, total=False):
    """A tokenizer.json, as far as it is asked here."""

    model: TokenizerModel
    added_tokens: list[AddedToken]
    normalizer: Step | None
    pre_tokenizer: Step | None
    post_processor: Step | None


def read_tokenizer(model: Path) -> TokenizerJson:
    """Return a model's tokenizer.json; empty where its folder has none."""
    path = model / "tokenizer.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def split_pattern(tokenizer: TokenizerJson) -> str | None:
    """Return the regular expression by which texts are split into words."""
    for step in _steps(tokenizer.get("pre_tokenizer")):
        if step.get("type") == "Split":
            return step["pattern"].get("Regex")
    return None


def normal_form(tokenizer: TokenizerJson) -> str:
    """Return the Unicode normal form that texts are brought into, one of FORMS."""
    forms = [step["type"] for step in _steps(tokenizer.get("normalizer")) if step["type"] in FORMS]
    return forms[-1] if forms else "none"


def unknown_steps(tokenizer: TokenizerJson) -> list[str]:
    """Return what else is done to texts first, that neither llama.cpp nor the chat server does."""
    return [step["type"] for step in _steps(tokenizer.get("normalizer")) if step["type"] not in (*FORMS, *OWN_STEPS)]


def plain_tokens(tokenizer: TokenizerJson) -> list[str]:
    """Return normal tokens that look like special ones, as `</s>` and `<br>`: llama.cpp takes some for such."""
    special = {token["content"] for token in tokenizer.get("added_tokens", [])}
    vocabulary = tokenizer.get("model", {}).get("vocab", {})
    return sorted(text for text in vocabulary if LOOKS_SPECIAL.fullmatch(text) and text not in special)


def tokens_in_words(tokenizer: TokenizerJson) -> list[str]:
    """Return added tokens that are found in people's words as well: llama.cpp takes some for control tokens."""
    names = (token["content"] for token in tokenizer.get("added_tokens", []) if not token.get("special"))
    return sorted(name for name in names if LOOKS_SPECIAL.fullmatch(name) and not PIPES.fullmatch(name))


def stripping_tokens(tokenizer: TokenizerJson, side: Literal["lstrip", "rstrip"]) -> list[str]:
    """Return added tokens that take white space along, before (`lstrip`) or after them (`rstrip`), as Phi-3's."""
    return [token["content"] for token in tokenizer.get("added_tokens", []) if token.get(side)]


def merges_by_id(tokenizer: TokenizerJson) -> bool:
    """Return whether pairs of tokens are merged in the order of the ids that they become."""
    model = tokenizer.get("model", {})
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model.get("merges", []))
    merged = [model["vocab"]["".join(pair)] for pair in pairs]
    return merged == sorted(merged)


def adds_bos(tokenizer: TokenizerJson) -> bool:
    """Return whether a special token is put before a text."""
    steps = _steps(tokenizer.get("post_processor"))
    return any("SpecialToken" in part for step in steps for part in step.get("single", [])[:1])


def prepend_scheme(tokenizer: TokenizerJson) -> str | None:
    """Return where SentencePiece's space before a word is put if there is none: `first`, `always` or `never`.

    Else None.
    """
    schemes = [step.get("prepend_scheme") for step in _steps(tokenizer.get("pre_tokenizer"))]
    return next((scheme for scheme in schemes if scheme), None)


def _steps(part: Step | None) -> list[Step]:
    """Return the steps of a part of a tokenizer, which may be one or a sequence of them."""
    if not part:
        return []
    inner = next((part[name] for name in ("normalizers", "pretokenizers", "processors") if name in part), None)
    return [part] if inner is None else [step for one in inner for step in _steps(one)]
