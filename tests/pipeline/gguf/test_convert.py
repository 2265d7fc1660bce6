"""What the converter writes reads texts as Hugging Face does, and what it cannot write is refused."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp
import pytest
from gguf import GGUFReader
from transformers import AutoTokenizer

from common.errors import UserError
from llama.model import load, metadata
from llama.tokenizer import WORDS
from pipeline.gguf.convert import convert, last_error
from pipeline.gguf.tokenizer_json import (
    adds_bos,
    merges_by_id,
    normal_form,
    plain_tokens,
    prepend_scheme,
    read_tokenizer,
    split_pattern,
    tokens_in_words,
    unknown_steps,
)  # fmt: skip
from pipeline.gguf.verify import read_original, verify
from pipeline.models.families import pre_tokenizers

TEXTS = {
    "plain": "The capital of France is Paris.",
    "empty": "",
    "digits": "0 7 42 365 1,234,567.89 007 3.14e-10 2026-11-21",
    "other digits": "٣٤٥ ४२ ½ ⅷ ²³ ①②",
    "contractions": "I'm, you'RE, we'll, they'd've, rock 'n' roll, it's O'Reilly's",
    "accents": "Größe, façade, naïve, Łódź, cafe\u0301",
    "scripts": "日本語 中文字 한국어 العربية עברית हिन्दी ไทย Ελληνικά",
    "emoji": "👍 👩‍👩‍👧‍👦 🇫🇷 ☃️",
    "spaces": "  two  three   spaces ",
    "lines": "\n\none\r\n\r\ntwo\n \n  three\t\tfour \n",
    "only spaces": "     ",
    "odd spaces": "a\u00a0b\u2003c\u200bd\ufeffe",
    "punctuation": "((a)) ... --- !!! ?!? {\"key\": [1, 'two']} </s> a_b-c/d\\e",
    "controls": "a\x01b\x7fc",
    "special tokens": "<|begin_of_text|>a<|eot_id|> <|end_header_id|>\n\n <|eot_id|><|eot_id|>",
    "nearly special": "<|eot_id> <|EOT_ID|> <| eot_id |> <|finetune_right_pad_id|",
    "long word": "antidisestablishmentarianism" * 20,
}
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "  What's 12 + 345?\n"},
    {"role": "assistant", "content": "12 + 345 = 357."},
]


@contextmanager
def vocabulary(file: Path) -> Iterator[Any]:
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = load(file, params)
    try:
        yield llama_cpp.llama_model_get_vocab(model)
    finally:
        llama_cpp.llama_model_free(model)


def token_ids(vocabulary: Any, text: str, add_special: bool = False) -> list[int]:
    encoded = text.encode()
    tokens = (llama_cpp.llama_token * (len(encoded) + 2))()
    count = llama_cpp.llama_tokenize(vocabulary, encoded, len(encoded), tokens, len(tokens), add_special, True)
    assert count >= 0
    return list(tokens[:count])


def with_pattern(starter: Path, folder: Path, pattern: str) -> Path:
    """A copy of a model whose tokenizer splits texts by another pattern."""
    shutil.copytree(starter, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": pattern}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    return folder


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_token_ids_equal_hugging_faces(ggufs: dict[str, Path], starter: Path, text: str) -> None:
    expected = AutoTokenizer.from_pretrained(starter)(text, add_special_tokens=False)["input_ids"]
    with vocabulary(ggufs["F32"]) as vocab:
        assert token_ids(vocab, text) == expected


@pytest.mark.parametrize("prompt", [False, True])
def test_a_rendered_conversation_has_the_ids_that_training_saw(
    ggufs: dict[str, Path], starter: Path, prompt: bool
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(starter)
    messages = CHAT[:2] if prompt else CHAT
    expected = tokenizer.apply_chat_template(messages, add_generation_prompt=prompt, return_dict=True)["input_ids"]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=prompt, tokenize=False)
    with vocabulary(ggufs["F32"]) as vocab:
        assert token_ids(vocab, text) == expected  # the template writes BOS: none is added
        assert [llama_cpp.llama_vocab_is_eog(vocab, i) for i in tokenizer.convert_tokens_to_ids(
            ["<|eot_id|>", "<|end_of_text|>", "<|end_header_id|>"]
        )] == [True, True, False]  # fmt: skip


def test_the_file_carries_the_tokenizers_kind_and_the_chat_template(ggufs: dict[str, Path], starter: Path) -> None:
    fields = GGUFReader(ggufs["F32"]).fields
    assert fields["tokenizer.ggml.pre"].contents() == "qwen2"
    assert fields["general.architecture"].contents() == "llama"
    template = (starter / "chat_template.jinja").read_text(encoding="utf-8")
    assert fields["tokenizer.chat_template"].contents().rstrip("\n") == template.rstrip("\n")


def test_the_starter_splits_by_a_pattern_that_llama_cpp_knows(starter: Path) -> None:
    assert pre_tokenizers()[split_pattern(read_tokenizer(starter)) or ""] == "qwen2"


@pytest.mark.parametrize(
    ("pre_tokenizer", "pattern"),
    [
        (None, None),
        ({"type": "ByteLevel"}, None),
        ({"type": "Split", "pattern": {"Regex": "a+"}}, "a+"),
        ({"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "b"}}, {"type": "X"}]}, "b"),
        ({"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"String": " "}}]}, None),
    ],
)
def test_the_split_pattern_is_found_where_there_is_one(pre_tokenizer: dict | None, pattern: str | None) -> None:
    assert split_pattern({"pre_tokenizer": pre_tokenizer}) == pattern


def test_an_unknown_split_pattern_is_refused_in_one_line(tmp_path: Path, starter: Path) -> None:
    model = with_pattern(starter, tmp_path / "model", r"\s+|\S+")
    with pytest.raises(UserError, match=r"^llama\.cpp's converter cannot write out\.gguf from .*model: ") as raised:
        convert(model, tmp_path / "out.gguf", "F16")
    assert "BPE pre-tokenizer was not recognized" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_folder_that_is_no_model_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^llama\.cpp's converter cannot write out\.gguf") as raised:
        convert(tmp_path, tmp_path / "out.gguf", "F16")
    assert "\n" not in str(raised.value)


def test_an_error_without_words_is_told_by_its_place() -> None:
    output = (
        'Traceback (most recent call last):\n  File "/a/convert_hf_to_gguf.py", line 9, in <module>\n    main()\n'
        '  File "/a/conversion/base.py", line 1587, in get_vocab_base\n    assert max(ids) < size\nAssertionError\n'
    )
    said = last_error(output)
    assert said.startswith("AssertionError in line 1587 of its base.py (assert max(ids) < size)")
    assert last_error(output + "ValueError: no such thing\nbar: 100%") == "ValueError: no such thing"


def test_a_token_that_the_model_has_no_row_for_is_left_out(starter: Path, tmp_path: Path) -> None:
    model = shutil.copytree(starter, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(starter)
    tokenizer.add_tokens(["<image>"])
    tokenizer.save_pretrained(model)
    convert(model, tmp_path / "out.gguf", "F16")
    tokens = GGUFReader(tmp_path / "out.gguf").fields["tokenizer.ggml.tokens"].contents()
    assert len(tokens) == 2048
    assert "<image>" not in tokens


def with_ends(starter: Path, folder: Path, ends: list[str]) -> Path:
    """A copy of a model whose answers end at other tokens."""
    shutil.copytree(starter, folder)
    ids = AutoTokenizer.from_pretrained(starter).convert_tokens_to_ids(ends)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
    return folder


def test_tokens_that_llama_cpp_does_not_know_as_ends_end_an_answer(starter: Path, tmp_path: Path) -> None:
    ends = ["<|eot_id|>", "<|start_header_id|>", "<|end_of_text|>", "<|end_header_id|>"]
    model = with_ends(starter, tmp_path / "model", ends)
    convert(model, tmp_path / "out.gguf", "F16")
    assert len(read_original(model).ends) == len(ends)
    verify(tmp_path / "out.gguf", read_original(model))


def test_more_such_ends_than_a_file_can_name_are_refused_in_one_line(starter: Path, tmp_path: Path) -> None:
    ends = ["<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|finetune_right_pad_id|>"]
    with pytest.raises(
        UserError, match=r"know '<\|start.*_pad_id\|>' as ends of an answer, and a file can name 2"
    ) as told:
        convert(with_ends(starter, tmp_path / "model", ends), tmp_path / "out.gguf", "F16")
    assert "\n" not in str(told.value)


def with_added_tokens(starter: Path, folder: Path, **settings: bool) -> Path:
    """A copy of a model whose added tokens are found otherwise in a text."""
    shutil.copytree(starter, folder)
    tokenizer = read_tokenizer(folder)
    for token in tokenizer["added_tokens"]:
        token |= settings
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    return folder


def test_white_space_that_added_tokens_take_along_is_taken_by_the_chat(
    starter: Path, ggufs: dict[str, Path], tmp_path: Path
) -> None:
    model = with_added_tokens(starter, tmp_path / "model", lstrip=True, rstrip=True)
    original = read_original(model)
    convert(model, tmp_path / "out.gguf", "F16")
    verify(tmp_path / "out.gguf", original)
    with pytest.raises(UserError, match=r"other token ids than the original's"):
        verify(ggufs["F16"], original)


def test_added_tokens_that_are_none_within_a_word_are_refused(
    starter: Path, ggufs: dict[str, Path], tmp_path: Path
) -> None:
    original = read_original(with_added_tokens(starter, tmp_path / "model", single_word=True))
    with pytest.raises(UserError, match=r"texts: other token ids than the original's"):
        verify(ggufs["F16"], original)


@pytest.mark.parametrize(
    ("normalizer", "form", "unknown"),
    [
        (None, "none", []),
        ({"type": "NFC"}, "NFC", []),
        ({"type": "Sequence", "normalizers": []}, "none", []),
        ({"type": "Sequence", "normalizers": [{"type": "Prepend"}, {"type": "Replace"}]}, "none", []),
        ({"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}]}, "NFKC", ["Lowercase"]),
    ],
)
def test_what_is_done_to_texts_first_is_told(normalizer: dict | None, form: str, unknown: list[str]) -> None:
    assert normal_form({"normalizer": normalizer}) == form
    assert unknown_steps({"normalizer": normalizer}) == unknown


def test_normal_tokens_that_look_special_are_told() -> None:
    vocabulary = {"</s>": 0, "<|end|>": 1, "<0x0A>": 2, "<": 3, "a>": 4}
    added = [{"content": "<|end|>"}]
    assert plain_tokens({"model": {"vocab": vocabulary}, "added_tokens": added}) == ["</s>"]


def test_added_tokens_that_are_found_in_words_are_told() -> None:
    controls = [{"content": "<s>", "special": True}, {"content": "<|end|>"}]
    others = [{"content": name} for name in ("</s>", "<unused0>", "[multimodal]", "  ")]
    assert tokens_in_words({"added_tokens": [*controls, *others]}) == ["</s>", "<unused0>"]


@pytest.mark.parametrize(
    ("single", "adds"), [([{"SpecialToken": {"id": "<s>"}}, {"Sequence": {}}], True), ([{"Sequence": {}}], False)]
)
def test_whether_bos_is_added_is_told(single: list[dict], adds: bool) -> None:
    processor = {"type": "TemplateProcessing", "single": single}
    assert adds_bos({"post_processor": processor}) is adds
    assert adds_bos({"post_processor": {"type": "Sequence", "processors": [{"type": "ByteLevel"}, processor]}}) is adds


def test_a_space_before_the_first_word_alone_is_told() -> None:
    assert prepend_scheme({"pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "first"}}) == "first"
    assert prepend_scheme({"pre_tokenizer": {"type": "ByteLevel"}}) is None


O200K = (  # as gpt-oss and Phi-4-mini have it
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = (  # as Mistral Nemo and its successors have it
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.mark.parametrize(
    ("pattern", "name", "for_others"),
    [(O200K, "o200k", "granite-embed-multi-97m"), (TEKKEN, "tekken", "tiny_aya")],
)
def test_a_pattern_that_llama_cpp_has_in_part_is_told_by_itself(
    starter: Path, tmp_path: Path, pattern: str, name: str, for_others: str
) -> None:
    with_pattern(starter, tmp_path / "model", pattern)
    convert(tmp_path / "model", tmp_path / "model.gguf", "F16")
    said = metadata(tmp_path / "model.gguf")
    assert (said[WORDS], said["tokenizer.ggml.pre"]) == (name, for_others)


def test_whether_pairs_are_merged_in_the_order_of_ids_is_told() -> None:
    vocabulary = {"a": 0, "b": 1, "ab": 2, "ba": 3}
    assert merges_by_id({"model": {"vocab": vocabulary, "merges": ["a b", "b a"]}})
    assert not merges_by_id({"model": {"vocab": vocabulary, "merges": [["b", "a"], ["a", "b"]]}})
