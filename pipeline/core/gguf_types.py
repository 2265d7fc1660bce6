"""The types of GGUF files."""

OUT_TYPES = {"F32": "f32", "F16": "f16", "BF16": "bf16"}  # that llama.cpp's converter writes; all others are quantized
