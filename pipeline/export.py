"""The adapter becomes GGUF files: merged on the 16-bit base, converted, quantized, each under its final name at once.

Writes models/gguf/<model>-<type>.gguf and models/gguf/manifest.json.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer

from pipeline.config import Config, ModelSettings
from pipeline.errors import UserError
from pipeline.files import atomic_path, sha256, write_json
from pipeline.gguf.convert import OUT_TYPES, convert
from pipeline.gguf.quantize import quantize
from pipeline.gguf.source import VERSION
from pipeline.stage import stage
from pipeline.tracking import tracked, training_folder
from pipeline.training.engines import load_base, merge_adapter

ADAPTER = Path("models/adapter")
GGUF = Path("models/gguf")
MANIFEST = "manifest.json"


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
@stage
def main(config: Config, out: Path) -> None:
    """Exports models/adapter into `out`/models/gguf."""
    lineage = read_lineage(ADAPTER, config.model)
    with atomic_path(out / GGUF) as folder:
        folder.mkdir()
        with merged(config.model, ADAPTER) as model:
            files = write_files(model, folder, config.model.name, config.export.quantizations)
        manifest = {
            "base": {"path": lineage["base"]["path"], "revision": lineage["base"]["revision"]},
            "fingerprint": lineage["fingerprint"],
            "llama_cpp_python": VERSION,
            "files": files,
        }
        write_json(folder / MANIFEST, manifest)
    journal = training_folder(config, lineage["fingerprint"])
    with tracked(config, journal, config.model.name, lineage["mlflow_run"]) as run:
        run.params(config, ("export",))
        run.artifact(out / GGUF / MANIFEST)
        run.metrics({"gguf": {file["type"]: {"bytes": file["bytes"]} for file in files}})
    print_files(files)


@contextmanager
def merged(model: ModelSettings, adapter: Path) -> Iterator[Path]:
    """A temporary folder with base and adapter as one model in bf16, and the tokenizer that training used.

    Raises:
        UserError: the base cannot be loaded, or adapter and base do not fit.
    """
    if (adapter / "adapter_config.json").is_file():
        tuned = merge_adapter(load_base(*model.merge_base, "cpu", torch.bfloat16), adapter)
    else:  # a full fine-tune is a model already
        tuned = load_base(str(adapter), None, "cpu", torch.bfloat16)
    with tempfile.TemporaryDirectory(prefix="tunesmith-merged-") as temporary:
        folder = Path(temporary) / model.name  # llama.cpp's converter takes the file's `general.name` from it
        tuned.save_pretrained(folder)
        AutoTokenizer.from_pretrained(str(adapter)).save_pretrained(folder)
        yield folder


def write_files(model: Path, folder: Path, name: str, quantizations: list[str]) -> list[dict[str, Any]]:
    """Writes every wanted type from one unquantized file, and describes each as the manifest does."""
    wanted = list(dict.fromkeys(quantizations))
    unquantized = next((kind for kind in wanted if kind in OUT_TYPES), "F16")
    source = folder / f"{name}-{unquantized}.gguf"
    convert(model, source, unquantized)
    files = []
    for kind in wanted:
        file = folder / f"{name}-{kind}.gguf"
        if kind in OUT_TYPES and kind != unquantized:
            convert(model, file, kind)
        elif kind != unquantized:
            quantize(source, file, kind)
        files.append({"file": file.name, "type": kind, "bytes": file.stat().st_size, "sha256": sha256(file)})
        print(f"wrote {file.name}", flush=True)
    if unquantized not in wanted:
        source.unlink()
    return files


def read_lineage(adapter: Path, model: ModelSettings) -> dict[str, Any]:
    """Where an adapter comes from: base, fingerprint, MLflow run.

    Raises:
        UserError: there is no adapter, or another base than `model` was tuned; PEFT would fit what happens to fit.
    """
    path = adapter / "lineage.json"
    if not path.is_file():
        raise UserError(f"{path} is missing; run `dvc repro train` first")
    lineage = json.loads(path.read_text(encoding="utf-8"))
    if lineage["base"]["path"] != model.path:
        tuned = f"{adapter} was tuned from {lineage['base']['path']}"
        raise UserError(f"{tuned} and model.path is {model.path}; run `dvc repro train` first")
    return lineage


def print_files(files: list[dict[str, Any]]) -> None:
    """The exported files as a table."""
    table = Table("file", "type", "MB", title="export")
    for file in files:
        table.add_row(file["file"], file["type"], f"{file['bytes'] / 1e6:,.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
