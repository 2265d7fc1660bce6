"""Tokens of a conversation, as a model's chat template writes it."""

from functools import cache
from typing import TYPE_CHECKING

from pipeline.core.config import ModelSettings
from pipeline.core.formats import Messages

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ENDLESS = 2**31  # tokens; more than any row has


def tokens_of(messages: Messages, tokenizer: str | None) -> int:
    """Return how many tokens a conversation has, of the longest row that it makes; 0 where a template refuses it.

    Args:
        messages: the conversation.
        tokenizer: a folder, a name on the hub, `OWNER/NAME@REVISION`, or a package's.

    Raises:
        UserError: there is no tokenizer, or none that training could take.
    """
    from pipeline.models.chat import encode  # seconds, which are spent where somebody asks for tokens alone
    from pipeline.models.turns import RefusedError

    try:
        rows = encode(_loaded(str(tokenizer)), list(map(dict, messages)), ENDLESS)
    except RefusedError:
        return 0  # training says so, and why
    return max(len(ids) for ids, _ in rows)


@cache
def _loaded(name: str) -> "PreTrainedTokenizerBase":
    from pipeline.models.chat import load_tokenizer

    path, _, revision = name.partition("@")
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
