"""What `make repro` closes with: the figures that matter, and where the rest stands.

python -m pipeline.summary
"""

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

METRICS = Path("reports/metrics.json")


def main() -> None:
    """Prints reports/metrics.json as two tables."""
    if not METRICS.is_file():
        sys.exit(f"summary: {METRICS} is missing; run `make repro` first")
    metrics = json.loads(METRICS.read_text(encoding="utf-8"))
    console = Console()
    models = Table("", "base", "tuned", title="on the test split")
    for key in ("loss", "perplexity"):
        models.add_row(key, *(f"{metrics[name][key]:.4f}" for name in ("base", "tuned")))
    for group in metrics["tuned"].get("accuracy_by_group", {}):
        shares = (metrics[name]["accuracy_by_group"][group] for name in ("base", "tuned"))
        models.add_row(f"accuracy, {group.replace('_', ' ')}", *(f"{share:.1%}" for share in shares))
    files = Table("GGUF", "MB", "perplexity", "tokens/s", title="models/gguf")
    for kind, figures in metrics["gguf"].items():
        speed = f"{figures['tokens_per_second']:,.0f}"
        files.add_row(kind, f"{figures['bytes'] / 1e6:,.1f}", f"{figures['perplexity']:.4f}", speed)
    console.print(models, files)
    console.print("report: reports/evaluation.md    runs: `make mlflow`    chat: `make serve`", highlight=False)


if __name__ == "__main__":
    main()
