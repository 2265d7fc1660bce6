"""What `make repro` closes with: the verdict, the figures that matter, and where the rest stands.

python -m pipeline.summary
"""

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.evaluation.gate import verdict_lines

EVALUATION = Path("reports/evaluation.json")


def main() -> None:
    """Prints reports/evaluation.json as two tables and its verdict."""
    if not EVALUATION.is_file():
        sys.exit(f"summary: {EVALUATION} is missing; run `make repro` first")
    evaluation = json.loads(EVALUATION.read_text(encoding="utf-8"))
    sides = (evaluation["base_model"], evaluation["tuned_model"])
    models = Table("", "base", "tuned", title="on the test split")
    for key in ("loss", "perplexity"):
        models.add_row(key, *(_shown(side[key], ".4f") for side in sides))
    for group in sides[1].get("accuracy_by_group", {}):
        shares = (_shown(side["accuracy_by_group"][group], ".1%") for side in sides)
        models.add_row(f"accuracy, {group.replace('_', ' ')}", *shares)
    files = Table("GGUF", "MB", "perplexity", "seconds an answer", "tokens/s", title="models/gguf")
    for kind, figures in evaluation["gguf"].items():
        speeds = _shown(figures["answer_seconds"], ".2f"), _shown(figures["tokens_per_second"], ",.0f")
        files.add_row(kind, f"{figures['bytes'] / 1e6:,.1f}", _shown(figures["perplexity"], ".4f"), *speeds)
    console = Console()
    console.print(models, files)
    console.print("\n".join(verdict_lines(evaluation["verdict"])), markup=False, highlight=False)
    console.print("report: reports/evaluation.html    runs: `make mlflow`    chat: `make serve`", highlight=False)


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


if __name__ == "__main__":
    main()
