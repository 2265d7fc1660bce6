"""A Hugging Face model folder becomes an unquantized GGUF, by llama.cpp's own converter.

The converter runs in a process of its own, and with a few changes: `converter.py`.
"""

import re
import subprocess
import sys
from pathlib import Path

from common.errors import UserError
from common.files import disk_full
from llama.source import llama_cpp_tree
from pipeline.core.gguf_types import OUT_TYPES


def convert(model: Path, file: Path, out_type: str, lineage: str = "") -> None:
    """Write `model` as `file`, in the 16 or 32 bit that `out_type` names, with its lineage in the metadata.

    Raises:
        UserError: the converter does not know the architecture or the tokenizer, or the disk refuses.
    """
    _run("convert_hf_to_gguf.py", model, file, out_type, lineage, str(model))


def convert_adapter(adapter: Path, base: Path, file: Path, lineage: str = "") -> None:
    """Write an adapter in PEFT's layout as `file`, in F16, for a llama.cpp that has the base.

    Args:
        adapter: whose scale is alpha / r, which is all that llama.cpp knows.
        base: the model's folder, of which the configuration is read.
        file: to write.
        lineage: for its metadata.

    Raises:
        UserError: the converter does not know the architecture or a tensor, or the disk refuses.
    """
    _run("convert_lora_to_gguf.py", adapter, file, "F16", lineage, "--base", str(base), str(adapter))


def _run(script: str, source: Path, file: Path, out_type: str, lineage: str, *arguments: str) -> None:
    options = ["--outfile", str(file), "--outtype", OUT_TYPES[out_type]]
    command = [sys.executable, "-m", "pipeline.gguf.converter", str(llama_cpp_tree()), script, *options, *arguments]
    ran = subprocess.run(command, input=lineage, capture_output=True, text=True)
    if ran.returncode != 0:
        reason = disk_full(file.parent) or last_error(ran.stderr)
        raise UserError(f"llama.cpp's converter cannot write {file.name} from {source}: {reason}")


def last_error(output: str) -> str:
    """Return the line of a converter's output that says why it failed.

    Of an error without words, where it was raised.
    """
    lines = output.strip().splitlines() or ["no reason given"]
    errors = [line for line in lines if re.match(r"\w*(Error|Exception)\b", line)]  # a progress bar may come last
    reason = (errors or lines)[-1]
    places = re.findall(r'File ".*?(\w+\.py)", line (\d+), in .*\n\s*(.*)', output)
    if places and ":" not in reason:
        file, line, code = places[-1]
        return f"{reason} in line {line} of its {file} ({code}); this model is not as the converter wants it"
    return reason
