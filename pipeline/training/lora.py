"""LoRA's arithmetic with fewer passes over memory than PEFT's, over a frozen base in 16, 8 or 4 bit.

A projection gives y = x Wᵀ + s (x Aᵀ) Bᵀ (Hu et al. 2021). The adapter's part is little arithmetic and, done apart,
much traffic to memory: here the large product is added to it in place, and projections of the same input (query, key
and value; gate and up) share their passes over it. Adapters stay float32 and are rounded to the input's type where they
are multiplied.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeGuard, cast

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from pipeline.training.autograd import Context

Model = PreTrainedModel | PeftModel
ADAPTER = "default"  # PEFT's name of the only adapter
# In the order in which models ask for them; in another one, each would compute all.
SAME_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


def _add_product(out: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    out.addmm_(left, right)


# An operator of our own, since the compiler would copy `out` before adding to it.
_LIBRARY = torch.library.Library("tunesmith", "FRAGMENT")
_LIBRARY.define("add_product(Tensor(a!) out, Tensor left, Tensor right) -> ()")
_LIBRARY.impl("add_product", _add_product, "CompositeExplicitAutograd")
torch.library.register_fake("tunesmith::add_product", lambda out, left, right: None)


class Frozen16:
    """A frozen weight of shape (out, in) in the type that it is multiplied in."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        self.layer = layer

    def weight(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the weight, which is of that type."""
        return self.layer.weight

    def add_forward(self, out: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return out + x Wᵀ, for x of shape (tokens, in)."""
        torch.ops.tunesmith.add_product(out, x, self.weight(x.dtype).t())
        return out

    def add_backward(self, out: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
        """Return out + dy W, for dy of shape (tokens, out)."""
        torch.ops.tunesmith.add_product(out, dy, self.weight(dy.dtype))
        return out


class Frozen4(Frozen16):
    """A weight in bitsandbytes' 4 bit (Dettmers et al. 2023), made whole for each product."""

    def weight(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the weight whole, in the type that is computed in."""
        from bitsandbytes.functional import dequantize_4bit

        packed: Any = self.layer.weight
        return dequantize_4bit(packed.data, packed.quant_state).to(dtype)


class Frozen8:
    """A weight in FP8 (e4m3), for cards whose tensor cores multiply it.

    A scale for each output channel, forward, and each input channel, backward: a copy for either, as the products want
    them. Inputs and gradients are scaled by token when they come (Micikevicius et al. 2022 for the format).
    """

    def __init__(self, layer: torch.nn.Linear) -> None:
        """Take the place of the layer's own weight."""
        weight = layer.weight.data
        self.forward, self.forward_scale = quantized(weight)
        self.backward, self.backward_scale = quantized(weight.t().contiguous())
        layer.weight.data = self.forward

    def add_forward(self, out: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return out + x Wᵀ, for x of shape (tokens, in)."""
        return out + scaled_product(x, self.forward, self.forward_scale)

    def add_backward(self, out: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
        """Return out + dy W, for dy of shape (tokens, out)."""
        return out + scaled_product(dy, self.backward, self.backward_scale)


def quantized(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows in FP8, and the float32 scale of each, of shape (rows, 1)."""
    largest = torch.finfo(torch.float8_e4m3fn).max
    scale = (rows.abs().amax(1, keepdim=True).float() / largest).clamp(min=1e-12)
    return (rows.float() / scale).to(torch.float8_e4m3fn), scale


def scaled_product(x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return x times `weight` transposed in FP8, in the type of x."""
    rows, row_scale = quantized(x)
    return torch._scaled_mm(rows, weight.t(), row_scale, scale.t(), out_dtype=x.dtype, use_fast_accum=True)


class AdaptedContext(Context):
    """What is kept for the way back."""

    bases: Sequence[Frozen16 | Frozen8]


class Adapted(torch.autograd.Function):
    """The outputs of projections that share their input; gradients for it and the adapters."""

    @staticmethod
    def forward(
        ctx: AdaptedContext, x: torch.Tensor, bases: Sequence[Frozen16 | Frozen8], a: torch.Tensor, *bs: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Compute it for x (tokens, in), all A (rank each, in) in one, and each scaled B (out, rank)."""
        a, *bs = (matrix.to(x.dtype) for matrix in (a, *bs))  # type: ignore[assignment]
        inner = x @ a.t()
        ctx.bases = bases
        ctx.save_for_backward(x, inner, a, *bs)
        parts = inner.split([b.shape[1] for b in bs], 1)
        return tuple(base.add_forward(part @ b.t(), x) for base, part, b in zip(bases, parts, bs, strict=True))

    @staticmethod
    def backward(ctx: AdaptedContext, *dys: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return gradients in the order of `forward`'s arguments."""
        x, inner, a, *bs = ctx.saved_tensors
        dys = tuple(dy.contiguous() for dy in dys)
        d_inner = torch.cat([dy @ b for dy, b in zip(dys, bs, strict=True)], 1)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = d_inner @ a
            for base, dy in zip(ctx.bases, dys, strict=True):
                dx = base.add_backward(dx, dy)
        parts = inner.split([b.shape[1] for b in bs], 1)
        return dx, None, (d_inner.t() @ x).float(), *((dy.t() @ p).float() for dy, p in zip(dys, parts, strict=True))


class Projection(Protocol):
    """PEFT's linear layer with an adapter."""

    base_layer: torch.nn.Linear
    lora_A: Mapping[str, torch.nn.Linear]  # noqa: N815
    lora_B: Mapping[str, torch.nn.Linear]  # noqa: N815
    scaling: Mapping[str, float]
    forward: Callable[[torch.Tensor], torch.Tensor]
    shared_input: "SharedInput"


class SharedInput:
    """Projections of the same input as one operation: the first that is asked computes all."""

    def __init__(self, layers: Sequence[Projection], fp8: bool) -> None:
        """Take the place of the forward passes of PEFT's `layers`; `fp8` for a base that is not in 4 bit."""
        self.layers = layers
        self.bases = [frozen(layer.base_layer, fp8) for layer in layers]
        self.input: torch.Tensor | None = None
        self.outputs: list[torch.Tensor] = []
        for layer in layers:
            layer.forward = lambda x, layer=layer: self.output(layer, x)  # type: ignore[misc]
            layer.shared_input = self

    def output(self, layer: Projection, x: torch.Tensor) -> torch.Tensor:
        """Return what `layer` makes of x, of shape (..., in)."""
        if self.input is not x:
            self.input, self.outputs = x, self.project(x)
        index = self.layers.index(layer)
        output = self.outputs[index]
        if index == len(self.layers) - 1:
            self.input, self.outputs = None, []
        return output

    def project(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return all outputs, in the layers' order."""
        a = torch.cat([layer.lora_A[ADAPTER].weight for layer in self.layers])
        bs = [layer.lora_B[ADAPTER].weight * layer.scaling[ADAPTER] for layer in self.layers]
        outputs = Adapted.apply(x.reshape(-1, x.shape[-1]), self.bases, a, *bs)
        shaped = [output.view(*x.shape[:-1], -1) for output in outputs]
        biases = [layer.base_layer.bias for layer in self.layers]
        return [y if bias is None else y + bias for y, bias in zip(shaped, biases, strict=True)]


def frozen(layer: torch.nn.Linear, fp8: bool) -> Frozen16 | Frozen8:
    """Return how the weight of one layer is kept: of a base in 4 bit, some are not."""
    if hasattr(layer.weight, "quant_state"):
        return Frozen4(layer)
    return Frozen8(layer) if fp8 else Frozen16(layer)


def fuse(model: torch.nn.Module, fp8: bool = False) -> None:
    """Have every projection of PEFT's `model` that has an adapter without dropout computed as above.

    Args:
        model: with one adapter.
        fp8: keep the weights of those projections in FP8.
    """
    for layers in groups(model):
        SharedInput(layers, fp8)


def forget(model: torch.nn.Module) -> None:
    """Drop what a forward pass that was broken off, as by a full GPU, have left to be asked for."""
    for module in model.modules():
        if isinstance(shared := getattr(module, "shared_input", None), SharedInput):
            shared.input, shared.outputs = None, []


def without_adapter(model: Model) -> PreTrainedModel:
    """Return the model that PEFT has put adapters into; without PEFT, itself."""
    return cast(PreTrainedModel, model.get_base_model()) if isinstance(model, PeftModel) else model


def is_adapted_linear(module: torch.nn.Module) -> TypeGuard[Projection]:
    """Return whether it multiplies by a weight, with a low-rank product added to that: DoRA scales the sum."""
    plain = isinstance(module, LoraLayer) and ADAPTER in module.lora_A and not module.use_dora.get(ADAPTER)
    return plain and isinstance(module.base_layer, torch.nn.Linear)


def groups(model: torch.nn.Module) -> Iterator[list[Projection]]:
    """Yield the adapted projections, with those together that share their input."""
    for module in list(model.modules()):
        adapted = {name: child for name, child in module.named_children() if is_adapted_linear(child)}
        for names in SAME_INPUT:
            if all(name in adapted for name in names):
                yield [adapted.pop(name) for name in names]
        yield from ([layer] for layer in adapted.values())
