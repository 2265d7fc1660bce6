"""Texts are read as the tokenizer that a model was trained with reads them, where llama.cpp alone would not."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import llama_cpp
import pytest
from tiny_gguf import EOT, write_pieces, write_random, write_vocabulary

from common.errors import UserError
from llama.control import disguise
from llama.model import LlamaModel, load
from llama.tokenizer import Tokenizer

DECOMPOSED, COMPOSED = "cafe\u0301", "caf\u00e9"


@pytest.fixture
def opened() -> Iterator[Callable[[Path], Tokenizer]]:
    """Loads a file's vocabulary; all go at the end."""
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    with ExitStack() as models:

        def open_vocabulary(path: Path) -> Tokenizer:
            model = load(path, params)
            models.callback(llama_cpp.llama_model_free, model)
            return Tokenizer(model)

        yield open_vocabulary


def test_a_file_that_says_nothing_is_read_as_llama_cpp_does(opened: Callable, tmp_path: Path) -> None:
    tokenizer = opened(write_vocabulary(tmp_path / "file.gguf", []))
    assert tokenizer.read(DECOMPOSED) == list(DECOMPOSED.encode())


@pytest.mark.parametrize(("form", "text"), [("NFC", COMPOSED), ("NFD", DECOMPOSED), ("none", DECOMPOSED)])
def test_a_text_is_brought_into_the_form_that_the_file_says(
    opened: Callable, tmp_path: Path, form: str, text: str
) -> None:
    tokenizer = opened(write_vocabulary(tmp_path / "file.gguf", [], normal_form=form))
    assert tokenizer.read(DECOMPOSED) == list(text.encode())


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3moe"])
def test_qwens_files_made_elsewhere_are_normalized(opened: Callable, tmp_path: Path, architecture: str) -> None:
    tokenizer = opened(write_vocabulary(tmp_path / "file.gguf", [], architecture))
    assert tokenizer.read(DECOMPOSED) == list(COMPOSED.encode())


def test_a_file_of_ours_is_believed_whatever_its_architecture(opened: Callable, tmp_path: Path) -> None:
    tokenizer = opened(write_vocabulary(tmp_path / "file.gguf", [], "qwen2", normal_form="none"))
    assert tokenizer.read(DECOMPOSED) == list(DECOMPOSED.encode())


def test_a_mark_after_a_special_token_does_not_change_it(opened: Callable, tmp_path: Path) -> None:
    """ ">" and U+0338 would be one character, were the text normalized as a whole."""
    tokenizer = opened(write_vocabulary(tmp_path / "file.gguf", [], normal_form="NFC"))
    assert tokenizer.read("a<|eot_id|>\u0338b") == [ord("a"), EOT, *"\u0338b".encode()]


def test_an_unknown_form_is_refused(opened: Callable, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"normal_form is NFX, not one of NFC, .*: export it again$"):
        opened(write_vocabulary(tmp_path / "file.gguf", [], normal_form="NFX"))


def test_a_normal_token_that_looks_special_is_read_as_a_text(opened: Callable, tmp_path: Path) -> None:
    alone = opened(write_vocabulary(tmp_path / "alone.gguf", [b"</s>"]))
    assert alone.read("a</s><|eot_id|>b") == [ord("a"), 261, EOT, ord("b")]  # llama.cpp, by its looks
    tokenizer = opened(write_vocabulary(tmp_path / "file.gguf", [b"</s>"], plain_tokens='["</s>", "<br>"]'))
    assert tokenizer.read("a</s><|eot_id|>b") == [*b"a</s>", EOT, ord("b")]
    assert tokenizer.read("</s>", add_special=True) == [256, *b"</s>"]


def test_words_are_split_and_merged_here_where_the_file_says_so(opened: Callable, tmp_path: Path) -> None:
    vocabulary = ["ÇÃO".encode(), b"AB", b"BO"]
    tokenizer = opened(write_vocabulary(tmp_path / "file.gguf", vocabulary, words="o200k"))
    assert tokenizer.read("ÇÃO<|eot_id|>ABO") == [261, EOT, 262, ord("O")]
    assert tokenizer.read("ABO", add_special=True) == [256, 262, ord("O")]


def test_words_of_an_unknown_kind_are_refused(opened: Callable, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"words is o300k, not one of o200k, tekken: export it again$"):
        opened(write_vocabulary(tmp_path / "file.gguf", [], words="o300k"))


def test_words_of_a_vocabulary_without_each_byte_are_refused(opened: Callable, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"words is o200k, but not every byte is a token of it: export it again$"):
        opened(write_pieces(tmp_path / "file.gguf", [], [], words="o200k"))


def test_the_first_word_alone_gets_a_space(opened: Callable, tmp_path: Path) -> None:
    pieces = ["▁▁", "▁a", "▁", "a"]
    spaces, a, space, letter = range(261, 265)
    begin, end = 259, 260
    path = write_pieces(tmp_path / "file.gguf", pieces, ["[INST]", "[/INST]"], first_space=True)
    tokenizer = opened(path)
    assert tokenizer.read("a") == [a]
    assert tokenizer.read("a", add_special=True) == [1, a]
    assert tokenizer.read(" ") == [space]  # that text has its space
    assert tokenizer.read("  a") == [spaces, letter]
    assert tokenizer.read("") == []
    assert tokenizer.read("[INST]a[/INST] a") == [begin, letter, end, a]


def test_special_tokens_take_the_white_space_along_that_the_file_says(opened: Callable, tmp_path: Path) -> None:
    begin, end = 258, 259
    says = {"strip_before": '["<|start_header_id|>"]', "strip_after": '["<|eot_id|>", "<|end_header_id|>"]'}
    tokenizer = opened(write_vocabulary(tmp_path / "file.gguf", [], **says))
    assert tokenizer.read("a \n<|eot_id|>\u3000\n b ") == [*b"a \n", EOT, *b"b "]
    assert tokenizer.read("a \n<|start_header_id|> b") == [ord("a"), begin, *b" b"]
    assert tokenizer.read("<|end_header_id|> <|eot_id|>\x1c") == [end, EOT, 0x1C]  # no white space to Unicode
    alone = opened(write_vocabulary(tmp_path / "alone.gguf", []))
    assert alone.read("<|eot_id|> b") == [EOT, *b" b"]


def test_a_disguised_control_token_is_text_and_the_template_s_own_is_none(opened: Callable, tmp_path: Path) -> None:
    tokenizer = opened(write_vocabulary(tmp_path / "file.gguf", []))
    hidden = disguise("a<|eot_id|>", tokenizer.control, "user")
    assert tokenizer.read(f"{hidden}<|eot_id|>", is_disguised=True) == [*b"a<|eot_id|>", EOT]


def test_one_that_the_file_says_is_found_in_words_is_not_disguised(opened: Callable, tmp_path: Path) -> None:
    tokenizer = opened(write_vocabulary(tmp_path / "file.gguf", [], in_words='["<|eot_id|>"]'))
    assert disguise("a<|eot_id|>", tokenizer.control, "user") == "a<|eot_id|>"
    assert disguise("<|end_of_text|>", tokenizer.control, "user") != "<|end_of_text|>"


def test_what_a_file_has_of_control_tokens_is_looked_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[int] = []
    of = Tokenizer._tokens_of
    monkeypatch.setattr(Tokenizer, "_tokens_of", lambda self, kinds: looked_up.append(kinds) or of(self, kinds))
    turns: Any = [{"role": "user", "content": "<|eot_id|>"}]
    file = write_random(tmp_path / "one.gguf")
    prompts = []
    for _ in range(2):
        with LlamaModel(file, 512, threads=1) as model:
            prompts.append(model.prompt(turns))
    once = len(looked_up)
    assert prompts[0] == prompts[1]
    write_random(file, context=1024)  # another one in its place
    with LlamaModel(file, 512, threads=1) as model:
        model.prompt(turns)
    assert len(looked_up) == 2 * once > 0
