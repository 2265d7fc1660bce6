"""Noise on the embeddings while a model learns: NEFTune (Jain et al. 2023)."""

import torch

from pipeline.training.lora import Model


class Noise:
    """Adds to each number of an embedding at most alpha / sqrt(tokens * width), drawn uniformly, in training alone.

    `tokens` are those of its conversation, as in the paper, so that padding and neighbours in a packed row change
    nothing; Transformers' hook takes the row's. It is drawn from PyTorch's random state, which checkpoints keep.
    """

    def __init__(self, base: Model, alpha: float) -> None:
        """Add noise to the embeddings of a causal language model, which may have an adapter."""
        self.alpha = alpha
        self.tokens = torch.empty(0)
        base.base_model.register_forward_pre_hook(self.look, with_kwargs=True)
        base.get_input_embeddings().register_forward_hook(self.add)

    def look(self, decoder: torch.nn.Module, args: tuple[object, ...], inputs: dict[str, torch.Tensor]) -> None:
        """Take note of how long the conversations of a micro-batch are."""
        self.tokens = conversation_tokens(inputs)

    def add(self, embedding: torch.nn.Module, args: tuple[object, ...], embedded: torch.Tensor) -> torch.Tensor:
        """Return embeddings of shape (rows, tokens, width) with noise; nothing is added to padding."""
        if not embedding.training:
            return embedded
        reach = self.alpha * (self.tokens * embedded.shape[-1]).clamp(min=1).rsqrt() * (self.tokens > 0)
        return embedded + torch.empty_like(embedded).uniform_(-1, 1) * reach[..., None].to(embedded.dtype)


def conversation_tokens(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the tokens of each token's conversation, of shape (rows, tokens); 0 for padding.

    The rest of a packed row counts as a conversation, of which nothing is learnt.
    """
    if "cu_seq_lens_q" in inputs:
        lengths = inputs["cu_seq_lens_q"].diff()
        return lengths.repeat_interleave(lengths, output_size=inputs["input_ids"].shape[1])[None]
    mask = inputs["attention_mask"]
    return mask.sum(1, keepdim=True) * mask
