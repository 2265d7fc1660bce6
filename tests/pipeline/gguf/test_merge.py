"""Base and adapter as one model's folder: the weights that PEFT's merge gives, whatever way they are written."""

import json
import shutil
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import trained
from huggingface_hub import constants
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.errors import UserError
from pipeline.core.config import Config, ModelSettings
from pipeline.gguf import merge as module
from pipeline.gguf.merge import NotPlain, base_folder, link, merge, plan_deltas, weight_files, write_shards
from pipeline.models import vocabulary
from pipeline.models.loading import load_base


@pytest.fixture
def settings(tuned_config: Callable[..., Config]) -> ModelSettings:
    return tuned_config().model


def by_peft(starter: Path, adapter: Path) -> dict[str, torch.Tensor]:
    """PEFT's merge in float32."""
    base = load_base(str(starter), None, "cpu", torch.float32)
    return PeftModel.from_pretrained(base, str(adapter)).merge_and_unload().state_dict()


def assert_same(folder: Path, expected: dict[str, torch.Tensor], dtype: torch.dtype = torch.float32) -> None:
    """The same weights, but for the order in which they were added up."""
    merged = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert merged.keys() == expected.keys()
    for name, tensor in expected.items():
        assert merged[name].dtype == dtype
        close = {"rtol": 1e-5, "atol": 1e-7} if dtype == torch.float32 else {"rtol": 2**-7, "atol": 1e-6}
        torch.testing.assert_close(merged[name].float(), tensor, **close)


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


@pytest.mark.parametrize(
    "lora",
    [
        {},
        {"r": 9, "use_rslora": True},
        {"rank_pattern": {"up_proj": 2}, "alpha_pattern": {r"layers\.1\.self_attn\.q_proj": 30}},
    ],
    ids=["plain", "rank-stabilised", "patterns"],
)
def test_the_weights_are_pefts(
    starter: Path, settings: ModelSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str], lora: dict[str, Any]
) -> None:
    adapter = trained(starter, tmp_path / "adapter", **lora)
    merge(settings, adapter, tmp_path / "merged")
    assert "in memory" not in capsys.readouterr().out
    assert_same(tmp_path / "merged", by_peft(starter, adapter))


def test_what_the_adapter_does_not_change_is_kept_as_the_base_has_it(
    starter: Path, settings: ModelSettings, tmp_path: Path
) -> None:
    adapter = trained(starter, tmp_path / "adapter")
    merge(settings, adapter, tmp_path / "merged")
    base, merged = stored(starter), stored(tmp_path / "merged")
    changed = {name for name in base if merged[name].dtype == torch.float32 != base[name].dtype}
    assert changed == {name for name in base if "q_proj" in name or "up_proj" in name}
    for name in base.keys() - changed:
        assert merged[name].dtype == base[name].dtype
        assert torch.equal(merged[name], base[name])


def test_a_model_to_publish_is_rounded_once(starter: Path, settings: ModelSettings, tmp_path: Path) -> None:
    adapter = trained(starter, tmp_path / "adapter")
    merge(settings, adapter, tmp_path / "merged", torch.bfloat16)
    assert_same(tmp_path / "merged", by_peft(starter, adapter), torch.bfloat16)
    assert json.loads((tmp_path / "merged/config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("lora", "reason"),
    [
        ({"use_dora": True}, "the adapter has use_dora"),
        ({"modules_to_save": ["norm"]}, "the adapter has modules_to_save"),
    ],
)
def test_what_is_no_sum_of_products_is_merged_in_memory_and_said(
    starter: Path, settings: ModelSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str], lora: Any, reason: str
) -> None:
    adapter = trained(starter, tmp_path / "adapter", **lora)
    merge(settings, adapter, tmp_path / "merged")
    assert f"merging in memory, the whole model at once: {reason}" in capsys.readouterr().out
    merged, base = stored(tmp_path / "merged"), stored(starter)
    assert all(tensor.dtype == torch.float32 for tensor in merged.values())
    assert any(not torch.equal(merged[name], base[name].float()) for name in base)


def test_an_adapter_for_other_names_than_the_bases_is_not_plain(tuned: Path) -> None:
    with pytest.raises(NotPlain, match=r"^the base has no tensor model\.layers\.0\.mlp\.down_proj\.weight$"):
        plan_deltas(tuned / "models/adapter", {"model.embed_tokens.weight"})


def test_a_folder_of_shards_is_the_same_model(
    starter: Path, settings: ModelSettings, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHARD_BYTES", 10**6)
    merge(settings, tuned / "models/adapter", tmp_path / "merged")
    shards = sorted((tmp_path / "merged").glob("*.safetensors"))
    assert len(shards) > 3
    assert all(path.stat().st_size < 1.2e6 for path in shards)
    assert_same(tmp_path / "merged", by_peft(starter, tuned / "models/adapter"))
    # And it can be a base itself.
    assert set(weight_files(tmp_path / "merged").values()) == set(shards)


def test_no_more_than_a_shard_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD_BYTES", 4000)
    alive: list[weakref.ref] = []

    def tensor(name: str) -> torch.Tensor:
        made = torch.zeros(1000, dtype=torch.bfloat16)
        alive.append(weakref.ref(made))
        assert sum(one() is not None for one in alive) <= 2
        return made

    write_shards(tmp_path, {f"t{index}": 2000 for index in range(8)}, tensor)
    assert len(list(tmp_path.glob("*.safetensors"))) == 4


def test_configuration_and_tokenizer_are_those_that_were_trained_with(
    starter: Path, settings: ModelSettings, tuned: Path, tmp_path: Path
) -> None:
    adapter = shutil.copytree(tuned / "models/adapter", tmp_path / "adapter")
    (adapter / "chat_template.jinja").write_text("{% generation %}of training{% endgeneration %}")
    merge(settings, adapter, tmp_path / "merged")
    assert "of training" in str(AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template)
    assert json.loads((tmp_path / "merged/config.json").read_text())["dtype"] == "float32"
    ends = json.loads((tmp_path / "merged/generation_config.json").read_text())["eos_token_id"]
    assert ends == [5, 1]


def test_a_full_fine_tune_is_taken_as_it_is(starter: Path, settings: ModelSettings, tmp_path: Path) -> None:
    merge(settings, starter, tmp_path / "model")
    assert (tmp_path / "model/model.safetensors").resolve() == (starter / "model.safetensors").resolve()
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "model").config.num_hidden_layers > 0
    assert AutoTokenizer.from_pretrained(tmp_path / "model").chat_template


def test_a_quantized_base_is_refused_in_one_line(
    starter: Path, tuned: Path, tuned_config: Callable[..., Config], tmp_path: Path
) -> None:
    base = shutil.copytree(starter, tmp_path / "base")
    config = json.loads((base / "config.json").read_text()) | {"quantization_config": {"quant_method": "bitsandbytes"}}
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"base is quantized; set model\.merge_path to the 16-bit weights") as raised:
        merge(tuned_config(f"model.merge_path={base}").model, tuned / "models/adapter", tmp_path / "merged")
    assert "\n" not in str(raised.value)


def test_a_cut_shard_is_refused_in_one_line(starter: Path, tmp_path: Path) -> None:
    base = shutil.copytree(starter, tmp_path / "base")
    (base / "model.safetensors").write_bytes((starter / "model.safetensors").read_bytes()[:100_000])
    with pytest.raises(UserError, match=r"model .*base cannot be loaded \(") as raised:
        weight_files(base)
    assert "\n" not in str(raised.value)


def test_a_base_of_the_hub_is_taken_at_its_revision(
    starter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for commit in ("a" * 40, "b" * 40):
        shutil.copytree(starter, tmp_path / "models--org--base/snapshots" / commit)
    assert base_folder("org/base", "b" * 40).name == "b" * 40
    with pytest.raises(UserError, match=r"model org/base is no folder here and not to be had from the hub") as raised:
        base_folder("org/base", "c" * 40)
    assert "\n" not in str(raised.value)


def test_the_vocabulary_that_a_tokenizer_was_made_of_goes_with_it(
    starter: Path, settings: ModelSettings, tuned: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(starter, tmp_path / "base")
    (base / "tokenizer.model").write_bytes(b"of the base")
    adapter = shutil.copytree(tuned / "models/adapter", tmp_path / "adapter")
    merge(replace(settings, path=str(base)), adapter, tmp_path / "merged")
    assert (tmp_path / "merged/tokenizer.model").read_bytes() == b"of the base"
    (adapter / "tokenizer.model").write_bytes(b"of training")
    link(base, adapter, tmp_path / "linked")
    assert (tmp_path / "linked/tokenizer.model").read_bytes() == b"of training"


def test_the_hub_is_asked_for_it_too(starter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(
        vocabulary, "snapshot_download", lambda *_, allow_patterns, **__: asked.append(allow_patterns) or str(tmp_path)
    )
    assert base_folder("org/base", None) == tmp_path
    assert {"tokenizer.model", "*.safetensors", "*.json"} <= set(asked[0])
