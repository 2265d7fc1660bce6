"""Tokens of a conversation, as a model's chat template writes it."""

import json
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from common.imports import importing
from pipeline.core.config import ModelSettings
from pipeline.core.formats import Messages

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tokens_of(messages: Messages, tokenizer: str | None) -> int | None:
    """Return how many tokens a conversation has, of the longest row that it makes; None where the template refuses it.

    Args:
        messages: the conversation.
        tokenizer: a folder, a name on the hub, `OWNER/NAME@REVISION`, or a package's.

    Raises:
        UserError: there is no tokenizer, or none that training could take.
    """
    return _tokens_of(json.dumps(messages), str(tokenizer))


@lru_cache(maxsize=1)  # both bounds ask of a conversation, one after the other
def _tokens_of(messages: str, tokenizer: str) -> int | None:
    with importing():  # Transformers, which a run without bounds does not need
        from pipeline.models.chat import ENDLESS, encode
        from pipeline.models.turns import RefusedError

    try:
        rows = encode(_loaded(tokenizer), json.loads(messages), ENDLESS)
    except RefusedError:
        return None  # training says so, and why
    return max(len(ids) for ids, _ in rows)


@cache
def _loaded(name: str) -> "PreTrainedTokenizerBase":
    from pipeline.models.chat import load_tokenizer

    path, _, revision = (name, "", "") if Path(name).exists() else name.partition("@")
    return load_tokenizer(
        ModelSettings(
            name=name,
            path=path,
            revision=revision or None,
            merge_path=None,
            merge_revision=None,
            chat_template=None,
            load_in_4bit=False,
        )
    )
