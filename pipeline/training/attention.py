"""Attention over packed conversations: PyTorch's FlashAttention or cuDNN's, each conversation to itself alone.

Registered with Transformers as `packed_varlen` and `packed_cudnn`; what they are given beside query, key and value is
what Transformers gives to its own FlashAttention.
"""

import importlib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import AttentionInterface

from pipeline.training.autograd import Context

# A name with "flash" in it makes Transformers look for a kernel on the hub.
FLASH, CUDNN = "packed_varlen", "packed_cudnn"
ROOM = 4096  # tokens: no kernel visits them, and 80 ms of planning are saved for each number of tokens
CUDNN_HEAD = 128  # the largest that cuDNN's backward pass takes on Hopper
FLASH_HEAD = 256  # the largest that FlashAttention-2 takes


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    kernel: Callable[..., torch.Tensor],
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Let each token of a packed row attend to those before it in its conversation.

    Args:
        module: the layer; unused.
        query: of shape (1, heads, tokens, head size).
        key: of shape (1, key heads, tokens, head size), as is `value`.
        value: see `key`; its type is that of the computation (positions may have made float32 of the others).
        attention_mask: unused; `cu_seq_lens_q` says who attends to whom.
        kernel: `flash` or `cudnn`.
        cu_seq_lens_q: int32 of shape (conversations + 1): where each begins and, last, where the row ends.
        max_length_q: tokens of the longest conversation at most.
        scaling: of the scores.
        sliding_window: tokens that each attends to, itself included; None for all before it.

    Returns:
        The output of shape (1, tokens, heads, head size), and no weights.
    """
    query, key, value = (tensor[0].transpose(0, 1).to(value.dtype) for tensor in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return kernel(query, key, value, cu_seq_lens_q, max_length_q, scale, sliding_window)[None], None


def flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    starts: torch.Tensor,
    longest: int,
    scale: float,
    window: int | None,
) -> torch.Tensor:
    """Return PyTorch's kernel for sequences of various lengths (Dao 2023, FlashAttention-2)."""
    from torch.nn.attention.varlen import varlen_attn

    settings: dict[str, Any] = {"scale": scale, "window_size": (-1 if window is None else window - 1, 0), **GQA}
    output: Any = varlen_attn(query, key, value, starts, starts, longest, longest, **settings)
    return output


def cudnn(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    starts: torch.Tensor,
    longest: int,
    scale: float,
    window: int | None,
) -> torch.Tensor:
    """Return cuDNN's graph, planned for each number of conversations and, going back, of tokens with room."""
    tokens = query.shape[0]
    room = ROOM - tokens % ROOM  # never none, which would be compiled apart
    roomy = (torch.nn.functional.pad(tensor, (0, 0, 0, 0, 0, room)).contiguous() for tensor in (query, key, value))
    output: torch.Tensor = Cudnn.apply(*roomy, starts, tokens, longest, scale, -1 if window is None else window)
    return output[:tokens]


class CudnnContext(Context):
    """What is kept for the way back."""

    settings: dict[str, Any]  # of both operators
    tokens: int


class Cudnn(torch.autograd.Function):
    """cuDNN's two operators. Its own derivative of the first one does not allow for room behind the tokens."""

    @staticmethod
    def forward(
        ctx: CudnnContext,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        starts: torch.Tensor,
        tokens: int,
        longest: int,
        scale: float,
        window: int,
    ) -> torch.Tensor:
        """Attend with query, key and value of shape (tokens and room, heads, head size)."""
        ctx.settings = {
            "attn_scale": scale,
            "is_causal": True,
            "window_left": window,
            "cu_seqlens_q": starts,
            "cu_seqlens_kv": starts,
            "max_seqlen_q": longest,
            "max_seqlen_kv": longest,
        }
        output, sums = torch.ops.cudnn.sdpa_fwd(query, key, value, return_lse=True, **ctx.settings)
        ctx.tokens = tokens
        ctx.save_for_backward(query, key, value, output, sums)
        return output

    @staticmethod
    def backward(ctx: CudnnContext, grown: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return gradients in the order of `forward`'s arguments."""
        query, key, value, output, sums = ctx.saved_tensors
        starts, longest = ctx.settings["cu_seqlens_q"], ctx.settings["max_seqlen_q"]
        padded = torch.ops.cudnn._packed_lse_to_padded(sums[: ctx.tokens, :, 0], starts, longest)
        return *torch.ops.cudnn.sdpa_bwd(grown, query, key, value, output, padded, **ctx.settings), *[None] * 5


def register(name: str) -> None:
    """Make one of the two known to Transformers, as a model's attention implementation."""
    if name == CUDNN:
        for module in ("fwd.torch_op", "packed_lse"):  # which register torch.ops.cudnn
            importlib.import_module(f"cudnn.sdpa.{module}")
    AttentionInterface.register(name, partial(attend, kernel={FLASH: flash, CUDNN: cudnn}[name]))


def _gqa() -> dict[str, bool]:
    """Ask for fewer key heads than query heads, where PyTorch wants to be asked (from 2.12 on)."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return {}
    return {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}


GQA = _gqa()
