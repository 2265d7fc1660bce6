"""Our arithmetic against PEFT's and Transformers' own in float32: losses and the adapters' gradients."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch._inductor import compile_fx as inductor
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
)

from common.errors import UserError
from pipeline.core.composition import compose
from pipeline.core.config import load
from pipeline.models.attention import FLASH, register
from pipeline.models.heads import CHUNK
from pipeline.models.loading import load_base
from pipeline.training.activation_offload import ActivationOffloading
from pipeline.training.cudnn import CUDNN
from pipeline.training.engines import engine
from pipeline.training.lora import Frozen8, SharedInput, forget, fuse, groups, quantized
from pipeline.training.loss import learn_from_supervised, linear_cross_entropy
from pipeline.training.plan import choose
from pipeline.training.trainer import compile_layers
from pipeline.training.updates import IGNORED, Conversations, Layout

REPO = Path(__file__).parents[3]
SHAPE: dict[str, Any] = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512,
}  # fmt: skip
FAMILIES = {
    "llama": LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**SHAPE),  # with biases
    "mistral": MistralConfig(**SHAPE, sliding_window=16),
    "gemma3": Gemma3TextConfig(**SHAPE, sliding_window=16),  # norms between projections and attention
}
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# Sums in another order: float32's seven digits, over a few thousand terms.
CLOSE = {"rtol": 2e-4, "atol": 2e-6}


def adapted(family: str) -> Any:
    """A random model with an adapter whose both halves are not zero."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(FAMILIES[family], attn_implementation="sdpa").float()
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=PROJECTIONS, task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.5)
    return model


def conversations(layout: Layout) -> Conversations:
    draw = random.Random(1)
    ids = [[draw.randrange(512) for _ in range(length)] for length in (5, 30, 17, 60, 9, 41)]
    labels = [[IGNORED] * (len(row) // 3) + row[len(row) // 3 :] for row in ids]
    return Conversations({"input_ids": ids, "labels": labels}, layout, 0)


def learn(model: Any, layout: Layout, own_loss: bool = False) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss of one update, and the adapter's gradients."""
    model.zero_grad()
    total = 0.0
    data = conversations(layout)
    left_out = {"tokens", "positions", "targets"} if own_loss else {"tokens", "labels"}
    for part in data.split(range(len(data))):
        loss = model(**{key: value for key, value in data[part].items() if key not in left_out}).loss
        loss.backward()
        total += loss.item()
    return total, {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def recomputing() -> Any:
    """A model that learns from learnt positions alone, fused, and computes its layers again going backward."""
    model = adapted("llama")
    learn_from_supervised(model.get_base_model())
    fuse(model)
    model.gradient_checkpointing_enable()
    return model.train()


def reference(family: str) -> tuple[float, dict[str, torch.Tensor]]:
    """By PEFT and the model's own loss, each conversation in a padded row."""
    return learn(adapted(family), Layout(8, False, 64), own_loss=True)


@pytest.fixture(autouse=True)
def compile_anew() -> Iterator[None]:
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rows", [1, 2, 8])
@pytest.mark.parametrize("packed", [False, True])
def test_loss_and_gradients_are_those_of_peft_and_a_plain_loss(family: str, rows: int, packed: bool) -> None:
    loss, gradients = reference(family)
    model = adapted(family)
    learn_from_supervised(model.get_base_model())
    fuse(model)
    ours, our_gradients = learn(model, Layout(rows, packed, 64))
    assert ours == pytest.approx(loss, rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(our_gradients[name], gradient, **CLOSE, msg=lambda text, n=name: f"{n}: {text}")


def test_compiled_layers_learn_the_same_at_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs: list[Any] = []
    compile_fx = inductor.compile_fx

    def noted(graph: torch.nn.Module, example_inputs: list[Any], **settings: Any) -> Any:
        inputs.extend(example_inputs)
        return compile_fx(graph, example_inputs, **settings)

    monkeypatch.setattr(inductor, "compile_fx", noted)
    torch.compiler.reset()
    loss, gradients = reference("llama")
    model = adapted("llama")
    learn_from_supervised(model.get_base_model())
    fuse(model)
    compile_layers(model)
    for layout in (Layout(8, True, 64), Layout(1, True, 64), Layout(8, True, 64, few_counts=True)):
        ours, our_gradients = learn(model, layout)
        assert ours == pytest.approx(loss, rel=1e-5)
        for name, gradient in gradients.items():
            torch.testing.assert_close(our_gradients[name], gradient, **CLOSE)
    # A number such as LoRA's scale would be an input without dimensions, and computed with on the CPU.
    assert inputs
    assert all(not isinstance(given, torch.Tensor) or given.dim() for given in inputs)


def test_the_last_mlp_computes_what_is_learnt_alone() -> None:
    base = adapted("llama").get_base_model()
    learn_from_supervised(base)
    rows: list[int] = []
    for layer in base.base_model.layers:
        layer.mlp.down_proj.register_forward_pre_hook(lambda module, inputs: rows.append(inputs[0].shape[-2]))
    data = conversations(Layout(8, True, 64))
    batch = data[data.split(range(len(data)))[0]]
    base(**{key: value for key, value in batch.items() if key not in {"tokens", "labels"}})
    assert rows == [batch["input_ids"].shape[1]] * 2 + [len(batch["targets"])]
    assert rows[-1] < rows[0]


def test_recomputed_activations_learn_the_same() -> None:
    loss, gradients = reference("llama")
    model = recomputing()
    ours, our_gradients = learn(model, Layout(2, True, 64))
    assert ours == pytest.approx(loss, rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(our_gradients[name], gradient, **CLOSE)


def test_what_is_saved_waits_in_main_memory_but_for_weights() -> None:
    class Noting(ActivationOffloading):
        def put_away(self, tensor: torch.Tensor) -> Any:
            saved = super().put_away(tensor)
            if saved is not tensor:
                put_away.append(tuple(tensor.shape))
            return saved

    put_away: list[tuple[int, ...]] = []
    loss, gradients = reference("llama")
    model = recomputing()
    with Noting(model):
        ours, our_gradients = learn(model, Layout(2, True, 64))
    hidden = [shape for shape in put_away if shape[::2] == (1, 64)]  # (1, tokens, hidden size)
    assert not {tuple(weight.shape) for weight in model.parameters()}.intersection(put_away)
    assert len(hidden) >= 3 * len(conversations(Layout(2, True, 64)).split(range(6)))  # a layer's input for each layer
    assert ours == pytest.approx(loss, rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(our_gradients[name], gradient, **CLOSE)


def test_a_conversation_does_not_change_with_its_neighbours() -> None:
    model = adapted("llama").eval()
    fuse(model)
    data = conversations(Layout(8, True, 64))
    together = data[data.split(range(len(data)))[0]]
    wanted = {**{key: together[key] for key in ("input_ids", "position_ids")}, "use_cache": False}
    with torch.no_grad():
        logits = model(**wanted).logits[0]
        changed = {**wanted, "input_ids": wanted["input_ids"].clone()}
        start, end = together["cu_seq_lens_q"][1:3].tolist()
        changed["input_ids"][0, :start] = 7  # all that stands before the second
        other = model(**changed).logits[0]
    torch.testing.assert_close(other[start:end], logits[start:end], rtol=0, atol=1e-5)
    assert (other[:start] - logits[:start]).abs().max() > 0.1


def test_projections_of_one_input_share_their_passes() -> None:
    model = adapted("llama")
    names = {id(module): name.rpartition(".")[2] for name, module in model.named_modules()}
    grouped = [[names[id(layer)] for layer in layers] for layers in groups(model)]
    assert grouped.count(["q_proj", "k_proj", "v_proj"]) == grouped.count(["gate_proj", "up_proj"]) == 3
    assert sorted(name for group in grouped for name in group) == sorted(PROJECTIONS * 3)


def test_an_adapter_on_some_projections_is_fused_with_those() -> None:
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(FAMILIES["llama"])
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    loss, gradients = learn(model, Layout(8, False, 64), own_loss=True)
    fuse(model)
    ours, our_gradients = learn(model, Layout(8, False, 64), own_loss=True)
    assert ours == pytest.approx(loss, rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(our_gradients[name], gradient, **CLOSE)


def test_nothing_is_kept_of_a_forward_pass_that_was_broken_off() -> None:
    model = adapted("llama")
    fuse(model)
    layer = model.get_base_model().model.layers[-1].mlp
    layer.act_fn.forward = lambda gate: (_ for _ in ()).throw(torch.OutOfMemoryError("full"))
    with pytest.raises(torch.OutOfMemoryError):
        learn(model, Layout(8, False, 64), own_loss=True)
    held = [shared for module in model.modules() if (shared := getattr(module, "shared_input", None))]
    assert any(shared.outputs for shared in held)
    assert all(isinstance(shared, SharedInput) for shared in held)
    forget(model)
    assert not any(shared.outputs or shared.input is not None for shared in held)


def test_an_adapter_of_the_head_or_the_embeddings_learns_by_peft() -> None:
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(FAMILIES["qwen2"])
    lora = LoraConfig(r=4, target_modules=["q_proj", "lm_head", "embed_tokens"], task_type="CAUSAL_LM")
    model = get_peft_model(base, lora)
    learn_from_supervised(base)
    fuse(model)
    assert not hasattr(base, "learns_from_supervised")
    _, gradients = learn(model, Layout(8, False, 64), own_loss=True)
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in gradients} == {"q_proj", "lm_head", "embed_tokens"}
    assert all(gradient is not None for gradient in gradients.values())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("whole", ["lm_head", "embed_tokens"])
def test_a_head_or_embeddings_that_learn_whole_learn_from_learnt_positions_alone(tied: bool, whole: str) -> None:
    def model() -> Any:
        torch.manual_seed(0)
        base: Any = AutoModelForCausalLM.from_config(LlamaConfig(**SHAPE, tie_word_embeddings=tied)).float()
        lora = LoraConfig(
            r=4,
            target_modules=PROJECTIONS,
            modules_to_save=[whole],
            ensure_weight_tying=tied,
            task_type="CAUSAL_LM",
        )
        return get_peft_model(base, lora)

    loss, gradients = learn(model(), Layout(8, False, 64), own_loss=True)
    ours = model()
    learn_from_supervised(ours.get_base_model())
    fuse(ours)
    assert ours.get_base_model().learns_from_supervised
    our_loss, our_gradients = learn(ours, Layout(2, True, 64))
    assert our_loss == pytest.approx(loss, rel=1e-5)
    assert our_gradients.keys() == gradients.keys()
    assert sum("modules_to_save" in name for name in gradients) == 1
    for name, gradient in gradients.items():
        torch.testing.assert_close(our_gradients[name], gradient, **CLOSE, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("variant", [{"use_rslora": True}, {"use_dora": True}])
def test_variants_of_lora_learn_as_pefts_do(variant: dict[str, Any]) -> None:
    def model() -> Any:
        torch.manual_seed(0)
        base: Any = AutoModelForCausalLM.from_config(FAMILIES["qwen2"], attn_implementation="sdpa").float()
        lora = LoraConfig(r=4, lora_alpha=8, target_modules=PROJECTIONS, task_type="CAUSAL_LM", **variant)
        adapted = get_peft_model(base, lora)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        return adapted

    loss, gradients = learn(model(), Layout(8, False, 64), own_loss=True)
    ours = model()
    learn_from_supervised(ours.get_base_model())
    fuse(ours)
    fused = sum(hasattr(module, "shared_input") for module in ours.modules())
    assert fused == (0 if "use_dora" in variant else 3 * len(PROJECTIONS))
    our_loss, our_gradients = learn(ours, Layout(2, True, 64))
    assert our_loss == pytest.approx(loss, rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(our_gradients[name], gradient, **CLOSE, msg=lambda text, n=name: f"{n}: {text}")


def test_a_model_that_keeps_its_own_loss_keeps_packed_conversations_apart_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = {key: value for key, value in SHAPE.items() if key != "head_dim"}
    AutoModelForCausalLM.from_config(GraniteConfig(**shape, logits_scaling=4.0)).save_pretrained(tmp_path)
    config = load(compose(REPO / "conf", ["model=llama-3.2-1b", f"model.path={tmp_path}"]))
    model = engine("trl").load(choose(config.train, config.model, None, 64), config.model, config.train, "cpu")
    padded, gradients = learn(model, Layout(8, False, 64), own_loss=True)
    packed, packed_gradients = learn(model, Layout(8, True, 64), own_loss=True)
    assert not hasattr(model.get_base_model(), "learns_from_supervised")
    assert packed == pytest.approx(padded, rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(packed_gradients[name], gradient, **CLOSE)


def test_fp8_is_off_by_its_three_bits_and_no_more() -> None:
    torch.manual_seed(0)
    weight = torch.randn(96, 64)
    layer = torch.nn.Linear(64, 96, bias=False)
    layer.weight.data = weight.clone()
    frozen = Frozen8(layer)
    forward = frozen.forward.float() * frozen.forward_scale
    backward = (frozen.backward.float() * frozen.backward_scale).t()
    for kept in (forward, backward):
        assert 0 < (kept - weight).norm() / weight.norm() < 2**-4
    assert layer.weight.numel() == weight.numel()
    zeros, scale = quantized(torch.zeros(2, 16))
    assert torch.equal(zeros.float() * scale, torch.zeros(2, 16))


def test_a_long_loss_is_that_of_all_logits_at_once() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(2 * CHUNK + 100, 32, requires_grad=True)
    weight, targets = torch.randn(300, 32), torch.randint(300, (2 * CHUNK + 100,))
    ours = linear_cross_entropy(hidden, weight, targets)
    (gradient,) = torch.autograd.grad(ours, hidden)
    whole = torch.nn.functional.cross_entropy(hidden @ weight.t(), targets, reduction="sum")
    torch.testing.assert_close(ours, whole, rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient, torch.autograd.grad(whole, hidden)[0], rtol=1e-4, atol=1e-5)


def test_no_targets_are_no_loss_with_a_gradient_to_give() -> None:
    hidden = torch.randn(0, 32, requires_grad=True)
    loss = linear_cross_entropy(hidden, torch.randn(10, 32), torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0.0


def test_a_head_that_does_more_than_multiply_keeps_its_own_loss() -> None:
    model = AutoModelForCausalLM.from_config(FAMILIES["llama"])
    model.config.final_logit_softcapping = 30.0
    before = model.forward
    learn_from_supervised(model)
    assert model.forward == before
    assert not hasattr(model, "learns_from_supervised")


def test_a_model_that_caps_its_attention_scores_is_refused(tmp_path: Path) -> None:
    AutoModelForCausalLM.from_config(Gemma2Config(**SHAPE, sliding_window=16)).save_pretrained(tmp_path)
    config = load(compose(REPO / "conf", ["model=gemma-3-1b", f"model.path={tmp_path}"]))
    with pytest.raises(UserError, match=r"caps its attention scores, which no train\.attention does"):
        engine("trl").load(choose(config.train, config.model, None, 64), config.model, config.train, "cpu")


def test_packed_attention_is_not_taken_for_a_kernel_of_the_hub() -> None:
    assert "flash" not in CUDNN
    register(FLASH)
    base = load_base(str(REPO / "starter/models/starter-s"), None, "cpu", torch.float32, attention=FLASH)
    assert base.config._attn_implementation == FLASH
