"""Attention over packed conversations: PyTorch's FlashAttention or cuDNN's, each conversation to itself alone.

Registered with Transformers as `packed_flash` and `packed_cudnn`; what they are given beside query, key and value is
what Transformers gives to its own FlashAttention.
"""

import importlib
import inspect
from typing import Any

import torch
from transformers import AttentionInterface

# Names that begin with "flash" make Transformers look for a kernel on the hub.
FLASH, CUDNN = "packed_flash", "packed_cudnn"


def packed_flash(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """PyTorch's kernel for sequences of various lengths (Dao 2023, FlashAttention-2).

    Args:
        module: the layer; unused.
        query: of shape (1, heads, tokens, head size).
        key: of shape (1, key heads, tokens, head size), as is `value`.
        value: see `key`; its type is that of the computation (positions may have made float32 of the others).
        attention_mask: unused; `cu_seq_lens_q` says who attends to whom.
        cu_seq_lens_q: int32 of shape (conversations + 1): where each begins and, last, where the row ends.
        max_length_q: tokens of the longest conversation at most.
        scaling: of the scores.
        sliding_window: tokens that each attends to, itself included; None for all before it.

    Returns:
        The output of shape (1, tokens, heads, head size), and no weights.
    """
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = (tensor[0].transpose(0, 1).to(value.dtype) for tensor in (query, key, value))
    window = (-1 if sliding_window is None else sliding_window - 1, 0)
    settings: dict[str, Any] = {"scale": scaling, "window_size": window, **GQA}
    sequences = (cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q)
    output: Any = varlen_attn(query, key, value, *sequences, **settings)
    return output[None], None


def packed_cudnn(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """The same by cuDNN, which plans its kernels for each number of tokens and conversations; see `packed_flash`."""
    query, key, value = (tensor[0].transpose(0, 1).to(value.dtype).contiguous() for tensor in (query, key, value))
    output, _stats = torch.ops.cudnn.sdpa_fwd(
        query,
        key,
        value,
        query.shape[-1] ** -0.5 if scaling is None else scaling,
        is_causal=True,
        window_left=-1 if sliding_window is None else sliding_window,
        cu_seqlens_q=cu_seq_lens_q,
        cu_seqlens_kv=cu_seq_lens_q,
        max_seqlen_q=max_length_q,
        max_seqlen_kv=max_length_q,
        return_lse=True,
    )
    return output[None], None


def register(name: str) -> None:
    """Makes one of the two known to Transformers, as a model's attention implementation."""
    if name == CUDNN:
        importlib.import_module("cudnn.sdpa.fwd.torch_op")  # registers torch.ops.cudnn
    AttentionInterface.register(name, {FLASH: packed_flash, CUDNN: packed_cudnn}[name])


def _gqa() -> dict[str, bool]:
    """Asks for fewer key heads than query heads, where PyTorch wants to be asked (from 2.12 on)."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return {}
    return {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}


GQA = _gqa()
