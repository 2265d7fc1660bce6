"""A GGUF as a folder of Transformers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_wheel import TEMPLATE, write_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.errors import UserError
from common.files import sha256
from pipeline.models.dequantize import write_folder


def test_weights_are_those_that_transformers_reads(tmp_path: Path) -> None:
    file = write_model(tmp_path / "model.gguf")
    write_folder(file, tmp_path / "folder")
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "folder")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.bfloat16)
    read, expected = ours.state_dict(), theirs.state_dict()
    assert read.keys() == expected.keys()
    assert all(torch.equal(read[name], expected[name]) for name in expected)
    ids = torch.arange(20)[None]
    assert torch.equal(ours(ids).logits, theirs(ids).logits)
    assert ours.dtype == torch.bfloat16


def test_the_tokenizer_reads_and_writes_any_text(tmp_path: Path) -> None:
    write_folder(write_model(tmp_path / "model.gguf"), tmp_path / "folder")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "folder")
    assert tokenizer.tokenize("hello 10") == ["hell", "o", "Ġ", "1", "0"]
    assert tokenizer.tokenize("<|im_start|>hell") == ["<|im_start|>", "hell"]
    text = "naïve cafe\u0301  日本語\t🙂"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert [tokenizer.bos_token, tokenizer.eos_token] == ["<|im_start|>", "<|im_end|>"]
    assert [tokenizer.pad_token, tokenizer.unk_token] == ["<|im_end|>", "<|endoftext|>"]
    assert tokenizer.chat_template == TEMPLATE
    assert tokenizer.model_max_length == 128


def test_transformers_can_save_what_it_has_loaded(tmp_path: Path) -> None:
    write_folder(write_model(tmp_path / "model.gguf"), tmp_path / "folder")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "folder")
    model.save_pretrained(tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert again.generation_config.eos_token_id == model.generation_config.eos_token_id == 2
    assert again.config.tie_word_embeddings


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    file = write_model(tmp_path / "model.gguf")
    for name in ("one", "other"):
        write_folder(file, tmp_path / name)
    assert sha256(tmp_path / "one") == sha256(tmp_path / "other")
    assert "transformers_version" not in (tmp_path / "one/config.json").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general.architecture": "gemma3"}, "is of the architecture gemma3; only llama is known"),
        ({"llama.rope.scaling.type": "yarn"}, r"has or lacks llama\.rope\.scaling\.type, against"),
        ({"llama.feed_forward_length": None}, r"has or lacks llama\.feed_forward_length, against"),
        ({"tokenizer.ggml.pre": "qwen2"}, "has a gpt2 tokenizer with the split qwen2; gpt2 is known with smollm"),
        ({"tokenizer.ggml.model": "llama"}, "has a llama tokenizer with the split smollm"),
        ({"tokenizer.ggml.add_bos_token": True}, "begins every text with a token"),
        ({"tokenizer.ggml.padding_token_id": None}, r"lacks tokenizer\.ggml\.padding_token_id, without which"),
        ({"tokenizer.chat_template": None}, r"lacks tokenizer\.chat_template, without which"),
    ],
)
def test_what_is_not_known_in_a_file_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        write_folder(write_model(tmp_path / "model.gguf", changes), tmp_path / "folder")


@pytest.mark.parametrize("name", ["rope_freqs", "blk.0.attn_sinks", "None"])
def test_a_tensor_that_is_none_of_llamas_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=rf"has the tensor {name}\.weight, which is none of llama's"):
        write_folder(write_model(tmp_path / "model.gguf", tensor=name), tmp_path / "folder")
