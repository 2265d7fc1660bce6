"""llama.cpp's converter with a few changes, in a process of its own.

    python -m pipeline.gguf.converter LLAMA_CPP_TREE SCRIPT ARGUMENTS... < lineage

It knows a BPE tokenizer by a hash over sample text and refuses others. A tokenizer made elsewhere with a split pattern
that llama.cpp implements is as good: such a one is told by the pattern in its tokenizer.json. What llama.cpp does not
do with a text is written down for the chat server, in the keys of `llama/tokenizer.py`. What stands on standard input
becomes the file's lineage.
"""

import json
import os
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, TypedDict

from common.imports import importing, leave_out_sklearn
from llama.byte_pairs import PATTERNS
from llama.tokenizer import FIRST_SPACE, IN_WORDS, NORMAL_FORM, PLAIN_TOKENS, STRIP_AFTER, STRIP_BEFORE, WORDS
from pipeline.gguf.ends import told_ends
from pipeline.gguf.lineage_key import LINEAGE_KEY
from pipeline.gguf.tokenizer_json import (
    adds_bos,
    merges_by_id,
    normal_form,
    plain_tokens,
    prepend_scheme,
    read_tokenizer,
    split_pattern,
    stripping_tokens,
    tokens_in_words,
)  # fmt: skip
from pipeline.models.families import DIGITS_BY_THREES, pre_tokenizers

if TYPE_CHECKING:
    import gguf
    import torch


class Hparams(TypedDict, total=False):
    """The configuration of the model that is converted, as far as it is asked here."""

    vocab_size: int
    eos_token_id: int | list[int] | None


class Converter(Protocol):
    """What is asked of llama.cpp's converter of a model, and the methods that are replaced."""

    dir_model: Path
    hparams: Hparams
    ftype: int
    gguf_writer: "gguf.GGUFWriter"
    get_vocab_base_pre: "ClassVar[Callable[[Converter, object], str]]"
    get_vocab_base: "ClassVar[Callable[[Converter], tuple[list[str], list[int], str]]]"
    set_vocab: "ClassVar[Callable[[Converter], None]]"
    _set_vocab_gpt2: "Callable[[], None]"
    prepare_metadata: "ClassVar[Callable[[Converter, bool], None]]"
    get_tensors: "ClassVar[Callable[[Converter], Iterator[tuple[str, torch.Tensor]]]]"


def _run_script(tree: str, script: str, *arguments: str) -> None:
    """Run a converter in this process, as we want it."""
    os.environ.pop("NO_LOCAL_GGUF", None)
    leave_out_sklearn()
    sys.path.insert(0, tree)
    sys.path.insert(1, str(Path(tree) / "gguf-py"))
    with importing():
        from conversion.base import ModelBase, TextModel
        from conversion.phi import Phi3MiniModel

    _know_split_patterns(TextModel)
    _leave_out_tokens_beyond(TextModel)
    _take_phi_without_sentencepiece(Phi3MiniModel)
    _say_what_is_left_to_do(TextModel, sys.stdin.read())
    _halve_directly(ModelBase)
    sys.argv = [script, *arguments]
    runpy.run_path(str(Path(tree) / script), run_name="__main__")


def _know_split_patterns(text_model: type[Converter]) -> None:
    """Tell a tokenizer that the converter does not know by its pattern."""
    by_hash = text_model.get_vocab_base_pre

    def by_hash_or_pattern(self: Converter, tokenizer: object) -> str:
        made = read_tokenizer(self.dir_model)
        pattern, names = split_pattern(made), pre_tokenizers()
        if name := name_of(pattern):
            return names[name]
        # The hash of Llama 3's without BOS, as SmolLM3 has it, is that of one that takes no word whole without merges.
        if pattern == DIGITS_BY_THREES and made["model"].get("ignore_merges"):
            return names[pattern]
        try:
            return by_hash(self, tokenizer)
        except NotImplementedError:
            if pattern not in names:
                raise
            return names[pattern]

    text_model.get_vocab_base_pre = by_hash_or_pattern


def name_of(pattern: str | None) -> str | None:
    """Return what the chat server calls a split pattern that it knows and llama.cpp does not."""
    return next((name for name, candidate in PATTERNS.items() if candidate == pattern), None)


def _leave_out_tokens_beyond(text_model: type[Converter]) -> None:
    """Leave out tokens that the model has no row for, such as one for images in a model of texts."""
    whole = text_model.get_vocab_base

    def within(self: Converter) -> tuple[list[str], list[int], str]:
        rows = self.hparams.get("vocab_size")
        read = read_tokenizer(self.dir_model)
        beyond = max((token["id"] for token in read.get("added_tokens", [])), default=0) + 1
        if rows is None or beyond <= rows:
            return whole(self)
        self.hparams["vocab_size"] = beyond
        try:
            tokens, kinds, pre = whole(self)
        finally:
            self.hparams["vocab_size"] = rows
        return tokens[:rows], kinds[:rows], pre

    text_model.get_vocab_base = within


def _take_phi_without_sentencepiece(phi: type[Converter]) -> None:
    """Tell Phi-4, which has no SentencePiece, by its files: Transformers writes another class name than it had."""
    by_class = phi.set_vocab

    def by_files(self: Converter) -> None:
        by_class(self) if (self.dir_model / "tokenizer.model").is_file() else self._set_vocab_gpt2()

    phi.set_vocab = by_files


def _say_what_is_left_to_do(text_model: type[Converter], lineage: str) -> None:
    """Write the lineage, the keys of `llama/tokenizer.py`, and the ends of an answer that llama.cpp must be told of."""
    prepare = text_model.prepare_metadata

    def and_say(self: Converter, vocab_only: bool) -> None:
        prepare(self, vocab_only)
        writer, tokenizer = self.gguf_writer, read_tokenizer(self.dir_model)
        metadata = {key: value.value for written in writer.kv_data for key, value in written.items()}
        if lineage:
            writer.add_string(LINEAGE_KEY, lineage)
        if "tokenizer.ggml.model" not in metadata:  # an adapter has none
            return
        if "tokenizer.ggml.add_bos_token" not in metadata:  # llama.cpp would go by the tokenizer's kind
            writer.add_add_bos_token(adds_bos(tokenizer))
        writer.add_string(NORMAL_FORM, normal_form(tokenizer))
        if plain := plain_tokens(tokenizer):
            writer.add_string(PLAIN_TOKENS, json.dumps(plain))
        if found := tokens_in_words(tokenizer):
            writer.add_string(IN_WORDS, json.dumps(found))
        for key, stripping in (
            (STRIP_BEFORE, stripping_tokens(tokenizer, "lstrip")),
            (STRIP_AFTER, stripping_tokens(tokenizer, "rstrip")),
        ):
            if stripping:
                writer.add_string(key, json.dumps(stripping))
        for key, end in told_ends(self.dir_model, self.hparams, metadata).items():
            writer.add_uint32(key, end)
        if (name := name_of(split_pattern(tokenizer))) and merges_by_id(tokenizer):
            writer.add_string(WORDS, name)
        if prepend_scheme(tokenizer) == "first":
            writer.add_bool(FIRST_SPACE, True)
            writer.add_add_space_prefix(False)

    text_model.prepare_metadata = and_say


def _halve_directly(model_base: type[Converter]) -> None:
    """Take bf16 matrices to F16 at once: by way of float32, with the same result, take three times the memory."""
    import gguf
    import torch

    get_tensors = model_base.get_tensors

    def in_half(self: Converter) -> Iterator[tuple[str, "torch.Tensor"]]:
        for name, tensor in get_tensors(self):
            direct = (
                self.ftype == gguf.LlamaFileType.MOSTLY_F16 and tensor.dtype == torch.bfloat16 and tensor.dim() == 2
            )
            yield name, tensor.to(torch.float16) if direct else tensor

    model_base.get_tensors = in_half


if __name__ == "__main__":
    _run_script(*sys.argv[1:])
