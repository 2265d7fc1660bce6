"""What a GPU computes of a model faster than Transformers does by itself, for loss and answers alike."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Protocol, cast

import torch
from torch.nn.functional import rms_norm
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from pipeline.models.attention import FLASH_HEAD, register
from pipeline.models.loading import has_own_attention, largest_head

# Of others, such as those that carry a state from token to token, a conversation would see what stands before it.
KINDS = {"full_attention", "sliding_attention"}
ALIKE = 0.02  # of a norm's largest output; rounding in bfloat16 is 0.004


def packs(model: PreTrainedModel) -> bool:
    """Return whether FlashAttention can tell a model's conversations apart and leaves nothing out of its attention."""
    config = model.config.get_text_config()
    return (
        model.device.type == "cuda"
        and torch.cuda.get_device_capability(model.device) >= (8, 0)
        and model.dtype in (torch.bfloat16, torch.float16)
        and set(getattr(config, "layer_types", None) or KINDS) <= KINDS
        and not getattr(config, "attn_logit_softcapping", None)
        and not has_own_attention(model)
        and largest_head(config) <= FLASH_HEAD
    )


@contextmanager
def attending_by(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Let a model attend by another implementation, one of pipeline/models/attention.py's or of Transformers'."""
    own = model.config._attn_implementation
    if name not in ALL_ATTENTION_FUNCTIONS.valid_keys():
        register(name)
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(own)


@contextmanager
def fused_norms(model: PreTrainedModel) -> Iterator[None]:
    """Let PyTorch's kernel compute a model's norms, where it gives what they give (Zhang and Sennrich 2019, RMSNorm).

    Written out as Transformers has them, they take a tenth of a small model's time.
    """
    fused = [module for module in model.modules() if _is_rms_norm(module)]
    for module in fused:
        module.forward = MethodType(_rms_norm, module)
    try:
        yield
    finally:
        for module in fused:
            del module.forward


class RmsNorm(Protocol):
    """A norm of Transformers'."""

    weight: torch.Tensor
    variance_epsilon: float


def _rms_norm(norm: RmsNorm, hidden: torch.Tensor) -> torch.Tensor:
    return rms_norm(hidden, hidden.shape[-1:], norm.weight, norm.variance_epsilon)


@torch.inference_mode()
def _is_rms_norm(module: torch.nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    if not hasattr(module, "variance_epsilon") or weight is None or weight.dim() != 1 or "forward" in vars(module):
        return False
    hidden = torch.linspace(-3, 5, len(weight), dtype=weight.dtype, device=weight.device)[None]
    own = module(hidden)
    return bool((own - _rms_norm(cast(RmsNorm, module), hidden)).abs().max() <= ALIKE * own.abs().max())
