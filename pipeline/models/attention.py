"""Attention over packed conversations by PyTorch's FlashAttention, each conversation to itself alone.

Registered with Transformers as `packed_varlen`; what it is given beside query, key and value is what Transformers gives
to its own FlashAttention. `slots_varlen` is the same over a cache with a slot for each conversation, to which a new
token of each is added (pipeline/evaluation/continuous.py).
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from transformers import AttentionInterface

# A name with "flash" in it makes Transformers look for a kernel on the hub.
FLASH, SLOTS = "packed_varlen", "slots_varlen"
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


class SlotCache:
    """Keys and values of several conversations, each in a slot of its own."""

    def __init__(self, slots: int, room: int) -> None:
        """For so many conversations of `room` tokens at most."""
        self._shape = slots, room
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def write(
        self, layer: int, key: torch.Tensor, value: torch.Tensor, where: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add tokens; return all keys and values of a layer, of shape (slots, room, key heads, head size).

        Args:
            layer: its number.
            key: of shape (tokens, key heads, head size), as is `value`.
            value: see `key`.
            where: slot and place of each token.
        """
        if layer not in self._layers:
            room = [new.new_zeros(*self._shape, *new.shape[1:]) for new in (key, value)]
            self._layers[layer] = room[0], room[1]
        keys, values = self._layers[layer]
        keys[where], values[where] = key, value
        return keys, values


def attend_in_slots(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packed: Callable[..., torch.Tensor],
    one_each: Callable[..., torch.Tensor],
    cache: SlotCache,
    where: tuple[torch.Tensor, torch.Tensor],
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int = 1,
    lengths: torch.Tensor | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Let prompts attend to themselves, or a new token of each slot to all that its slot has; see `attend`.

    Args:
        module: the layer; its number says where its keys and values are.
        query: of shape (1, heads, new tokens, head size).
        key: of shape (1, key heads, new tokens, head size), as is `value`.
        value: see `key`.
        attention_mask: unused.
        packed: the kernel for prompts, `flash`.
        one_each: the kernel for a token of each slot, `flash_one_each`.
        cache: takes the new keys and values.
        where: the slot and the place of each new token.
        cu_seq_lens_q: where each prompt begins and the last one ends; unused where there are `lengths`.
        max_length_q: tokens of the longest prompt.
        lengths: int32 of shape (slots): tokens in each slot, the new one included; None where prompts are read.
        scaling: of the scores.
        sliding_window: tokens that each attends to, itself included; None for all before it.

    Returns:
        The output of shape (1, new tokens, heads, head size), and no weights.
    """
    query, key, value = (tensor[0].transpose(0, 1).to(value.dtype) for tensor in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    keys, values = cache.write(cast(int, module.layer_idx), key, value, where)
    if lengths is None:
        return packed(query, key, value, cu_seq_lens_q, max_length_q, scale, sliding_window)[None], None
    return one_each(query, keys, values, lengths, scale, sliding_window)[None], None


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


def flash_one_each(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    lengths: torch.Tensor,
    scale: float,
    window: int | None,
) -> torch.Tensor:
    """Return the same kernel's attention of one token a slot to the first `lengths` tokens of it.

    Args:
        query: of shape (slots, heads, head size).
        keys: of shape (slots, room, key heads, head size), as are `values`.
        values: see `keys`.
        lengths: int32 of shape (slots).
        scale: of the scores.
        window: tokens that each attends to, itself included; None for all.

    Returns:
        The output of shape (slots, heads, head size).
    """
    slots, room = keys.shape[:2]
    starts = torch.arange(slots + 1, dtype=torch.int32, device=query.device)
    sides = {} if window is None else {"window_size_left": window - 1, "window_size_right": 0}
    output: torch.Tensor = torch.ops.aten._flash_attention_forward(
        query.contiguous(),
        *(keys.flatten(0, 1), values.flatten(0, 1)),
        *(starts, starts * room, 1, room),
        *(0.0, False, False),  # dropout, and what comes after the last token: nothing does
        scale=scale,
        seqused_k=lengths,
        **sides,
    )[0]
    return output


def register(name: str) -> None:
    """Make one of the two known to Transformers, as a model's attention implementation."""
    in_slots = partial(attend_in_slots, packed=flash, one_each=flash_one_each)
    AttentionInterface.register(name, in_slots if name == SLOTS else partial(attend, kernel=flash))


def _gqa() -> dict[str, bool]:
    """Ask for fewer key heads than query heads, where PyTorch wants to be asked (from 2.12 on)."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return {}
    return {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}


GQA = _gqa()
