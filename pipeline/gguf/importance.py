"""An importance matrix: how much each input of a weight is used, so that quantization can spare what is used most.

It is llama.cpp's `llama-imatrix` without its binary: the sums are taken in the callback by which a context shows every
tensor that it has computed. https://github.com/ggml-org/llama.cpp/tree/master/tools/imatrix
"""

import ctypes
from collections.abc import Sequence
from pathlib import Path

import llama_cpp
import numpy as np

from llama.context import CHUNK, Context
from llama.ggml import OPERATIONS, Tensor, check_layout

Matrix = dict[str, np.ndarray]  # tensor's name -> mean square of each of its inputs, float32 [inputs]

FLOAT32 = 0  # GGML_TYPE_F32


def importance(path: Path, rows: Sequence[Sequence[int]]) -> Matrix:
    """Return the importance matrix of an unquantized GGUF over rows of at most CHUNK token ids.

    Weights that a token goes through by choice (experts) are left out, and quantized without.

    Raises:
        UserError: the file cannot be loaded, or the tensors of this llama.cpp are laid out in another way.
    """
    check_layout()
    sums = _Sums()
    with Context(path, CHUNK, watch=llama_cpp.ggml_backend_sched_eval_callback(sums)) as context:
        for ids in rows:
            for _ in context.logits(ids, range(len(ids))):  # the last layer computes those that are asked for alone
                pass
    return {name: (total / sums.counts[name]).astype(np.float32) for name, total in sums.totals.items()}


def as_parameter(matrix: Matrix) -> "ctypes.Array[llama_cpp.llama_model_imatrix_data]":
    """Return the matrix as `llama_model_quantize_params.imatrix` wants it.

    An array that ends with an entry without name.
    """
    entries = (llama_cpp.llama_model_imatrix_data * (len(matrix) + 1))()
    for entry, (name, values) in zip(entries, matrix.items(), strict=False):
        entry.name, entry.size = name.encode(), len(values)
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    return entries


class _Sums:
    """Sums of squares of what goes into each weight of the layers; is called for every tensor of the graph."""

    def __init__(self) -> None:
        self.totals: dict[str, np.ndarray] = {}
        self.counts: dict[str, int] = {}

    def __call__(self, address: int, ask: bool, _: object) -> bool:
        """Tell whether a tensor is wanted, and take it in when called again once it is computed."""
        tensor = Tensor.from_address(address)
        if tensor.op != OPERATIONS["MUL_MAT"]:
            return not ask
        weight, inputs = map(Tensor.from_address, tensor.src[:2])
        is_collected = weight.name.startswith(b"blk.") and inputs.type == FLOAT32
        if not ask and is_collected:
            self._add(weight.name.decode(), inputs)
        return is_collected or not ask

    def _add(self, name: str, inputs: Tensor) -> None:
        width, rows = inputs.ne[0], inputs.ne[1] * inputs.ne[2] * inputs.ne[3]
        values = np.ctypeslib.as_array(ctypes.cast(inputs.data, ctypes.POINTER(ctypes.c_float)), (rows, width))
        self.totals[name] = self.totals.get(name, 0.0) + np.square(values, dtype=np.float64).sum(axis=0)
        self.counts[name] = self.counts.get(name, 0) + rows
