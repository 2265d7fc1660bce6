"""What is known of families by name: that each kind of row is used, what happens without one, and how one is added."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer, Cohere2Config, GraniteConfig, LlamaConfig

from llama.byte_pairs import PATTERNS
from pipeline.core.config import ModelSettings
from pipeline.gguf.converter import _know_split_patterns
from pipeline.gguf.verify import architecture
from pipeline.models import families
from pipeline.models.chat import load_tokenizer, template_of, unknown_switches
from pipeline.models.families import FAMILIES, Family, pre_tokenizers
from pipeline.models.heads import does_more, is_known_to_do_more
from pipeline.models.turns import Switched
from pipeline.publishing.licences import terms_of_base
from pipeline.training.loss import learn_from_supervised

REPO = Path(__file__).parents[3]
STARTER = REPO / "starter/models/starter-s"
SHAPE: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip
# Thinks until it is told `ponder_or_think=off`, as no family's template is.
TEMPLATE = """{% for m in messages %}<|start|>{{ m.role }}
{{ m.content }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start|>assistant
{% if ponder_or_think is defined and not ponder_or_think %}<think>

</think>

{% endif %}{% endif %}"""
NEW = Family(
    name="New",
    gguf={"new_moe": "llama"},
    split=r"\p{L}+|\s",
    pre="new-bpe",
    padding=("<|new_pad|>",),
    brief={"ponder_or_think": False},
    head=("logits_pre_scale",),
)

# What llama.cpp's converter calls each type of Transformers that both know, and what we expect it to.
CONVERTED = """
import sys
from llama.source import llama_cpp_tree
tree = str(llama_cpp_tree())
sys.path[:0] = [tree, tree + "/gguf-py"]
sys.modules["sklearn"] = None
import conversion, gguf
from conversion.base import ModelBase, ModelType
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CLASSES
from pipeline.gguf.verify import architecture
conversion.load_all_models()
known = ModelBase._model_classes[ModelType.TEXT]
for kind, name in CLASSES.items():
    if name in known:
        print(kind, gguf.MODEL_ARCH_NAMES[known[name].model_arch], architecture(kind))
"""


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "FAMILIES", (*FAMILIES, NEW))


@pytest.fixture
def model(tmp_path: Path) -> ModelSettings:
    """A model of a family that no row is there for."""
    folder = tmp_path / "model"
    tokenizer = AutoTokenizer.from_pretrained(STARTER)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|start|>"]})
    tokenizer.chat_template, tokenizer.pad_token = TEMPLATE, None
    tokenizer.save_pretrained(folder)
    vocabulary = (folder / "tokenizer.json").read_text(encoding="utf-8")
    for token, other in (("finetune_right_pad_id", "new_pad"), ("reserved_special_token_0", "new")):
        vocabulary = vocabulary.replace(f"<|{token}|>", f"<|{other}|>")
    (folder / "tokenizer.json").write_text(vocabulary, encoding="utf-8")
    unset = dict.fromkeys(("revision", "merge_path", "merge_revision", "chat_template"))
    return ModelSettings(name="new", path=str(folder), load_in_4bit=False, **unset)


class Converter:
    """llama.cpp's, where it knows no tokenizer by its hash."""

    def __init__(self, folder: Path) -> None:
        self.dir_model = folder

    def get_vocab_base_pre(self, tokenizer: object) -> str:
        raise NotImplementedError("BPE pre-tokenizer was not recognized")


def pre_of(folder: Path, pattern: str) -> str:
    """What a file of a tokenizer that splits by a pattern names as its pre-tokenizer."""
    made = {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": pattern}}, "model": {}}
    (folder / "tokenizer.json").write_text(json.dumps(made))
    converter: Any = type("Patched", (Converter,), {})
    _know_split_patterns(converter)
    return converter(folder).get_vocab_base_pre(None)


def causal(config: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def test_a_family_without_a_row_is_said_to_be_unknown_or_refused(model: ModelSettings, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(model)
    assert tokenizer.pad_token == tokenizer.eos_token
    assert unknown_switches(tokenizer) == ["ponder_or_think"]
    assert terms_of_base("new-lab/New-1B") is None
    assert architecture("new_moe") is None
    with pytest.raises(NotImplementedError):
        pre_of(tmp_path, str(NEW.split))


@pytest.mark.usefixtures("added")
def test_a_family_is_added_by_one_row(model: ModelSettings, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(model)
    assert tokenizer.pad_token == "<|new_pad|>"
    assert unknown_switches(tokenizer) == []
    assert isinstance(template_of(tokenizer, tokenizer.get_chat_template()), Switched)
    assert architecture("new_moe") == "llama"
    assert pre_of(tmp_path, str(NEW.split)) == "new-bpe"
    tuned = causal(LlamaConfig(**SHAPE, logits_pre_scale=2.0))
    learn_from_supervised(tuned)
    assert does_more(tuned)
    assert not hasattr(tuned, "learns_from_supervised")


def test_rows_name_patterns_that_there_are() -> None:
    assert {family.words for family in FAMILIES if family.words} == set(PATTERNS)
    assert [family.name for family in FAMILIES if bool(family.pre) != bool(family.split or family.words)] == []
    patterns = [how for family in FAMILIES for how in (family.split, family.words) if how]
    assert len(patterns) == len(pre_tokenizers())
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


def test_a_pattern_is_told_by_its_family_s_pre_tokenizer(tmp_path: Path) -> None:
    assert pre_of(tmp_path, families.DIGITS_SINGLY) == "qwen2"
    assert pre_of(tmp_path, families.DIGITS_BY_THREES) == "llama-bpe"
    assert {name: pre_of(tmp_path, PATTERNS[name]) for name in PATTERNS} == {
        "o200k": "granite-embed-multi-97m",
        "tekken": "tiny_aya",
    }


def test_model_types_are_called_what_the_converter_calls_them() -> None:
    lines = subprocess.run([sys.executable, "-c", CONVERTED], capture_output=True, text=True, check=True).stdout
    called = {kind: (found, expected) for kind, found, expected in map(str.split, lines.splitlines())}
    assert [kind for kind, (found, expected) in called.items() if expected not in (found, "None")] == []
    assert len([expected for _, expected in called.values() if expected != "None"]) > 60
    named = {kind for family in FAMILIES for kind in family.gguf}
    assert sorted(named - called.keys()) == []


@pytest.mark.parametrize("unnamed", [False, True])
@pytest.mark.parametrize("config", [GraniteConfig(**SHAPE, logits_scaling=8.0), Cohere2Config(**SHAPE)])
def test_a_head_that_does_more_is_found_out_without_a_row(
    config: Any, unnamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_known_to_do_more(config)
    if unnamed:
        monkeypatch.setattr(families, "FAMILIES", ())
        assert not is_known_to_do_more(config)
    assert does_more(causal(config))


def test_a_head_that_multiplies_is_known_to_do_no_more() -> None:
    assert not does_more(causal(LlamaConfig(**SHAPE)))
    assert not does_more(causal(LlamaConfig(**SHAPE)).to(torch.bfloat16))


def test_every_preset_s_base_has_the_terms_of_a_row() -> None:
    presets = [yaml.safe_load(path.read_text("utf-8")) for path in (REPO / "conf/model").glob("*.yaml")]
    assert [preset["name"] for preset in presets if terms_of_base(preset["path"]) is None] == []
