"""What is chosen for a card, what may be asked for, and what is refused instead of ignored."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from common.errors import UserError
from pipeline.core.composition import compose
from pipeline.core.config import Config, load
from pipeline.models.attention import FLASH
from pipeline.models.loading import has_own_attention, head_size
from pipeline.training import engines, plan
from pipeline.training.cudnn import CUDNN
from pipeline.training.engines import engine
from pipeline.training.plan import Card, choose, choose_compile

REPO = Path(__file__).parents[3]
H200 = Card("NVIDIA H200", 140 * 2**30, (9, 0))
A100 = Card("NVIDIA A100-SXM4-40GB", 40 * 2**30, (8, 0))
T4 = Card("Tesla T4", 15 * 2**30, (7, 5))


@pytest.fixture(scope="module")
def config() -> Config:
    return load(compose(REPO / "conf", ["model=llama-3.2-1b"]))


def asked(config: Config, **settings: Any) -> Any:
    return replace(config.train, **settings)


def installed(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Only these of the optional packages."""
    for module in (plan, engines):
        monkeypatch.setattr(module, "is_installed", packages.__contains__)


def test_a_cpu_takes_trl_and_padded_rows(config: Config) -> None:
    chosen = choose(config.train, config.model, None, 64)
    assert (chosen.engine, chosen.attention, chosen.packing, chosen.few_counts) == ("trl", "sdpa", False, False)
    assert str(chosen).startswith("plan:\n  engine trl: there is no GPU\n")


@pytest.mark.parametrize(("kind", "own"), [("gpt_oss", True), ("llama", False)])
def test_sinks_make_an_attention_of_its_own(kind: str, own: bool) -> None:
    small = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 64, "pad_token_id": 0}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **small))
    assert has_own_attention(model) == own


def test_a_base_with_an_attention_of_its_own_keeps_it_on_any_card(config: Config, monkeypatch: Any) -> None:
    installed(monkeypatch, "cudnn")
    chosen = choose(config.train, config.model, H200, 64, own_attention=True)
    assert (chosen.attention, chosen.packing) == ("eager", False)
    assert "attention eager: llama-3.2-1b's own, slow: no other computes what it does" in chosen.reasons
    with pytest.raises(
        UserError, match=r"^train.attention=flash would not compute what llama-3.2-1b does, .*take auto$"
    ):
        choose(asked(config, attention="flash"), config.model, H200, 64, own_attention=True)


@pytest.mark.parametrize(
    ("card", "conversations", "packages", "engine", "attention"),
    [
        (H200, 64, ("cudnn", "unsloth"), "trl", CUDNN),
        (H200, 8, ("cudnn", "unsloth"), "trl", FLASH),  # too little for cuDNN to plan for
        (H200, 64, (), "trl", FLASH),
        (A100, 64, ("cudnn",), "trl", FLASH),
        (T4, 64, ("unsloth",), "unsloth", "unsloth"),
        (T4, 64, (), "trl", "sdpa"),
    ],
)
def test_engine_and_attention_follow_the_card(
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    card: Card,
    conversations: int,
    packages: tuple[str, ...],
    engine: str,
    attention: str,
) -> None:
    installed(monkeypatch, *packages)
    chosen = choose(asked(config, effective_batch=conversations), config.model, card, 64)
    assert (chosen.engine, chosen.attention) == (engine, attention)
    assert chosen.packing == (attention in (CUDNN, FLASH))
    assert all(": " in reason for reason in chosen.reasons)


def test_heads_that_are_too_large_for_flash_attention_take_sdpa(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed(monkeypatch, "cudnn")
    AutoConfig.for_model("gemma4_text", num_hidden_layers=6, head_dim=256, global_head_dim=512).save_pretrained(
        tmp_path
    )
    size = head_size(replace(config.model, path=str(tmp_path)))
    assert size == 512  # of the layer that looks at everything
    chosen = choose(asked(config, effective_batch=64), config.model, H200, size)
    assert (chosen.attention, chosen.packing) == ("sdpa", False)
    with pytest.raises(UserError, match=r"^train\.attention=flash is for heads of at most 256, this model's have 512"):
        choose(asked(config, attention="flash"), config.model, H200, size)


def test_a_base_in_4_bit_takes_unsloth_where_it_is_installed(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "unsloth", "bitsandbytes")
    assert choose(config.train, replace(config.model, load_in_4bit=True), H200, 64).engine == "unsloth"
    installed(monkeypatch, "bitsandbytes")
    assert choose(config.train, replace(config.model, load_in_4bit=True), H200, 64).engine == "trl"
    installed(monkeypatch)
    with pytest.raises(UserError, match=r"^model\.load_in_4bit=true needs bitsandbytes, and a GPU; pip"):
        choose(config.train, replace(config.model, load_in_4bit=True), None, 64)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"neftune_alpha": 5.0}, "train.neftune_alpha=5.0"),
        ({"start_adapter": "champion"}, "train.start_adapter=champion"),
    ],
)
def test_an_engine_that_would_ignore_a_setting_is_not_taken_by_itself(
    config: Config, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], named: str
) -> None:
    installed(monkeypatch, "unsloth", "bitsandbytes")
    chosen = choose(asked(config, **settings), replace(config.model, load_in_4bit=True), H200, 64)
    assert (chosen.engine, chosen.reasons[0]) == ("trl", f"engine trl: unsloth would ignore {named}")


@pytest.mark.parametrize(
    "settings", [{"packing": True}, {"attention": "flash"}, {"compile": True}, {"neftune_alpha": 5.0}]
)
def test_what_unsloth_would_ignore_is_refused(config: Config, settings: dict[str, Any]) -> None:
    (key,) = settings
    with pytest.raises(UserError, match=rf"^train\.{key}=[\w.]+ is for train\.engine=trl; Unsloth would ignore or"):
        engine("unsloth").refuse(asked(config, **settings))
    engine("unsloth").refuse(config.train)


@pytest.mark.parametrize(
    "settings", [{"dora": True}, {"modules_to_save": ["embed_tokens"]}, {"target_modules": ["q_proj", "lm_head"]}]
)
def test_what_unsloth_would_make_of_an_adapter_otherwise_is_refused(config: Config, settings: dict[str, Any]) -> None:
    (key,) = settings
    with pytest.raises(UserError, match=rf"^train\.lora\.{key}=.* is for train\.engine=trl; Unsloth would ignore or"):
        engine("unsloth").refuse(asked(config, lora=replace(config.train.lora, **settings)))
    engine("unsloth").refuse(asked(config, lora=replace(config.train.lora, rslora=True, target_modules=["q_proj"])))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dora": True}, "adapter by PEFT, slow: DoRA "),
        ({"dropout": 0.1}, "adapter by PEFT, slow: its dropout "),
        ({"target_modules": ["q_proj", "lm_head"]}, "loss by Transformers, slow: "),
    ],
)
def test_what_is_slow_is_said(config: Config, settings: dict[str, Any], said: str) -> None:
    reasons = choose(asked(config, lora=replace(config.train.lora, **settings)), config.model, None, 64).reasons
    assert any(reason.startswith(said) for reason in reasons)
    fast = asked(config, lora=replace(config.train.lora, rslora=True), neftune_alpha=5.0, min_lr_ratio=0.1)
    assert not any("slow:" in reason for reason in choose(fast, config.model, None, 64).reasons)


@pytest.mark.parametrize(
    ("settings", "card", "line"),
    [
        ({"optimizer": "adamw_8bit"}, None, "train.optimizer=adamw_8bit needs bitsandbytes; pip install -e .[gpu]"),
        (
            {"optimizer": "adamw_torch_8bit"},
            None,
            "train.optimizer=adamw_torch_8bit needs torchao; pip install",
        ),
        ({"engine": "unsloth"}, H200, "train.engine is unsloth, which is not installed"),
        ({"attention": "flash"}, None, "train.attention=flash needs a GPU of compute capability 8.0"),
        ({"attention": "flash"}, T4, "train.attention=flash needs a GPU of compute capability 8.0"),
        ({"attention": "cudnn"}, H200, "train.attention=cudnn needs nvidia-cudnn-frontend"),
        ({"attention": "flash", "packing": False}, H200, "train.attention=flash is for packed conversations"),
        ({"frozen_dtype": "fp8"}, A100, "train.frozen_dtype=fp8 needs a GPU that multiplies FP8"),
        ({"frozen_dtype": "fp8"}, None, "train.frozen_dtype=fp8 needs a GPU that multiplies FP8"),
        ({"frozen_dtype": "fp8", "method": "full"}, H200, "train.frozen_dtype=fp8 needs train.engine=trl"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    config: Config, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], card: Card | None, line: str
) -> None:
    installed(monkeypatch)
    with pytest.raises(UserError) as raised:
        choose(asked(config, **settings), config.model, card, 64)
    assert str(raised.value).startswith(line)
    assert "\n" not in str(raised.value)


def test_what_is_asked_for_is_taken(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "cudnn")
    chosen = choose(asked(config, attention="sdpa", packing=True), config.model, H200, 64)
    assert (chosen.attention, chosen.packing) == ("sdpa", True)
    assert choose(asked(config, attention="cudnn"), config.model, H200, 64).attention == CUDNN
    assert choose(asked(config, frozen_dtype="fp8"), config.model, H200, 64).reasons[1] == "frozen base fp8: asked for"


def test_heads_too_large_for_cudnn_take_flash(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "cudnn")
    assert choose(asked(config, effective_batch=64), config.model, H200, 256).attention == FLASH
    with pytest.raises(UserError, match=r"^train\.attention=cudnn is for heads of at most 128, this model's have 256"):
        choose(asked(config, attention="cudnn"), config.model, H200, 256)


@pytest.mark.parametrize(
    ("setting", "card", "seconds", "compiled"),
    [
        ("auto", H200, 1.0, False),
        ("auto", H200, 1000.0, True),
        ("auto", None, 1000.0, False),
        ("auto", Card("unheard of", 2**34, (9, 0)), 1000.0, False),
        (True, None, 0.0, True),
        (False, H200, 1000.0, False),
    ],
)
def test_a_short_training_does_not_pay_for_compilation(
    config: Config, setting: Any, card: Card | None, seconds: float, compiled: bool
) -> None:
    chosen = choose(config.train, config.model, None, 64)
    decision, why = choose_compile(asked(config, compile=setting), chosen, card, seconds * 989e12)
    assert decision is compiled
    assert why
