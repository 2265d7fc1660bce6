"""Attention over packed conversations by cuDNN, which plans a graph for each number of them: pays for large updates.

Registered with Transformers as `packed_cudnn`, beside PyTorch's FlashAttention (pipeline/models/attention.py).
"""

import importlib
from functools import partial
from typing import Any

import torch
from transformers import AttentionInterface

from pipeline.models.attention import attend
from pipeline.training.autograd import Context

CUDNN = "packed_cudnn"
ROOM = 4096  # tokens: no kernel visits them, and 80 ms of planning are saved for each number of tokens
CUDNN_HEAD = 128  # the largest that cuDNN's backward pass takes on Hopper


def register_cudnn() -> None:
    """Make it known to Transformers, as a model's attention implementation."""
    for module in ("fwd.torch_op", "packed_lse"):  # which register torch.ops.cudnn
        importlib.import_module(f"cudnn.sdpa.{module}")
    AttentionInterface.register(CUDNN, partial(attend, kernel=cudnn))


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
