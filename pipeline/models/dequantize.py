"""A GGUF of Llama's architecture as a folder of Transformers: weights in bf16, tokenizer, chat template.

Everything is written from what the file says, without a model in memory and in one form: the same file gives the same
bytes whatever the versions of the libraries. What this does not know in a file, it refuses.
"""

from pathlib import Path
from typing import Any

import gguf
import torch
from gguf.quants import dequantize
from safetensors.torch import save_file

from common.errors import UserError
from common.files import write_json, write_text

ARCHITECTURE = "llama."
# What the file says of the architecture, by Transformers' names.
SETTINGS = {
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "rope.dimension_count": "head_dim",
    "vocab_size": "vocab_size",
}
EPSILON, ROPE_BASE = "attention.layer_norm_rms_epsilon", "rope.freq_base"
WEIGHTS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER_WEIGHTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# How llama.cpp's name for a way to split text reads in the tokenizers library.
SPLITS = {
    "smollm": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ]
}
SPECIAL = (3, 4)  # llama.cpp's control and user-defined tokens
ROLES = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}  # of tokens: llama.cpp's names, Transformers'

Metadata = dict[str, Any]  # the file's keys and values


def write_folder(file: Path, folder: Path) -> None:
    """Write the model of a GGUF into `folder`, which is made.

    Raises:
        UserError: the file is of another architecture, or has something of it that is not known here.
    """
    reader = gguf.GGUFReader(file)
    metadata = {name: field.contents() for name, field in reader.fields.items()}
    try:
        shape = config(metadata, tied=all(tensor.name != "output.weight" for tensor in reader.tensors))
        ids = special_ids(metadata)
        folder.mkdir()
        write_json(folder / "config.json", {**shape, **ids})
        write_json(folder / "generation_config.json", ids)
        write_json(folder / "tokenizer.json", tokenizer(metadata))
        write_json(folder / "tokenizer_config.json", tokenizer_config(metadata))
        write_text(folder / "chat_template.jinja", metadata["tokenizer.chat_template"])
    except KeyError as error:
        raise UserError(f"the package's GGUF lacks {error.args[0]}, without which it is no whole chat model") from error
    tensors = {weight_name(tensor.name): weight(tensor, shape) for tensor in reader.tensors}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def config(metadata: Metadata, tied: bool) -> dict[str, Any]:
    """Return what Transformers' config.json says of the architecture.

    Raises:
        UserError: the file says more or less of it than is known here.
    """
    if metadata["general.architecture"] != "llama":
        raise UserError(
            f"the package's GGUF is of the architecture {metadata['general.architecture']}; only llama is known"
        )
    own = {key.removeprefix(ARCHITECTURE): value for key, value in metadata.items() if key.startswith(ARCHITECTURE)}
    if odd := own.keys() ^ {*SETTINGS, EPSILON, ROPE_BASE}:
        raise UserError(
            f"the package's GGUF has or lacks {ARCHITECTURE}{min(odd)}, against what is known here of llama"
        )
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **{name: own[key] for key, name in SETTINGS.items()},
        "attention_bias": False,
        "dtype": "bfloat16",
        "hidden_act": "silu",
        "mlp_bias": False,
        "rms_norm_eps": float(f"{own[EPSILON]:.6g}"),  # a float32 in the file
        "rope_parameters": {"rope_theta": own[ROPE_BASE], "rope_type": "default"},
        "tie_word_embeddings": tied,
    }


def special_ids(metadata: Metadata) -> dict[str, int]:
    """Return the ids that generation begins, ends and pads with, by Transformers' names."""
    return {
        f"{role}_token_id": metadata[f"tokenizer.ggml.{key}_token_id"] for key, role in ROLES.items() if role != "unk"
    }


def tokenizer(metadata: Metadata) -> dict[str, object]:
    """Return a byte-pair tokenizer as the tokenizers library writes it.

    Raises:
        UserError: it is of another kind, or splits text in a way that is not known here.
    """
    kind, split = metadata["tokenizer.ggml.model"], metadata.get("tokenizer.ggml.pre")
    if kind != "gpt2" or split not in SPLITS:
        raise UserError(
            f"the package's GGUF has a {kind} tokenizer with the split {split}; gpt2 is known with {', '.join(SPLITS)}"
        )
    if metadata.get("tokenizer.ggml.add_bos_token"):
        raise UserError("the package's GGUF begins every text with a token, which is not known here")
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "added_tokens": [{"id": i, "content": tokens[i], **plain} for i, its in enumerate(types) if its in SPECIAL],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": SPLITS[split]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [pair.split(" ") for pair in metadata["tokenizer.ggml.merges"]],
        },
    }


def tokenizer_config(metadata: Metadata) -> dict[str, object]:
    """Return which tokens have a role, and how much text the model takes."""
    tokens = metadata["tokenizer.ggml.tokens"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{role}_token": tokens[metadata[f"tokenizer.ggml.{key}_token_id"]] for key, role in ROLES.items()},
        "clean_up_tokenization_spaces": False,
        "model_max_length": metadata[f"{ARCHITECTURE}context_length"],
    }


def weight_name(name: str) -> str:
    """Return Transformers' name of a tensor.

    Raises:
        UserError: it is none of Llama's.
    """
    match name.split("."):
        case [module, "weight"] if module in WEIGHTS:
            return f"{WEIGHTS[module]}.weight"
        case ["blk", layer, module, "weight"] if module in LAYER_WEIGHTS:
            return f"model.layers.{layer}.{LAYER_WEIGHTS[module]}.weight"
    raise UserError(f"the package's GGUF has the tensor {name}, which is none of llama's that are known here")


def weight(tensor: gguf.ReaderTensor, shape: dict[str, Any]) -> torch.Tensor:
    """Return a tensor's values in bf16, its rows in Transformers' order."""
    values = torch.tensor(dequantize(tensor.data, tensor.tensor_type))
    for part, heads in (("attn_q", "num_attention_heads"), ("attn_k", "num_key_value_heads")):
        if f".{part}." in tensor.name:
            values = in_halves(values, shape[heads])
    return values.to(torch.bfloat16)


def in_halves(values: torch.Tensor, heads: int) -> torch.Tensor:
    """Return the rows of a projection [heads * size, in].

    Llama.cpp rotates neighbours together, Transformers its halves.
    """
    pairs = values.view(heads, len(values) // heads // 2, 2, -1)
    return pairs.transpose(1, 2).reshape(values.shape)
