"""Far into a text a GGUF says what the model says: a lost rope scaling, or another window, shows only there."""

from collections.abc import Sequence
from itertools import chain, cycle, islice

import torch
from transformers import PreTrainedConfig

from llama.context import CHUNK
from llama.model import Weights
from pipeline.gguf.positions import rope, window
from pipeline.gguf.reference import last_logits
from pipeline.gguf.verify import EXACT, check_divergence, compare

# Tokens of a text that shows a rope scaling. SmolLM2-135M with llama3 scaling (factor 32 from 8,192 tokens on) is from
# itself without 0.003 nats away at 128 tokens, where limits would let it pass, 0.02 at 512, 0.12 at 1,024.
SCALED = 1024
BEHIND = 512  # tokens of a text behind the window
LONGEST = 4096 + BEHIND  # with a longer window, what the file says of it must do


def check_far_divergence(
    weights: Weights, length: int, model: torch.nn.Module, rows: Sequence[Sequence[int]], device: str
) -> None:
    """Refuse an unquantized file that parts from the trained model far into a text.

    Args:
        weights: the GGUF's.
        length: of the text in tokens, of `far_tokens`.
        model: the trained model, which computes on `device`.
        rows: token ids of conversations, which are put end to end.
        device: `cpu` or `cuda`.

    Raises:
        UserError: it does part.
    """
    row = list(islice(cycle(chain.from_iterable(rows)), length))
    likeness = compare(weights, [row], last_logits(model, row, CHUNK, device))
    check_divergence(weights.path, likeness, EXACT, f"logits behind {length - CHUNK} tokens")


def far_tokens(config: PreTrainedConfig, context: int) -> int:
    """Return how long a text must be to show what a configuration has of scaling and windows; 0 where short ones do.

    Args:
        config: of the model's text part.
        context: tokens that the file holds.
    """
    parameters, size, lengths = rope(config), window(config), [0]
    kind = parameters.get("rope_type", "default")
    # Longrope has other factors further on: by the text's length here, by the context's in llama.cpp. The kinds default
    # and dynamic leave positions within the context as they are.
    if kind == "longrope":
        lengths.append(min(SCALED, context, parameters["original_max_position_embeddings"]))
    elif kind not in ("default", "dynamic"):
        lengths.append(min(SCALED, context))
    if size and size < context and size + BEHIND <= LONGEST:
        lengths.append(min(size + BEHIND, context))
    return max(lengths) if max(lengths) > CHUNK else 0
