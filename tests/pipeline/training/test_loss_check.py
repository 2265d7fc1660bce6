"""Our loss against every causal language model's own: where it is another one, the model keeps its own."""

from functools import partial
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CLASSES

from pipeline.training.loss import check_loss, learn_from_supervised, loss_and_norms
from pipeline.training.trainer import NEAR

TOKENS = 24
# What models call their sizes; each takes those that it has.
TINY: dict[str, Any] = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 128, "num_experts_per_tok": 2,
    "num_local_experts": 4, "num_experts": 4, "n_routed_experts": 4, "moe_intermediate_size": 32,
    "n_embd": 64, "n_layer": 2, "n_head": 4, "n_inner": 96, "d_model": 64, "n_layers": 2, "n_heads": 4,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
    "chunk_size": 16, "mamba_chunk_size": 16,  # state spaces take its square in memory, by themselves 17 GB
}  # fmt: skip
LARGE = 30_000_000  # parameters, of what does not become tiny by these


def tiny(kind: str) -> Any:
    """A model of a type, with random weights.

    Raises:
        Exception: it does not become tiny, each type in its own way.
    """
    known = AutoConfig.for_model(kind)
    config = AutoConfig.for_model(kind, **{key: value for key, value in TINY.items() if hasattr(known, key)})
    with torch.device("meta"):
        size = sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config).parameters())
    if size > LARGE:
        raise ValueError(f"{size} parameters")
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).float()


def loss_of(model: Any) -> torch.Tensor:
    """That of one conversation, whose second half is learnt."""
    ids = torch.randint(3, 500, (1, TOKENS), generator=torch.Generator().manual_seed(1))
    labels = ids.clone()
    labels[:, : TOKENS // 2] = -100
    mask = torch.ones_like(ids)
    if getattr(model, "learns_from_supervised", False):
        positions = torch.arange(TOKENS // 2 - 1, TOKENS - 1)
        learnt = {"positions": positions, "targets": ids[0, positions + 1], "num_items_in_batch": TOKENS // 2}
        return model(input_ids=ids, attention_mask=mask, **learnt).loss
    return model(input_ids=ids, attention_mask=mask, labels=labels).loss


@pytest.fixture(scope="module")
def compared() -> dict[str, tuple[torch.Tensor, torch.Tensor, bool]]:
    """Of each type that becomes tiny: its own loss, the one after the check, and whether that is ours."""
    found = {}
    for kind in CLASSES:
        try:
            model = tiny(kind)
            own, _ = loss_and_norms(model, partial(loss_of, model))
        except Exception:  # noqa: S112 - it needs other sizes, or is no model of texts alone
            continue
        learn_from_supervised(model)
        if learns_by_ours(model):
            check_loss(model, partial(loss_of, model), NEAR)
        found[kind] = own, loss_and_norms(model, partial(loss_of, model))[0], learns_by_ours(model)
    return found


def learns_by_ours(model: Any) -> bool:
    return bool(getattr(model, "learns_from_supervised", False))


def test_no_model_learns_by_another_loss_than_its_own(compared: dict[str, Any]) -> None:
    assert len(compared) > 100
    for kind, (own, after, _) in compared.items():
        torch.testing.assert_close(after, own, rtol=1e-3, atol=0, msg=lambda text, kind=kind: f"{kind}: {text}")


def test_families_that_people_train_learn_by_ours(compared: dict[str, Any]) -> None:
    for kind in (
        "llama",
        "qwen2",
        "qwen3",
        "qwen3_moe",
        "mistral",
        "ministral3",
        "gemma3_text",
        "phi3",
        "smollm3",
        "gpt_oss",
    ):
        assert compared[kind][2], kind


@pytest.mark.parametrize("kind", ["inkling_text", "trocr"])
def test_a_model_whose_loss_is_another_keeps_its_own(kind: str) -> None:
    model = tiny(kind)
    learn_from_supervised(model)
    assert learns_by_ours(model)
    assert not check_loss(model, partial(loss_of, model), NEAR)
    assert not learns_by_ours(model)


def test_nothing_remains_of_the_comparison() -> None:
    model = tiny("llama")
    learn_from_supervised(model)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    state = torch.random.get_rng_state()
    model.train()
    assert check_loss(model, partial(loss_of, model), NEAR)
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
