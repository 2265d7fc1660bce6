"""Attention over packed conversations by PyTorch's FlashAttention, each conversation to itself alone.

Registered with Transformers as `packed_varlen`; what it is given beside query, key and value is what Transformers gives
to its own FlashAttention. `paged|varlen` is the same over the cache of its continuous batching, where new tokens of
each conversation attend to those that are in the cache, too.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from transformers import AttentionInterface
from transformers.generation.continuous_batching import PagedAttentionCache

# A name with "flash" in it makes Transformers look for a kernel on the hub.
FLASH, PAGED = "packed_varlen", "paged|varlen"
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
        kernel: `flash`, or training's `cudnn`.
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


def attend_paged(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cache: PagedAttentionCache,
    read_index: list[torch.Tensor],
    write_index: list[torch.Tensor],
    cu_seq_lens_q: torch.Tensor,
    cu_seq_lens_k: torch.Tensor | dict[str, torch.Tensor],
    max_seqlen_q: int,
    max_seqlen_k: int | dict[str, int],
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Let the new tokens of each conversation attend to those before them, which the cache has; see `attend`.

    Args:
        module: the layer; its number says where its keys and values are.
        query: of shape (1, heads, new tokens, head size).
        key: of shape (1, key heads, new tokens, head size), as is `value`.
        value: see `key`.
        attention_mask: unused.
        cache: takes the new keys and values, gives all.
        read_index: where it has them, for each group of layers.
        write_index: where it puts them, likewise.
        cu_seq_lens_q: int32 of shape (conversations + 1): where the new tokens of each begin.
        cu_seq_lens_k: the same of all its tokens, by kind of layer where there are two.
        max_seqlen_q: the most new tokens of one.
        max_seqlen_k: the most tokens of one, by kind of layer where there are two.
        scaling: of the scores.
        sliding_window: tokens that each attends to, itself included; None for all before it.

    Returns:
        The output of shape (1, new tokens, heads, head size), and no weights.
    """
    kind = "sliding_attention" if sliding_window else "full_attention"
    starts = cu_seq_lens_k[kind] if isinstance(cu_seq_lens_k, dict) else cu_seq_lens_k
    longest = max_seqlen_k[kind] if isinstance(max_seqlen_k, dict) else max_seqlen_k
    keys, values = cache.update(key, value, cast(int, module.layer_idx), read_index, write_index)
    queries = query[0].transpose(0, 1).to(values.dtype).contiguous()
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    rows = cu_seq_lens_q.int(), max_seqlen_q
    output = flash(
        queries, keys.contiguous(), values.contiguous(), *rows, scale, sliding_window, (starts.int(), longest)
    )
    return output[None], None


def flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    starts: torch.Tensor,
    longest: int,
    scale: float,
    window: int | None,
    keys: tuple[torch.Tensor, int] | None = None,
) -> torch.Tensor:
    """Return PyTorch's kernel for sequences of various lengths (Dao 2023, FlashAttention-2).

    `keys` are the starts and the length of the longest where there are more keys than queries; the last ones are level.
    """
    from torch.nn.attention.varlen import varlen_attn

    settings: dict[str, Any] = {"scale": scale, "window_size": (-1 if window is None else window - 1, 0), **GQA}
    if keys is None:
        keys = starts, longest
    output: Any = varlen_attn(query, key, value, starts, keys[0], longest, keys[1], **settings)
    return output


def register(name: str) -> None:
    """Make one of the two known to Transformers, as a model's attention implementation."""
    AttentionInterface.register(name, attend_paged if name == PAGED else partial(attend, kernel=flash))


def _gqa() -> dict[str, bool]:
    """Ask for fewer key heads than query heads, where PyTorch wants to be asked (from 2.12 on)."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return {}
    return {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}


GQA = _gqa()
