"""Base beside tuned as a PNG, for `dvc plots`, MLflow and the Markdown."""

from pathlib import Path
from typing import Any

import matplotlib

from pipeline.files import atomic_path

matplotlib.use("Agg")  # no screen is needed, nor asked for
from matplotlib import pyplot as plt


def draw(path: Path, evaluation: dict[str, Any]) -> None:
    """Accuracy by task where there are questions, else perplexity."""
    models = {"base": evaluation["base_model"], "tuned": evaluation["tuned_model"]}
    tasks = models["tuned"].get("accuracy_by_task")
    values = {name: model["accuracy_by_task"] if tasks else model for name, model in models.items()}
    names = list(tasks or ["perplexity"])
    height = 1.5 + 0.25 * len(names)
    figure, axis = plt.subplots(figsize=(8, height), layout="constrained")
    for offset, (name, colour) in enumerate((("base", "#94a3b8"), ("tuned", "#0f766e"))):
        bars = [(index + 0.4 * offset, values[name][key]) for index, key in enumerate(names)]
        known = [bar for bar in bars if bar[1] is not None]
        axis.barh([place for place, _ in known], [value for _, value in known], height=0.4, label=name, color=colour)
    axis.set_yticks([index + 0.2 for index in range(len(names))], names, fontsize=8)
    axis.set_xlabel("accuracy" if tasks else "perplexity")
    axis.invert_yaxis()
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, 1.0 + 0.6 / height), ncols=2, frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)
