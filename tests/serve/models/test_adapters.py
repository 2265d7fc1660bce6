"""Which base an adapter finds in a folder, and what is said of one that finds none."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from loras import write_lora
from tiny_gguf import write_random

from common.errors import UserError
from serve.models.cards import read_card
from serve.models.registry import find_models


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_random(tmp_path / "base.gguf")


def left_out(folder: Path, caplog: pytest.LogCaptureFixture, base: str = "") -> str:
    """What is said of the one adapter that is left out."""
    caplog.clear()
    assert "lora" not in find_models(folder, base=base)
    (line,) = caplog.messages
    return line.removeprefix(f"left out: {folder}/")


def with_keys(path: Path, **says: str) -> Path:
    """The same file with further keys; __ stands for a dot."""
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(path.with_suffix(".new"), "llama")
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            writer.add_key_value(key, field.contents(), field.types[0], field.types[-1] if field.types[1:] else None)
    for key, said in says.items():
        writer.add_string(key.replace("__", "."), said)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    path.with_suffix(".new").replace(path)
    return path


def lineage(of: str, digest: str) -> str:
    return json.dumps({"of": of, "base": {"digest": digest}})


def test_an_adapter_is_a_model_over_its_base_and_says_so(base: Path, tmp_path: Path) -> None:
    path = write_lora(tmp_path / "lora.gguf", base, 1)
    models = find_models(tmp_path, "lora")
    assert list(models) == ["base", "lora"]
    lora = models["lora"]
    assert (lora.base, lora.parts, lora.size) == ("base", (path,), path.stat().st_size)
    assert (lora.context, lora.chats, lora.quantization) == (512, True, "F32")
    assert lora.revision
    assert lora.revision != models["base"].revision
    card = read_card(lora)
    assert card.facts["Adapter"] == "a LoRA over base"
    assert card.facts["File"].startswith("lora.gguf, ")


def test_an_adapter_without_a_base_ends_no_start_and_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other, base = write_random(tmp_path / "other.gguf", width=96), write_random(tmp_path / "base", width=64)
    lora = write_lora(tmp_path / "lora.gguf", base, 1)
    told = left_out(tmp_path, caplog)
    misfit = "for other it adds to blk.0.attn_k.weight as 64 x 64, which is 96 x 96"
    assert told == f"lora.gguf is an adapter without its base: {misfit}"
    write_lora(lora, base, 1, architecture="qwen2")
    assert "for other it is for the architecture qwen2, not llama" in left_out(tmp_path, caplog)
    other.unlink()
    with pytest.raises(UserError, match=r"lora\.gguf is an adapter without its base: there is no model$"):
        find_models(tmp_path)


def test_of_several_bases_the_one_is_taken_that_lineage_name_or_setting_say(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_random(tmp_path / "tuned-Q8_0.gguf")
    lora = write_lora(tmp_path / "lora.gguf", base, 1)
    told = left_out(tmp_path, caplog)
    assert told == "lora.gguf is an adapter for any of base, tuned-Q8_0: name one of them in SERVE_BASE"
    assert find_models(tmp_path, base="base")["lora"].base == "base"
    with pytest.raises(UserError, match="SERVE_BASE=bass: there is no such model to answer; there is base, tuned"):
        find_models(tmp_path, base="bass")
    with_keys(lora, general__base_model__0__name="Tuned")
    assert find_models(tmp_path)["lora"].base == "tuned-Q8_0"
    with_keys(lora, tunesmith__lineage=lineage("adapter", "0a"))
    with_keys(base, tunesmith__lineage=lineage("tuned", "0a"))  # it has an adapter in it already
    assert find_models(tmp_path)["lora"].base == "tuned-Q8_0"
    with_keys(base, tunesmith__lineage=lineage("base", "0a"))
    assert find_models(tmp_path)["lora"].base == "base"
    (tmp_path / "tuned-Q8_0.gguf").unlink()
    with_keys(base, tunesmith__lineage=lineage("base", "0b"))
    assert "without its base: it was trained on another one than base" in left_out(tmp_path, caplog)


def test_two_adapters_of_one_name_end_the_start(base: Path, tmp_path: Path) -> None:
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        write_lora(tmp_path / folder / "lora.gguf", base, 1)
    with pytest.raises(UserError, match=r"two models are called lora: .*one/lora\.gguf and .*other/lora\.gguf"):
        find_models(f"{tmp_path / 'one'},{tmp_path / 'other'},{tmp_path}")


@pytest.mark.parametrize(
    ("others", "what"),
    [
        ({"says": {"adapter.alora.invocation_tokens": [1, 2]}}, "an aLoRA, which begins at its invocation tokens"),
        ({"only": "gone"}, "an adapter without tensors"),
    ],
)
def test_an_adapter_of_a_kind_that_is_not_served_is_named(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, others: dict[str, Any], what: str
) -> None:
    write_lora(tmp_path / "lora.gguf", base, 1, **others)
    assert left_out(tmp_path, caplog).startswith(f"lora.gguf is {what}")


@pytest.mark.parametrize(
    ("tensors", "what"),
    [
        ({"token_embd.weight.lora_a": (4, 261), "token_embd.weight.lora_b": (64, 4)}, "changes token_embd.weight"),
        ({"output_norm.weight": (64,)}, "changes output_norm.weight"),
        ({"blk.0.attn_q.weight.lora_a": (4, 64)}, "lacks one of the two factors of blk.0.attn_q.weight"),
        (
            {"blk.0.ffn_up_exps.weight.lora_a": (2, 4, 64), "blk.0.ffn_up_exps.weight.lora_b": (2, 64, 4)},
            "changes the experts of blk.0.ffn_up_exps.weight",
        ),
    ],
)
def test_an_adapter_of_what_is_not_served_is_named(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, tensors: dict[str, Sequence[int]], what: str
) -> None:
    writer = gguf.GGUFWriter(tmp_path / "lora.gguf", "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    for name, shape in tensors.items():
        writer.add_tensor(name, np.ones(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert left_out(tmp_path, caplog).startswith(f"lora.gguf {what}")


def test_a_cut_adapter_is_left_out(base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_lora(tmp_path / "lora.gguf", base, 1)
    path.write_bytes(path.read_bytes()[:-400])
    assert "ends before its last tensor does" in left_out(tmp_path, caplog)
