"""A Hugging Face model folder becomes an unquantized GGUF, by llama.cpp's own converter.

    python -m pipeline.gguf.convert LLAMA_CPP_TREE SCRIPT ARGUMENTS...      what `convert` runs, in a process of its own

The converter knows a BPE tokenizer by a hash over sample text and refuses others. A tokenizer made elsewhere with a
split pattern that llama.cpp implements is as good: such a one is told by the pattern in its tokenizer.json.
"""

import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.files import disk_full
from pipeline.gguf.source import llama_cpp_tree

OUT_TYPES = {"F32": "f32", "F16": "f16", "BF16": "bf16"}

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# Split pattern -> llama.cpp's name of the pre-tokenizer that implements it; digits by threes, and singly.
SPLIT_PATTERNS = {rf"{_WORDS}\p{{N}}{{1,3}}{_REST}": "llama-bpe", rf"{_WORDS}\p{{N}}{_REST}": "qwen2"}


def convert(model: Path, file: Path, out_type: str) -> None:
    """Writes `model` as `file`, in the 16 or 32 bit that `out_type` names.

    Raises:
        UserError: the converter does not know the architecture or the tokenizer, or the disk refuses.
    """
    _run("convert_hf_to_gguf.py", model, file, out_type, str(model))


def convert_adapter(adapter: Path, base: Path, file: Path) -> None:
    """Writes an adapter in PEFT's layout as `file`, in F16, for a llama.cpp that has the base.

    Args:
        adapter: whose scale is alpha / r, which is all that llama.cpp knows.
        base: the model's folder, of which the configuration is read.
        file: to write.

    Raises:
        UserError: the converter does not know the architecture or a tensor, or the disk refuses.
    """
    _run("convert_lora_to_gguf.py", adapter, file, "F16", "--base", str(base), str(adapter))


def _run(script: str, source: Path, file: Path, out_type: str, *arguments: str) -> None:
    options = ["--outfile", str(file), "--outtype", OUT_TYPES[out_type]]
    command = [sys.executable, "-m", "pipeline.gguf.convert", str(llama_cpp_tree()), script, *options, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode != 0:
        lines = ran.stderr.strip().splitlines() or ["no reason given"]
        errors = [line for line in lines if re.match(r"\w*(Error|Exception)\b", line)]  # a progress bar may come last
        reason = disk_full(file.parent) or (errors or lines)[-1]
        raise UserError(f"llama.cpp's converter cannot write {file.name} from {source}: {reason}")


def split_pattern(tokenizer_json: Path) -> str | None:
    """The regular expression by which a tokenizer.json splits text into words."""
    pre_tokenizer: dict[str, Any] = json.loads(tokenizer_json.read_text(encoding="utf-8")).get("pre_tokenizer") or {}
    for step in pre_tokenizer.get("pretokenizers", [pre_tokenizer]):
        if step.get("type") == "Split":
            return step["pattern"].get("Regex")
    return None


def _run_script(tree: str, script: str, *arguments: str) -> None:
    """Runs a converter in this process, as we want it."""
    os.environ.pop("NO_LOCAL_GGUF", None)
    sys.path.insert(0, tree)
    sys.path.insert(1, str(Path(tree) / "gguf-py"))
    from conversion.base import ModelBase, TextModel

    _know_split_patterns(TextModel)
    _halve_directly(ModelBase)
    sys.argv = [script, *arguments]
    runpy.run_path(str(Path(tree) / script), run_name="__main__")


def _know_split_patterns(text_model: Any) -> None:
    """Tells a tokenizer that the converter does not know by its pattern."""
    by_hash = text_model.get_vocab_base_pre

    def by_hash_or_pattern(self: Any, tokenizer: Any) -> str:
        try:
            return by_hash(self, tokenizer)
        except NotImplementedError:
            pattern = split_pattern(self.dir_model / "tokenizer.json")
            if pattern not in SPLIT_PATTERNS:
                raise
            return SPLIT_PATTERNS[pattern]

    text_model.get_vocab_base_pre = by_hash_or_pattern


def _halve_directly(model_base: Any) -> None:
    """Takes bf16 matrices to F16 at once: by way of float32, with the same result, takes three times the memory."""
    import gguf
    import torch

    get_tensors = model_base.get_tensors

    def in_half(self: Any) -> Iterator[tuple[str, Any]]:
        for name, tensor in get_tensors(self):
            direct = (
                self.ftype == gguf.LlamaFileType.MOSTLY_F16 and tensor.dtype == torch.bfloat16 and tensor.dim() == 2
            )
            yield name, tensor.to(torch.float16) if direct else tensor

    model_base.get_tensors = in_half


if __name__ == "__main__":
    _run_script(*sys.argv[1:])
