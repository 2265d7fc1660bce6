"""The lineage of a GGUF file: what it takes to make it again, as JSON in the file's own metadata."""

import json
from dataclasses import asdict, replace
from pathlib import Path

from pipeline.core.config import ExportSettings, ModelSettings
from pipeline.core.making import this_making
from pipeline.core.records import FileLineage, Lineage, Of, TunedBase
from pipeline.gguf.export_set import unquantized_type
from pipeline.models.lineage import weight_digests
from pipeline.models.loading import base_digest

LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "llama_cpp_python")


def file_lineage(
    of: Of,
    lineage: Lineage,
    adapter: Path,
    model: ModelSettings,
    revision: str | None,
    settings: ExportSettings,
) -> FileLineage | None:
    """Return what files of a model say of where they come from; None for an adapter that does not say it.

    Args:
        of: what the files hold.
        lineage: of the adapter.
        adapter: of training.
        model: the base's settings.
        revision: the base's commit on the hub, or its package's hash; None for a folder.
        settings: of the export.
    """
    if lineage.making is None:
        return None
    base = {**asdict(model), "revision": revision, "digest": lineage.base.digest}
    merged = replace(model, path=model.merge_path, revision=model.merge_revision) if model.merge_path else None
    is_base, types = of == "base", settings.base if of == "base" else settings.quantizations
    return FileLineage(
        schema_version=1,
        of=of,
        source=unquantized_type(types),
        base=TunedBase(**base),
        merge_digest=base_digest(merged) if merged else None,
        importance_matrix=settings.importance_matrix,
        data=None if is_base and not settings.importance_matrix else lineage.data,
        train=None if is_base else lineage.train,
        start_adapter=None if is_base else lineage.start_adapter,
        adapter=None if is_base else weight_digests(adapter),
        trained=None if is_base else lineage.making,
        exported=this_making(LIBRARIES, "cpu"),
    )


def as_text(lineage: FileLineage | None) -> str:
    """Return it as a file holds it; nothing of nothing."""
    return "" if lineage is None else json.dumps(lineage.tree(), sort_keys=True, ensure_ascii=False)
