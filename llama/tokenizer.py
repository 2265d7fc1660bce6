"""Texts as a model's token ids, as the tokenizer that it was trained with reads them.

llama.cpp's tokenizer differs from Transformers' in five things, which are put right here: a Unicode normal form, the
space that some put before a text's first word alone, normal tokens that llama.cpp takes for special ones by their
looks, as `</s>` in Qwen's, special ones that take white space along, as Phi-3's do, and where words end
(byte_pairs.py). Files that the pipeline exported say what theirs needs.
"""

import ctypes
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator

import llama_cpp

from common.errors import UserError
from llama.byte_pairs import PATTERNS, BytePairs
from llama.control import HALF_PIPES, PIPES, as_written
from llama.found import Found

NORMAL_FORM = "tunesmith.tokenizer.normal_form"  # one of FORMS
FIRST_SPACE = "tunesmith.tokenizer.first_space"  # whether a text that begins with a word is read as " word"
PLAIN_TOKENS = "tunesmith.tokenizer.plain_tokens"  # normal tokens that look special, a JSON list
IN_WORDS = "tunesmith.tokenizer.in_words"  # tokens that look special, and are found in people's words; a JSON list
STRIP_BEFORE = "tunesmith.tokenizer.strip_before"  # special tokens that take the white space before them along
STRIP_AFTER = "tunesmith.tokenizer.strip_after"  # and those that take what is after them; JSON lists, too
WORDS = "tunesmith.tokenizer.words"  # one of PATTERNS, by which words are split and merged here
LONGEST = 1024  # bytes of a token; o200k's longest has 128
FORMS = ("NFC", "NFD", "NFKC", "NFKD", "none")

# Pre-tokenizers and architectures of files made elsewhere whose tokenizers have NFC in Transformers. The starter's
# tokenizer is split as Qwen's is, and has no normal form: the pre-tokenizer alone tells nothing.
NFC = {"qwen2": ("qwen2", "qwen3"), "qwen35": ("qwen35",)}
# White space as Unicode has it; Python counts four control characters in.
SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
# Kinds of tokens that are found in a text as it is written, before it is normalized and split.
WRITTEN = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED


class Tokenizer:
    """Texts as one model's token ids."""

    def __init__(self, model: "llama_cpp.llama_model_p", found: Found | None = None) -> None:
        """For a loaded model, which must outlive this, and what is `found` of its file.

        Raises UserError where the file says what cannot be done.
        """
        self._found = found or Found()
        self._vocab = llama_cpp.llama_model_get_vocab(model)
        self._form = normal_form(model)
        self._first_space = value(model, FIRST_SPACE) == "true"
        self._normal, self._in_words = listed(model, PLAIN_TOKENS), listed(model, IN_WORDS)
        self._before, self._after = (listed(model, key) for key in (STRIP_BEFORE, STRIP_AFTER))
        self._words = self._byte_pairs(value(model, WORDS))
        differs = (self._form, self._first_space, self._normal, self._before, self._after, self._words)
        self._as_it_is = not any(differs)

    @property
    def control(self) -> re.Pattern[str]:
        """What finds the control tokens in a text."""
        return self._found.once("control", lambda: finder(self._control() - self._normal - self._in_words))

    @property
    def _written(self) -> re.Pattern[str]:
        return self._found.once("written", lambda: finder(self._tokens_of(WRITTEN) - self._normal))

    @property
    def _plain(self) -> re.Pattern[str]:
        return self._found.once("plain", lambda: finder(self._tokens_of(WRITTEN) & self._normal))

    def read(self, text: str, add_special: bool = False, is_disguised: bool = False) -> list[int]:
        """Return token ids of a text; special tokens in it are taken as such.

        Args:
            text: any; what is no Unicode becomes question marks.
            add_special: add what the model wants around a text, such as BOS.
            is_disguised: some control tokens in it are words, and are `disguised` (control.py).
        """
        if self._as_it_is and not is_disguised:
            return self._tokenize(text, add_special)
        parts = self._written.split(text)  # every other one is a special token
        if is_disguised:
            parts[::2] = map(as_written, parts[::2])
        self._strip(parts)
        parts[::2] = self._prepared(parts[::2])
        if not self._words and not is_disguised and not self._plain.search(text):
            return self._tokenize("".join(parts), add_special)
        around = self._tokenize("", add_special)  # BOS where the model wants one: no model of answers wants EOS
        return around + [i for n, part in enumerate(parts) for i in self._read_part(part, special=n % 2 == 1)]

    def _strip(self, parts: list[str]) -> None:
        """Take away what special tokens take along of the parts around them."""
        for n in range(1, len(parts), 2):
            if parts[n] in self._before:
                parts[n - 1] = parts[n - 1].rstrip(SPACE)
            if parts[n] in self._after:
                parts[n + 1] = parts[n + 1].lstrip(SPACE)

    def _prepared(self, parts: list[str]) -> list[str]:
        """Return the parts of a text between special tokens, after the steps that llama.cpp does not know."""
        if self._form:
            parts = [unicodedata.normalize(self._form, part) for part in parts]  # type: ignore[arg-type]
        if self._first_space and parts[0] and not parts[0].startswith((" ", "▁")):
            parts[0] = " " + parts[0]
        return parts

    def _read_part(self, part: str, special: bool) -> list[int]:
        """Return token ids of a special token, or of what stands between two."""
        return self._words.read(part) if self._words and not special else self._tokenize(part, special=special)

    def _tokenize(self, text: str, around: bool = False, special: bool = True) -> list[int]:
        encoded = text.encode(errors="replace")
        tokens = (llama_cpp.llama_token * (len(encoded) + 2))()  # no token is shorter than a byte, but BOS and EOS
        count = llama_cpp.llama_tokenize(self._vocab, encoded, len(encoded), tokens, len(tokens), around, special)
        return tokens[:count]

    def _tokens_of(self, kinds: int) -> set[str]:
        ids = range(llama_cpp.llama_vocab_n_tokens(self._vocab))
        special = (i for i in ids if llama_cpp.llama_vocab_get_attr(self._vocab, i) & kinds)
        return {llama_cpp.llama_vocab_get_text(self._vocab, i).decode(errors="replace") for i in special} - {""}

    def _control(self) -> set[str]:
        by_looks = {name for name in self._tokens_of(WRITTEN) if PIPES.fullmatch(name) or HALF_PIPES.fullmatch(name)}
        return self._tokens_of(llama_cpp.LLAMA_TOKEN_ATTR_CONTROL) | by_looks

    def _byte_pairs(self, pattern: str | None) -> BytePairs | None:
        """Return what reads words in llama.cpp's place; None where the file asks for none."""
        if pattern is None:
            return None
        if pattern not in PATTERNS:
            raise UserError(f"the model's {WORDS} is {pattern}, not one of {', '.join(PATTERNS)}: export it again")
        ids = {piece: i for i, piece in self._pieces()}
        if any(bytes([byte]) not in ids for byte in range(256)):
            raise UserError(f"the model's {WORDS} is {pattern}, but not every byte is a token of it: export it again")
        return BytePairs(pattern, ids)

    def _pieces(self) -> Iterator[tuple[int, bytes]]:
        """Yield normal tokens and their bytes."""
        buffer = ctypes.create_string_buffer(LONGEST)
        for i in range(llama_cpp.llama_vocab_n_tokens(self._vocab)):
            if llama_cpp.llama_vocab_get_attr(self._vocab, i) & llama_cpp.LLAMA_TOKEN_ATTR_NORMAL:
                length = llama_cpp.llama_token_to_piece(self._vocab, i, buffer, len(buffer), 0, False)
                yield i, buffer.raw[:length]


def piece_of(vocabulary: "llama_cpp.llama_vocab_p", token: int, special: bool = False) -> bytes:
    """Return a token's text, which may be a part of a character; empty for special tokens unless asked for."""
    buffer = ctypes.create_string_buffer(256)
    length = llama_cpp.llama_token_to_piece(vocabulary, token, buffer, len(buffer), 0, special)
    return buffer.raw[:length] if length > 0 else b""


def finder(texts: Iterable[str]) -> re.Pattern[str]:
    """Find any of some texts, the longest that fits at a place."""
    return re.compile(f"({'|'.join(map(re.escape, sorted(texts, key=len, reverse=True))) or '(?!)'})")


def listed(model: "llama_cpp.llama_model_p", key: str) -> set[str]:
    """Return the texts that a loaded file lists under a key; none where it says nothing."""
    return set(json.loads(value(model, key) or "[]"))


def normal_form(model: "llama_cpp.llama_model_p") -> str | None:
    """Return the normal form that a loaded file wants; of one that does not say it, where its kind leaves no doubt.

    Raises UserError for one that there is not.
    """
    form = value(model, NORMAL_FORM)
    if form is None:
        families = NFC.get(value(model, "tokenizer.ggml.pre") or "", ())
        return "NFC" if (value(model, "general.architecture") or "").startswith(families) else None
    if form not in FORMS:
        raise UserError(f"the model's {NORMAL_FORM} is {form}, not one of {', '.join(FORMS)}: export it again")
    return None if form == "none" else form


def value(model: "llama_cpp.llama_model_p", key: str) -> str | None:
    """Return what a loaded file says under a key; None where it says nothing."""
    length = llama_cpp.llama_model_meta_val_str(model, key.encode(), ctypes.create_string_buffer(1), 1)
    buffer = ctypes.create_string_buffer(max(length, 0) + 1)
    llama_cpp.llama_model_meta_val_str(model, key.encode(), buffer, len(buffer))
    return buffer.value.decode(errors="replace") if length >= 0 else None
