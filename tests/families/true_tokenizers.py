"""The tokenizers of families as training loads them."""

import json
from pathlib import Path
from typing import Any

import pytest
from families import FAMILIES
from packages import NotFetched
from transformers import GenerationConfig

from pipeline.core.composition import compose
from pipeline.core.config import load
from pipeline.models.chat import load_tokenizer

REPO = Path(__file__).parents[2]


def true_tokenizer(name: str, folder: Path, with_ends: bool = False) -> Any:
    """A family's tokenizer with its own template; the test is skipped where it is not to be had.

    Args:
        name: one of FAMILIES.
        folder: for its files.
        with_ends: whether generation settings beside it name the family's ends of answers, as its models have them.
    """
    family = FAMILIES[name]
    try:
        family.tokenizer(folder)
    except NotFetched as reason:
        pytest.skip(str(reason))
    if with_ends:
        added = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
        ends = [token["id"] for token in added if token["content"] in family.ends]
        GenerationConfig(eos_token_id=ends).save_pretrained(folder)
    chosen = [f"model={family.preset}", f"model.path={folder}", "model.chat_template=null"]
    return load_tokenizer(load(compose(REPO / "conf", chosen)).model)
