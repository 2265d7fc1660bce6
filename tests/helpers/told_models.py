"""A GGUF file and an adapter of a few hundred bytes that say where they come from, as export and train write it."""

import json
from contextlib import chdir
from pathlib import Path

import gguf
import numpy as np
from lineages import REPO, lineage_here

from common.files import sha256
from pipeline.core.records import FileLineage, Lineage
from pipeline.gguf.lineage_key import LINEAGE_KEY

WEIGHTS = "adapter_model.safetensors"
TRAINED_IN = "registry.example/tunesmith-train@sha256:" + "1d" * 32


def told_lineage() -> FileLineage:
    """Of a file of starter-s, made of the starter's data."""
    with chdir(REPO):
        return lineage_here(REPO)


def write_told_adapter(folder: Path, lineage: FileLineage, image: str | None = TRAINED_IN) -> FileLineage:
    """Write an adapter of a training; return the lineage of files made of it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(b"weights")
    (folder / "adapter_config.json").write_text("{}")
    (folder / "README.md").write_text("a form")
    Lineage(
        fingerprint="826cceee20290b65",
        mlflow_run=None,
        base=lineage.base,
        data=lineage.data,
        train=lineage.train,
        making=lineage.trained,
        image=image,
    ).write(folder / "lineage.json")
    return lineage.model_copy(update={"adapter": {WEIGHTS: sha256(folder / WEIGHTS)}})


def write_told_gguf(path: Path, lineage: FileLineage) -> Path:
    """Write a file with one tensor and its lineage."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_string(LINEAGE_KEY, json.dumps(lineage.tree(), sort_keys=True))
    writer.add_tensor("a.weight", np.arange(8, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def flip(path: Path, at: int) -> None:
    """Change one bit of one byte."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
