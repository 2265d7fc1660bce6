"""Where a GGUF's layers take a token to stand: rotary embedding, windows and context, against the configuration.

A short text hardly shows any of it, so what llama.cpp reads out of the file is compared here; far.py asks its logits.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import gguf
import llama_cpp
import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from llama.header import read_header
from llama.model import load

logger = logging.getLogger(__name__)

DEFAULT_BASE = 10_000.0  # that llama.cpp takes for a file without one
WINDOWS = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
FACTORS = ("rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight")
KNOWN = ("default", "linear", "yarn", "llama3", "longrope")  # the scalings of which it is known what a file must hold


class Rope(TypedDict, total=False):
    """What a configuration says of rotary embeddings, as far as it is asked here."""

    rope_theta: float
    rope_type: str
    factor: float | None
    original_max_position_embeddings: int  # of what is scaled
    short_factor: list[float]  # longrope's
    long_factor: list[float]
    truncate: bool  # yarn's


def rope_difference(
    path: Path, model: "llama_cpp.llama_model_p", metadata: Mapping[str, str], config: PreTrainedConfig
) -> str | None:
    """Return what of a file's rotary embedding is not the configuration's, if anything is.

    Args:
        path: the GGUF.
        model: it, loaded by llama.cpp.
        metadata: what it says of itself.
        config: of the model's text part.
    """
    parameters = rope(config)
    if not parameters:
        return None
    prefix = f"{metadata['general.architecture']}.rope"
    theta, base = parameters["rope_theta"], float(metadata.get(f"{prefix}.freq_base", DEFAULT_BASE))
    if not _near(base, theta):
        return f"its frequencies have the base {base:g}, the original's rope_theta is {theta:g}"
    local = config.rope_parameters.get("sliding_attention", {}).get("rope_theta")
    base = float(metadata.get(f"{prefix}.freq_base_swa", local or 0))  # without it, some architectures know it
    if local and not _near(base, local):
        return f"in its windows frequencies have the base {base:g}, the original's rope_theta there is {local:g}"
    kind, factor = parameters.get("rope_type", "default"), scale(config)
    found = 1 / llama_cpp.llama_model_rope_freq_scale_train(model)
    if not _near(found, factor):
        return f"it divides positions by {found:g}, the original by {factor:g} ({kind})"
    if kind == "yarn":
        expected = f"yarn from {parameters['original_max_position_embeddings']} tokens on"
        scaling = [metadata.get(f"{prefix}.scaling.{key}", "none") for key in ("type", "original_context_length")]
        if f"{scaling[0]} from {scaling[1]} tokens on" != expected:
            return f"it scales by {scaling[0]} from {scaling[1]} tokens on, the original by {expected}"
    return _factors_difference(path, kind, config) if kind in KNOWN else None


def context_difference(model: "llama_cpp.llama_model_p", config: PreTrainedConfig) -> str | None:
    """Return what of a file's context and windows is not the configuration's, if anything is.

    Args:
        model: the GGUF, loaded by llama.cpp.
        config: of the model's text part.
    """
    context, maximum = llama_cpp.llama_model_n_ctx_train(model), getattr(config, "max_position_embeddings", None)
    found, size = llama_cpp.llama_model_n_swa(model), window(config)
    if size and not found and context == size:  # see `end_at_window`
        return None
    if (found if found < context else 0) != (size or 0):
        return f"its layers look back {found or 'any number of'} tokens, the original's {size or 'any number of them'}"
    if maximum and context != maximum:
        return f"it holds {context} tokens, the original's max_position_embeddings is {maximum}"
    return None


def end_at_window(path: Path, config: PreTrainedConfig) -> int:
    """Let a file's context end with the window of its layers, if llama.cpp has none for its architecture.

    Up to there it says what the original says; behind it, its layers would see what they were not trained to see.

    Returns:
        How many tokens the file holds.
    """
    size, context = window(config), getattr(config, "max_position_embeddings", None) or 0
    if size is None:
        return context
    model = load(path, llama_cpp.llama_model_default_params())
    found = llama_cpp.llama_model_n_swa(model)
    llama_cpp.llama_model_free(model)
    if found:
        return context
    reader = gguf.GGUFReader(path, "r+")
    field = reader.fields[f"{reader.fields['general.architecture'].contents()}.context_length"]
    field.parts[field.data[0]][0] = size
    reader.data.flush()
    logger.info(
        f"{path.name} ends at {size} tokens, where the model's window would begin to move: llama.cpp has none for it"
    )
    return size


def rope(config: PreTrainedConfig) -> Rope:
    """Return how the layers that see everything are told of positions; empty where it is in no such way."""
    parameters = getattr(config, "rope_parameters", None) or {}
    parameters = parameters.get("full_attention", parameters)
    return parameters if parameters.get("rope_theta") else {}


def scale(config: PreTrainedConfig) -> float:
    """Return what a configuration divides all positions by; those of low frequency alone under yarn."""
    parameters = rope(config)
    if parameters.get("rope_type") not in ("linear", "yarn"):
        return 1.0
    factor = parameters.get("factor")  # some leave it to be told from these
    return factor or config.max_position_embeddings / parameters["original_max_position_embeddings"]


def has_rounded_ramp(config: PreTrainedConfig) -> bool:
    """Return whether yarn's ramp begins and ends at whole dimensions, as it does in llama.cpp; gpt-oss's does not."""
    return bool(rope(config).get("truncate", True))


def round_ramp(model: PreTrainedModel) -> None:
    """Compute positions as llama.cpp does where a model's ramp is not rounded: nothing in a file says so."""
    config = model.config.get_text_config()
    if has_rounded_ramp(config):
        return
    rope(config)["truncate"] = True
    frequencies, _ = ROPE_INIT_FUNCTIONS["yarn"](config, "cpu")
    for module in model.modules():
        if isinstance(own := getattr(module, "inv_freq", None), torch.Tensor):
            own.copy_(frequencies)


def window(config: PreTrainedConfig) -> int | None:
    """Return how many tokens some of the layers look back, where that is less than the context."""
    if getattr(config, "use_sliding_window", True) is False:
        return None
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"]  # of a model whose layers are all alike
    sizes = [getattr(config, name, None) for kind, name in WINDOWS.items() if kind in kinds]
    context = getattr(config, "max_position_embeddings", None) or float("inf")
    return next((size for size in sizes if size and size < context), None)


def read_vector(path: Path, name: str) -> np.ndarray | None:
    """Return a tensor of float32 in a GGUF; None where it has none of this name.

    By llama.cpp's own reader: gguf-py takes 9 s for a vocabulary of 128k where this takes 0.04.
    """
    extent = read_header(path).tensors.get(name)
    return None if extent is None else np.fromfile(path, np.float32, extent.size // 4, offset=extent.start)


def _factors_difference(path: Path, kind: str, config: PreTrainedConfig) -> str | None:
    """Return which factors, by which frequencies may each be divided, are not the configuration's, if any are."""
    expected = _factors(kind, config)
    for name in FACTORS:
        found, factors = read_vector(path, name), expected.get(name)
        if found is None and factors is None:
            continue
        if found is None:
            return f"it has no {name}, which the original's {kind} scaling asks for"
        factors = np.ones_like(found) if factors is None else factors
        if found.shape != factors.shape or not np.allclose(found, factors, rtol=1e-4):
            return f"its {name} is not what the original's {kind} scaling asks for"
    return None


def _factors(kind: str, config: PreTrainedConfig) -> dict[str, np.ndarray]:
    """Return the tensors that a configuration asks for, by name, float32 [half of the rotated dimensions]."""
    parameters = rope(config)
    if kind == "longrope":
        factors = {"short": parameters["short_factor"], "long": parameters["long_factor"]}
        return {f"rope_factors_{name}.weight": np.array(each, np.float32) for name, each in factors.items()}
    if kind != "llama3":
        return {}
    layers = "full_attention" if "full_attention" in config.rope_parameters else None
    scaled = ROPE_INIT_FUNCTIONS[kind](config, "cpu", layer_type=layers)[0].numpy()
    plain = parameters["rope_theta"] ** -(np.arange(len(scaled), dtype=np.float32) / len(scaled))
    return {"rope_freqs.weight": plain / scaled}


def _near(one: float, other: float) -> bool:
    return abs(one - other) <= 1e-5 * abs(other)  # metadata are written out with six digits
