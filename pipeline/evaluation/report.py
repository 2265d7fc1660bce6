"""The evaluation for people: a page of Markdown and one picture."""

from pathlib import Path
from typing import Any

import matplotlib

from pipeline.files import atomic_path

matplotlib.use("Agg")  # no screen is needed, nor asked for
from matplotlib import pyplot as plt


def markdown(metrics: dict[str, Any], prompts: list[str], answers: dict[str, list], model: str) -> str:
    """Tables of base against tuned and of the GGUF files, then the answers side by side."""
    sections = [f"# Evaluation of {model}\n", _models(metrics), "## GGUF files\n", _ggufs(metrics["gguf"])]
    if "accuracy_by_task" in metrics["tuned"]:
        sections += ["## Accuracy by task\n", _tasks(metrics)]
    sections += ["![base and tuned](evaluation.png)\n", "## Answers\n", _answers(prompts, answers)]
    return "\n".join(sections)


def draw(path: Path, metrics: dict[str, Any]) -> None:
    """Accuracy by task where there are questions, else perplexity: base beside tuned."""
    figures = metrics["base"].get("accuracy_by_task")
    names = list(figures) if figures else ["perplexity"]
    values = {name: metrics[name].get("accuracy_by_task") or metrics[name] for name in ("base", "tuned")}
    height = 1.5 + 0.25 * len(names)
    figure, axis = plt.subplots(figsize=(8, height), layout="constrained")
    for offset, (name, colour) in enumerate((("base", "#b0b7c3"), ("tuned", "#d9622b"))):
        places = [index + 0.4 * offset for index in range(len(names))]
        axis.barh(places, [values[name][key] for key in names], height=0.4, label=name, color=colour)
    axis.set_yticks([index + 0.2 for index in range(len(names))], names, fontsize=8)
    axis.set_xlabel("accuracy" if figures else "perplexity")
    axis.invert_yaxis()
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, 1.0 + 0.6 / height), ncols=2, frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)


def _models(metrics: dict[str, Any]) -> str:
    rows = [["metric", "base", "tuned"]]
    for key in ("loss", "perplexity", "samples_per_second"):
        rows.append([key.replace("_", " "), *(f"{metrics[name][key]:.4f}" for name in ("base", "tuned"))])
    for group in metrics["tuned"].get("accuracy_by_group", {}):
        shares = (metrics[name]["accuracy_by_group"][group] for name in ("base", "tuned"))
        rows.append([f"accuracy, {group.replace('_', ' ')}", *(f"{share:.1%}" for share in shares)])
    return _table(rows)


def _ggufs(ggufs: dict[str, Any]) -> str:
    rows = [["type", "MB", "loss", "perplexity", "tokens/s"]]
    for kind, figures in ggufs.items():
        size = f"{figures['bytes'] / 1e6:,.1f}"
        speed = f"{figures['tokens_per_second']:,.1f}"
        rows.append([kind, size, f"{figures['loss']:.4f}", f"{figures['perplexity']:.4f}", speed])
    return _table(rows)


def _tasks(metrics: dict[str, Any]) -> str:
    rows = [["task", "base", "tuned"]]
    for task in metrics["tuned"]["accuracy_by_task"]:
        rows.append([task, *(f"{metrics[name]['accuracy_by_task'][task]:.1%}" for name in ("base", "tuned"))])
    return _table(rows)


def _answers(prompts: list[str], answers: dict[str, list]) -> str:
    rows = [["prompt", "base", "seconds", "tokens/s", "tuned", "seconds", "tokens/s"]]
    for prompt, base, tuned in zip(prompts, answers["base"], answers["tuned"], strict=True):
        cells = [[one["reply"], f"{one['seconds']:.2f}", f"{one['tokens_per_second']:.0f}"] for one in (base, tuned)]
        rows.append([prompt, *cells[0], *cells[1]])
    return _table(rows)


def _table(rows: list[list[str]]) -> str:
    """A Markdown table; its first row is the head."""
    lines = ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]]) + "\n"


def _cell(text: str) -> str:
    for character, safe in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;")):
        text = text.replace(character, safe)
    return "<br>".join(text.splitlines())
