"""LoRA adapters of random weights as GGUF, for any model of two-dimensional projections."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.quants import quantize


def write_lora(path: Path, base: Path, seed: int, *, rank: int = 16, alpha: float = 32.0, **others: Any) -> Path:
    """An adapter on all projections of a base's layers, which changes what it says.

    Args:
        path: to write.
        base: its GGUF.
        seed: of its weights.
        rank: of all.
        alpha: 0 where B has the scale in it.
        others: `kind` of the numbers ("F16", or what else the converter writes), `only` the tensors with it in their
            names, `architecture`, and `says`, further keys.
    """
    kind = gguf.GGMLQuantizationType[others.get("kind", "F16")]
    only, says = others.get("only", ""), others.get("says", {})
    draw = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, others.get("architecture", "llama"))
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    for key, said in says.items():
        writer.add_array(key, said) if isinstance(said, list) else writer.add_string(key, said)
    for tensor in gguf.GGUFReader(base).tensors:
        if tensor.name.startswith("blk.") and len(tensor.shape) == 2 and only in tensor.name:
            inputs, outputs = map(int, tensor.shape)
            for name, shape in (("lora_a", (rank, inputs)), ("lora_b", (outputs, rank))):
                numbers = draw.normal(0, 0.1, shape).astype(np.float32)
                type_ = gguf.GGMLQuantizationType.F16 if kind.name == "Q8_0" and shape[1] % 32 else kind
                writer.add_tensor(f"{tensor.name}.{name}", quantize(numbers, type_), raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
