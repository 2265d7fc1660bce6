"""What export costs beside llama.cpp's own way to the same files: time and memory, on random weights of real shapes.

    python -m benchmarks.export                 1B and 3B; writes benchmarks/results/export.json and .md
    python -m benchmarks.export --shapes 1b --repeats 1

Ours merges an adapter shard by shard, converts to F16 and quantizes, as the export stage does. The peer is llama.cpp's
convert_hf_to_gguf.py on the base, merged with nothing, then its quantizer, each in a plain process. They run in turn.
The checks, which only the stage has, are measured apart and once. A run needs 4 times the model's size in 16 bit on
the disk.

CPU seconds leave out what other processes take meanwhile. Memory is of a process and its children, sampled every 50
ms: the anonymous part, which a machine must have, and all that is resident, with pages of files that the kernel takes
back when it needs them.
"""

import argparse
import json
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import torch
from peft import LoraConfig
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoTokenizer

from benchmarks.inputs import CHATS, REPOSITORY, SHAPES, llama, make_model
from benchmarks.peers import RANK
from benchmarks.pipeline import facts
from common.files import write_json, write_text
from llama.source import llama_cpp_tree
from pipeline.core.config import ModelSettings
from pipeline.gguf.convert import convert
from pipeline.gguf.export_set import ROW_TOKENS
from pipeline.gguf.merge import ADAPTER_WEIGHTS, merge, weight_files
from pipeline.gguf.quantize import quantize
from pipeline.gguf.reference import trained_model, write_logits
from pipeline.gguf.verify import compare, read_original, verify
from pipeline.models.chat import encode

RESULTS = REPOSITORY / "benchmarks/results"
TYPES = ("Q8_0", "Q4_K_M")
ROWS = 16  # as conf/export has it
SAMPLE = 0.05  # seconds
# What a plain process quantizes with: the same library and the same call as ours.
QUANTIZE = """
import os, sys, llama_cpp
params = llama_cpp.llama_model_quantize_default_params()
params.ftype = getattr(llama_cpp, "LLAMA_FTYPE_MOSTLY_" + sys.argv[3])
params.nthread = os.cpu_count()
sys.exit(llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), params))
"""
# The converter as it is, but that it takes the starter's tokenizer for one that it knows.
CONVERT = """
import runpy, sys
tree, sys.argv = sys.argv[1], sys.argv[1:]
sys.path[:0] = [tree, tree + "/gguf-py"]
from conversion.base import TextModel
TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen2"
runpy.run_path(tree + "/convert_hf_to_gguf.py", run_name="__main__")
"""

Figures = dict[str, float]


def main() -> None:
    """Measure every shape and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["1b", "3b"])
    parser.add_argument("--repeats", type=int, default=3, help="the median of so many is reported")
    parser.add_argument("--work", type=Path, help="a folder for models and files; else a temporary one")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--step", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)  # a measured process
    arguments = parser.parse_args()
    if arguments.step:
        name, folder = arguments.step
        {"make": make_ours, "check": check_ours}[name](Path(folder))
        return
    shapes = {}
    for shape in arguments.shapes:
        with tempfile.TemporaryDirectory(prefix="tunesmith-export-", dir=arguments.work) as folder:
            shapes[shape] = measure(shape, Path(folder), arguments.repeats)
    report = {**facts(), "types": ["F16", *TYPES], "repeats": arguments.repeats, "shapes": shapes}
    write_json(arguments.results / "export.json", report)
    write_text(arguments.results / "export.md", table(report))
    print(table(report))


def measure(shape: str, folder: Path, repeats: int) -> dict[str, Any]:
    """Return ours, its checks and the peer, in turn, on one model."""
    make_model(folder / "base", llama(shape))
    make_adapter(folder / "base", folder / "adapter")
    llama_cpp_tree()  # fetched before anything is timed
    runs: dict[str, list[Figures]] = {"ours": [], "checks": [], "peer": []}
    for repeat in range(repeats):
        runs["ours"].append(watched(step("make", folder)))
        if not repeat:  # they have no peer
            runs["checks"].append(watched(step("check", folder)))
        shutil.rmtree(folder / "ours")
        runs["peer"].append(combined([watched(command) for command in peer_commands(folder)]))
        shutil.rmtree(folder / "peer")
    found = {name: {key: median(run[key] for run in made) for key in made[0]} for name, made in runs.items()}
    ratios = {key: round(found["ours"][key] / found["peer"][key], 3) for key in found["ours"]}
    return {**found, "ratio": ratios, "runs": runs}


def make_adapter(base: Path, folder: Path) -> None:
    """Write random low-rank products on every projection of a model's layers, and its tokenizer."""
    torch.manual_seed(1)
    tensors, modules = {}, set()
    for name, path in weight_files(base).items():
        if name.endswith("_proj.weight"):
            with safe_open(path, "pt") as file:
                height, width = file.get_slice(name).get_shape()
            module = name.removesuffix(".weight")
            modules.add(module.rpartition(".")[2])
            tensors[f"base_model.model.{module}.lora_A.weight"] = torch.randn(RANK, width) / width**0.5
            tensors[f"base_model.model.{module}.lora_B.weight"] = torch.randn(height, RANK) * 0.01
    folder.mkdir()
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=sorted(modules), task_type="CAUSAL_LM")
    config.save_pretrained(str(folder))
    AutoTokenizer.from_pretrained(str(base)).save_pretrained(folder)


def make_ours(folder: Path) -> None:
    """Do what the export stage does, less its checks; the merged model stays, for those."""
    source, files = folder / "ours/model", folder / "ours"
    merge(settings(folder), folder / "adapter", source)
    convert(source, files / "F16.gguf", "F16")
    for kind in TYPES:
        quantize(files / "F16.gguf", files / f"{kind}.gguf", kind)


def check_ours(folder: Path) -> None:
    """Run the checks of the export stage on what `make_ours` made."""
    files = folder / "ours"
    tokenizer = AutoTokenizer.from_pretrained(str(folder / "adapter"))
    chats = [json.loads(line)["messages"] for line in CHATS.read_text(encoding="utf-8").splitlines()[:ROWS]]
    rows = [encode(tokenizer, chat, ROW_TOKENS)[0][0] for chat in chats]
    original = read_original(files / "model", chats)
    shape = (sum(len(row) - 1 for row in rows), original.config.vocab_size)
    logits = np.memmap(files / "logits", np.float32, "w+", shape=shape)
    write_logits(trained_model(str(folder / "base"), None, folder / "adapter", "cpu"), rows, "cpu", logits)
    for kind in ("F16", *TYPES):
        verify(files / f"{kind}.gguf", original)
        print(kind, compare(files / f"{kind}.gguf", rows, logits, keep=kind == "F16"), file=sys.stderr, flush=True)


def settings(folder: Path) -> ModelSettings:
    """Return the base as the pipeline knows it."""
    return ModelSettings(
        name="model", path=str(folder / "base"), revision=None, merge_path=None, merge_revision=None,
        chat_template=None, load_in_4bit=False,
    )  # fmt: skip


def step(name: str, folder: Path) -> list[str]:
    """Return the command of one of our processes."""
    return [sys.executable, "-m", "benchmarks.export", "--step", name, str(folder)]


def peer_commands(folder: Path) -> list[list[str]]:
    """Return llama.cpp's own way, each step in a process of its own."""
    files = folder / "peer"
    files.mkdir()
    converter = [sys.executable, "-c", CONVERT, str(llama_cpp_tree())]
    unquantized = str(files / "F16.gguf")
    quantizing = [[sys.executable, "-c", QUANTIZE, unquantized, str(files / f"{kind}.gguf"), kind] for kind in TYPES]
    return [[*converter, "--outfile", unquantized, "--outtype", "f16", str(folder / "base")], *quantizing]


def watched(command: list[str]) -> Figures:
    """Return seconds of a process by the clock and on CPUs, and the most memory of it and its children at once, in GB.

    Raises:
        RuntimeError: it fails.
    """
    start, before = time.perf_counter(), cpu_seconds()
    peak = {"anonymous_gb": 0.0, "resident_gb": 0.0}
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=errors)
        while process.poll() is None:
            now = memory(process.pid)
            peak = {key: max(value, now[key]) for key, value in peak.items()}
            time.sleep(SAMPLE)
        seconds = {"seconds": time.perf_counter() - start, "cpu_seconds": cpu_seconds() - before}
        errors.seek(0)
        if process.returncode != 0:
            raise RuntimeError(errors.read().decode(errors="replace")[-2000:])
    return {key: round(value, 3) for key, value in (seconds | peak).items()}


def cpu_seconds() -> float:
    """Return the seconds of all processes that have been started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def memory(pid: int) -> Figures:
    """Return what a process and its children hold now, in GB."""
    held = {"anonymous_gb": 0.0, "resident_gb": 0.0}
    with suppress(psutil.Error, OSError):  # one of them has just ended
        family = psutil.Process(pid)
        for one in [family, *family.children(recursive=True)]:
            status = Path(f"/proc/{one.pid}/status").read_text()
            for key, name in (("anonymous_gb", "RssAnon"), ("resident_gb", "VmRSS")):
                held[key] += sum(1024 * int(size) / 1e9 for size in re.findall(rf"^{name}:\s*(\d+) kB$", status, re.M))
    return held


def combined(runs: list[Figures]) -> Figures:
    """Process one after the other as one."""
    peaks = {key: max(run[key] for run in runs) for key in ("anonymous_gb", "resident_gb")}
    return {key: round(sum(run[key] for run in runs), 3) for key in ("seconds", "cpu_seconds")} | peaks


def table(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    machine = report["machine"]
    lines = [
        f"# Export to {', '.join(report['types'])}, on {machine['cpus']} CPUs ({machine['processor']})",
        "",
        f"{report['date']}; {', '.join(f'{name} {version}' for name, version in report['packages'].items())}. Random"
        f" weights; medians of {report['repeats']}. `benchmarks/export.py` says what is measured.",
        "",
        "| shape | | seconds | CPU seconds | anonymous GB at most | resident GB at most |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for shape, found in report["shapes"].items():
        rows = {
            "merge, convert, quantize": found["ours"],
            "llama.cpp: convert, quantize": found["peer"],
            "ratio": found["ratio"],
            "the checks": found["checks"],
        }
        for name, figures in rows.items():
            cells = " | ".join(f"{value:.2f}" for value in figures.values())
            lines.append(f"| {shape} | {name} | {cells} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
