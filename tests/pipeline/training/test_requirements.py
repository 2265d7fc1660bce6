"""What a model cannot be trained with is refused from its configuration and tokenizer, before weights are read."""

from pathlib import Path

import pytest
import torch
from architectures import FAMILIES, STARTER, changed, made
from transformers import AutoTokenizer, DeepseekV3Config

from common.errors import UserError
from pipeline.core.composition import compose
from pipeline.core.config import Config, load
from pipeline.models.chat import load_tokenizer
from pipeline.models.loading import without_weights
from pipeline.training.requirements import asked, check

REPO = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each family's folder, without weights."""
    found = {family: made(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}
    for folder in found.values():
        (folder / "model.safetensors").unlink()
    return found


def config(folder: Path, *overrides: str) -> Config:
    lengths = ["train.max_length=512", "evaluate.max_length=512"]
    return load(compose(REPO / "conf", ["model=llama-3.2-1b", f"model.path={folder}", *lengths, *overrides]))


def checked(folder: Path, *overrides: str) -> None:
    settings = config(folder, *overrides)
    check(asked(settings, "", None), without_weights(settings.model), load_tokenizer(settings.model))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_defaults_fit_every_family(folders: dict[str, Path], family: str) -> None:
    checked(folders[family])


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.lora.dora=true"],
        ["train.lora.modules_to_save=[embed_tokens]"],
        ["train.lora.modules_to_save=[lm_head, norm]"],
        ["train.lora.r=32"],
        ["train=full", "train.lora.r=1024"],  # an adapter that there is not
    ],
)
def test_what_can_be_is_let_through(folders: dict[str, Path], overrides: list[str]) -> None:
    checked(folders["llama"], *overrides)


@pytest.mark.parametrize(
    ("family", "overrides", "said"),
    [
        ("llama", ["train.max_length=513"], "train.max_length is 513; it may be at most 512, the model's context"),
        (
            "llama",
            ["evaluate.max_length=2048"],
            "evaluate.max_length is 2048; it may be at most 512, the",
        ),
        ("llama", ["train.lora.r=33"], "train.lora.r is 33; it may be at most 32, the width of k_proj"),
        ("gpt_oss", ["train.lora.target_modules=[q_proj, up_proj]"], "train.lora.target_modules names up_proj, which"),
        (
            "phi3",
            ["train.lora.target_modules=[q_proj]"],
            "train.lora.target_modules names q_proj, which Phi3",
        ),
        (
            "phi3",
            ["train.lora.modules_to_save=[q_norm]"],
            "train.lora.modules_to_save names q_norm, which Phi3",
        ),
        (
            "llama",
            ["train.lora.modules_to_save=[q_proj]"],
            "train.lora.modules_to_save and train.lora.target_modules both have q_proj",
        ),
        (
            "llama",
            ["train.lora.target_modules=[q_proj, lm_head]"],
            "train.lora.target_modules names lm_head, and this model's embedding and head are one matrix, which two "
            "adapters would part; set train.lora.modules_to_save=[lm_head]",
        ),
        (
            "untied",
            ["train.lora.target_modules=[q_proj, embed_tokens]", "export.adapter=true"],
            "export.adapter is true, and train.lora.target_modules names embed_tokens, which llama.cpp",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    folders: dict[str, Path], family: str, overrides: list[str], said: str
) -> None:
    with pytest.raises(UserError) as raised:
        checked(folders[family], *overrides)
    assert str(raised.value).startswith(said)
    assert "\n" not in str(raised.value)


def test_a_base_is_asked_once_for_trainings_that_differ_in_batch_and_course(folders: dict[str, Path]) -> None:
    def of(*overrides: str) -> object:
        return asked(config(folders["llama"], *overrides), "", None)

    assert of("train.effective_batch=4", "train.batch_size=2", "train.lr=1e-3", "train.packing=false") == of()
    others = [of(other) for other in ("train.max_length=64", "train.lora.r=4", "export.adapter=true", "train=full")]
    assert of() not in others


def test_a_padding_token_that_the_model_does_not_have_is_refused(tmp_path: Path) -> None:
    made("llama", tmp_path)
    last = AutoTokenizer.from_pretrained(tmp_path).convert_ids_to_tokens(2047)
    changed(tmp_path, "tokenizer_config.json", pad_token=last)
    changed(tmp_path, "config.json", vocab_size=2047)
    with pytest.raises(UserError, match=r"^the tokenizer of .* pads with '.*', token 2047, and the model has 2047 "):
        checked(tmp_path)


def test_a_configuration_that_cannot_be_ends_in_one_line(tmp_path: Path) -> None:
    made("llama", tmp_path)
    changed(tmp_path, "config.json", vocab_size=2)  # fewer than its padding token
    with pytest.raises(UserError, match=r"^model .* cannot be loaded \(Padding_idx must be within num_embeddings\)"):
        checked(tmp_path)


def test_names_that_peft_would_put_on_experts_are_refused(tmp_path: Path) -> None:
    sizes = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 16}
    experts = {"n_routed_experts": 4, "moe_intermediate_size": 32, "n_group": 1, "topk_group": 1}
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    DeepseekV3Config(**sizes, **experts, **shape, num_experts_per_tok=2, vocab_size=2048).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / name).write_bytes((STARTER / name).read_bytes())
    with pytest.raises(UserError, match=r"PEFT would put some of it on its experts' down_proj, gate_up_proj; name"):
        checked(tmp_path)
    checked(tmp_path, "train.lora.target_modules=[q_a_proj, q_b_proj, kv_b_proj, o_proj]")


def test_a_model_is_described_without_memory(folders: dict[str, Path]) -> None:
    model = without_weights(config(folders["llama"]).model)
    assert {weight.device for weight in model.parameters()} == {torch.device("meta")}
