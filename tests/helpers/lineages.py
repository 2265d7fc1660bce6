"""What an exported file says of where it comes from, as of a file made here and now of starter-s."""

from dataclasses import asdict
from pathlib import Path

from pipeline.core.composition import compose
from pipeline.core.config import load
from pipeline.core.learnt import settings_of_digits
from pipeline.core.making import this_making
from pipeline.core.records import DataOrigin, FileLineage, TunedBase
from pipeline.data.prepared import made_from
from pipeline.models.loading import base_digest

REPO = Path(__file__).parents[2]


def lineage_here(workspace: Path, *overrides: str) -> FileLineage:
    """The lineage of a file that conf/ with overrides would make of what is in a workspace."""
    config = load(compose(REPO / "conf", ["model=starter-s", *overrides]))
    made = made_from(config.data, workspace)
    making = this_making(("torch", "peft"), "cpu")
    return FileLineage(
        schema_version=1,
        of="tuned",
        source="F16",
        base=TunedBase(**asdict(config.model), digest=base_digest(config.model)),
        merge_digest=None,
        importance_matrix=False,
        data=DataOrigin(settings=made["settings"], files=made["files"], splits={"train": "a" * 64}),
        train=settings_of_digits(config.train),
        adapter={"adapter_model.safetensors": "b" * 64},
        trained=making,
        exported=making,
    )
