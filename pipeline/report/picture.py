"""Base beside tuned as a PNG, for `dvc plots`, MLflow and the Markdown."""

from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure  # not pyplot, which looks for a screen

from common.files import atomic_path
from pipeline.report.record import Evaluation

NO_FORMULAS = {"text.parse_math": False}  # a name with dollars is none


@rc_context(NO_FORMULAS)  # type: ignore[arg-type]  # which lists every name that there is
def draw(path: Path, evaluation: Evaluation) -> None:
    """Draw accuracy by task where there are questions, else perplexity."""
    models = {"base": evaluation.base_model, "tuned": evaluation.tuned_model}
    tasks = list(evaluation.tuned_model.accuracy_by_task)
    values = {
        name: dict(model.accuracy_by_task) if tasks else {"perplexity": model.perplexity}
        for name, model in models.items()
    }
    names = tasks or ["perplexity"]
    height = 1.5 + 0.25 * len(names)
    figure = Figure(figsize=(8, height), layout="constrained")
    axis = figure.subplots()
    for offset, (name, colour) in enumerate((("base", "#94a3b8"), ("tuned", "#0f766e"))):
        bars = ((index + 0.4 * offset, values[name][key]) for index, key in enumerate(names))
        pairs = [(place, value) for place, value in bars if value is not None]
        axis.barh([place for place, _ in pairs], [value for _, value in pairs], height=0.4, label=name, color=colour)
    axis.set_yticks([index + 0.2 for index in range(len(names))], names, fontsize=8)
    axis.set_xlabel("accuracy" if tasks else "perplexity")
    axis.invert_yaxis()
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, 1.0 + 0.6 / height), ncols=2, frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
