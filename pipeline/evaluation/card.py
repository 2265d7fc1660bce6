"""What the chat shows of a model beside what its GGUF files say themselves: models/card.json."""

from collections.abc import Sequence
from typing import Any

FIGURES = ("loss", "perplexity", "accuracy")


def model_card(
    lineage: dict[str, Any],
    prepared: dict[str, Any] | None,
    manifest: dict[str, Any],
    metrics: dict[str, Any],
    prompts: Sequence[str],
) -> dict[str, Any]:
    """Where the model comes from, how it and its files were evaluated, and the prompts that it was asked.

    Args:
        lineage: of the adapter.
        prepared: the report on the data; None where there is none.
        manifest: of the GGUF files.
        metrics: as in reports/metrics.json.
        prompts: the evaluation's.
    """
    card: dict[str, Any] = {"base": {"name": lineage["base"]["path"], "revision": lineage["base"]["revision"]}}
    if prepared:
        rows = prepared["splits"]["train"]["rows"]
        card["data"] = {"name": prepared["data"], "revision": prepared["revision"], "rows": rows}
    card["evaluation"] = {
        name: {key: metrics[name][key] for key in FIGURES if key in metrics[name]} for name in ("base", "tuned")
    }
    card["files"] = [{"file": file["file"], **metrics["gguf"][file["type"]]} for file in manifest["files"]]
    card["prompts"] = list(prompts)
    return card
