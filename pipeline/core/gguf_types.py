"""The types of GGUF files."""

from collections.abc import Collection

OUT_TYPES = {"F32": "f32", "F16": "f16", "BF16": "bf16"}  # that llama.cpp's converter writes; all others are quantized


def whole_of(key: str, models: Collection[str]) -> str:
    """Return the unquantized model that a file was made of: a file if there is one, else Transformers' own.

    Args:
        key: of the file, as ManifestFile has it.
        models: all that there are.
    """
    of, dash, _ = key.rpartition("-")
    return next((file for kind in OUT_TYPES if (file := f"{of}{dash}{kind}") in models), of or "tuned")
