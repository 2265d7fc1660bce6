"""Quantizes a GGUF through the llama.cpp that is installed, so that quantizer and server are one version."""

import os
from pathlib import Path

import llama_cpp

from common.errors import UserError
from common.files import disk_full
from llama.model import last_error
from pipeline.gguf.importance import Matrix, as_parameter

BUFFER = 2**28  # bytes of rows worked on at once; llama.cpp would take a whole matrix, 1.6 GB of a 1B model's largest


def quantize(source: Path, file: Path, kind: str, matrix: Matrix | None = None) -> None:
    """Write `source`, an unquantized GGUF, as `file` in the type `kind`, one of llama.cpp's names such as Q4_K_M.

    Rows that 256 does not divide cannot be K-quants; llama.cpp gives those a larger type.

    Args:
        source: to read.
        file: to write.
        kind: a type.
        matrix: what the weights' inputs weigh; None weighs all alike.

    Raises:
        UserError: llama.cpp refuses, or the disk does.
    """
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    params.nthread = os.cpu_count() or 1
    params.max_buf_size = BUFFER
    if matrix:
        params.imatrix = as_parameter(matrix)
    status = llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(file), params)
    if status != 0:
        reason = disk_full(file.parent) or last_error()
        raise UserError(f"llama.cpp cannot quantize {source.name} to {kind}: {reason}")
