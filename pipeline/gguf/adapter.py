"""An adapter alone as GGUF, for a llama.cpp that has the base."""

import json
from pathlib import Path

from peft import LoraConfig
from safetensors.torch import load_file, save_file

from common.errors import UserError
from common.files import write_json
from pipeline.core.records import ManifestFile
from pipeline.gguf.convert import convert_adapter
from pipeline.gguf.export_set import ExportContext, ExportSet, described, trained_logits, unquantized
from pipeline.gguf.merge import NotPlain, base_folder, plan_deltas, weight_files
from pipeline.gguf.verify import check_divergence, compare
from pipeline.models.loading import ADAPTER_CONFIG, ADAPTER_WEIGHTS


def make_adapter(
    adapter: Path, tuned: ExportSet, base: ExportSet, context: ExportContext, lineage: str = ""
) -> ManifestFile:
    """Write the adapter's file, and describe it as the manifest does; base and adapter must say what `tuned` says.

    Args:
        adapter: in PEFT's layout.
        tuned: base and adapter.
        base: whose unquantized file has been made.
        context: where, and on what it is tried.
        lineage: for the file's metadata.

    Raises:
        UserError: llama.cpp or the disk refuses, or the file is not the adapter.
    """
    file = context.folder / f"{tuned.name}-adapter-F16.gguf"
    path, revision, _ = base.weights
    write_adapter(adapter, base_folder(path, revision), file, context.work, lineage)
    logits, within = trained_logits(tuned, context)
    check_divergence(file, compare(unquantized(base, context), context.rows, logits, adapter=file, within=within))
    return described(file, "F16", "adapter")


def write_adapter(adapter: Path, base: Path, file: Path, work: Path, lineage: str = "") -> None:
    """Write an adapter in PEFT's layout as `file`.

    Args:
        adapter: of training.
        base: the folder of the model that it is for.
        file: to write.
        work: a folder for what is needed on the way.
        lineage: for the file's metadata.

    Raises:
        UserError: it is more than low-rank products on the base's weights, or the converter refuses it.
    """
    try:
        deltas = plan_deltas(adapter, set(weight_files(base)))
    except NotPlain as reason:
        raise UserError(f"llama.cpp takes no such adapter alone ({reason}); set export.adapter to false") from reason
    config = LoraConfig.from_pretrained(str(adapter))
    if any(delta.scale != config.lora_alpha / config.r for delta in deltas.values()):
        adapter = _scaled(adapter, {delta.b: delta.scale for delta in deltas.values()}, work / "adapter")
    convert_adapter(adapter, base, file, lineage)


def _scaled(adapter: Path, scales: dict[str, float], folder: Path) -> Path:
    """Return the same adapter with its scales multiplied into B, where they are not all one alpha / r."""
    folder.mkdir()
    tensors = load_file(adapter / ADAPTER_WEIGHTS)
    save_file({name: tensor * scales.get(name, 1.0) for name, tensor in tensors.items()}, folder / ADAPTER_WEIGHTS)
    config = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    write_json(folder / ADAPTER_CONFIG, {**config, "lora_alpha": 0})  # for which llama.cpp scales by nothing
    return folder
