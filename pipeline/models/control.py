"""Control tokens that stand in people's words, such as an `<|im_end|>` that somebody wrote: as text they stay text.

A tokenizer makes a control token wherever its name stands. So those in words are disguised before the chat template
writes the conversation, and what still looks like one then is the template's own. No place in the text moves by it.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerBase

from llama.control import PIPES, TAGS, as_written, disguise
from pipeline.models.turns import Message, RefusedError

# Another plane of private use than llama/control.py's: the template's own control tokens are so many of a character.
OWN = 0xF0000
Place = tuple[int, int]  # from and up to, in characters


class Aliased(NamedTuple):
    """A copy of a tokenizer that takes no control token for what its name says, but for what its alias says."""

    tokenizer: Tokenizer
    aliases: dict[str, str]
    ids: dict[int, int]  # of the aliases, and whose they are


def found(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> Counter[str]:
    """Return the control tokens that stand in the words of a conversation."""
    return Counter(name for message in messages for name in _in_words(tokenizer, message))


def disguised(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[Message]:
    """Return messages whose words have no control token; the very same where there is none.

    Raises:
        RefusedError: they have one, and characters that stand for such.
    """
    if not found(tokenizer, messages):
        return list(messages)
    if any(ord(char) >= OWN for message in messages for key in _said_in(message) for char in message[key]):
        raise RefusedError("its words have control tokens and characters of private use")
    return [
        message | {key: disguise(message[key], names(tokenizer), message["role"]) for key in _said_in(message)}
        for message in messages
    ]


def tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[list[int], list[Place]]:
    """Return a text as token ids and where each stands; no control token comes out of what is `disguised` in it.

    Raises:
        RefusedError: the tokenizer makes one all the same.
    """
    plain = as_written(text)
    if plain == text or len(names(tokenizer).findall(plain)) == len(names(tokenizer).findall(text)):  # any other text
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return list(encoded["input_ids"]), list(encoded["offset_mapping"])
    copy, aliases, ids = aliased(tokenizer)
    written = copy.encode(
        as_written(names(tokenizer).sub(lambda name: aliases[name[0]], text)), add_special_tokens=False
    )
    if made := set(ids.values()) & set(written.ids):
        raise RefusedError(f"the tokenizer makes {tokenizer.convert_ids_to_tokens(min(made))} of its words")
    return [ids.get(token, token) for token in written.ids], written.offsets


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, AddedToken]:
    """Return the control tokens of a tokenizer by their ids."""
    added = tokenizer.added_tokens_decoder.items()
    return {number: token for number, token in added if token.special or PIPES.fullmatch(token.content)}


@lru_cache(maxsize=4)
def names(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Return what finds the names of a tokenizer's control tokens: of several that begin alike, the longest."""
    longest_first = sorted((token.content for token in control_tokens(tokenizer).values()), key=len, reverse=True)
    alike: dict[str, list[str]] = {}  # by how they begin: a tokenizer has up to a thousand, most of them `<SPECIAL_1>`
    for name in longest_first:
        alike.setdefault(name[:2], []).append(re.escape(name))
    return re.compile("|".join(f"(?:{'|'.join(some)})" for some in alike.values()) or "(?!)")


@lru_cache(maxsize=4)
def aliased(tokenizer: PreTrainedTokenizerBase) -> Aliased:
    """Return the copy in which a character of private use, as often as a name is long, stands for a control token."""
    own = control_tokens(tokenizer)
    aliases = {token.content: chr(OWN + at) * len(token.content) for at, token in enumerate(own.values())}
    copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    copy.add_special_tokens(list(own.values()))  # also those that did not say so,
    copy.encode_special_tokens = True  # which makes all of them text
    copy.add_tokens([_renamed(token, aliases[token.content]) for token in own.values()])
    numbers = {token.content: number for number, token in copy.get_added_tokens_decoder().items()}
    return Aliased(copy, aliases, {numbers[aliases[token.content]]: number for number, token in own.items()})


def _renamed(token: AddedToken, name: str) -> AddedToken:
    flags = {"single_word": token.single_word, "lstrip": token.lstrip, "rstrip": token.rstrip}
    return AddedToken(name, normalized=False, special=False, **flags)


def _said_in(message: Message) -> list[str]:
    """Return the fields that have words; JSON of calls has them as they are, between its marks."""
    return ["content", *(["tool_calls"] if message.get("tool_calls") else [])]


def _in_words(tokenizer: PreTrainedTokenizerBase, message: Message) -> Iterator[str]:
    tags = TAGS.get(message["role"], set())
    found = (name for key in _said_in(message) for name in names(tokenizer).findall(message[key]))
    return (name for name in found if name not in tags)
