"""The report as one self-contained page: no script, nothing fetched, every text escaped."""

from pathlib import Path
from typing import Any

import jinja2

from pipeline.evaluation.gate import failed, outcome, shortage, untold
from pipeline.evaluation.report.charts import curves, histograms
from pipeline.evaluation.report.differences import differences
from pipeline.evaluation.report.figures import Figure, Figures
from pipeline.evaluation.report.tables import ANSWERS, tables
from serve.words import counted

LOOK = Path(__file__).parent  # page.css and parts.html.jinja, which other pages share


def templates(*folders: Path) -> jinja2.Environment:
    """The templates of these folders and those of LOOK, for pages that show anybody's words."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, LOOK]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["counted"] = counted
    return environment


def page(evaluation: dict[str, Any]) -> str:
    """The page; page.html.jinja arranges it, page.css gives it its look."""
    figures = Figures(evaluation)
    template = templates().get_template("page.html.jinja")
    return template.render(
        evaluation=evaluation,
        tables=tables(evaluation),
        figures=figures,
        checks=_checks(evaluation, figures),
        outcome=outcome(evaluation["verdict"]),
        shortage=shortage(evaluation["verdict"]),
        highlights=_highlights(evaluation, figures),
        curves=curves(evaluation["curve"]),
        histograms=histograms(evaluation["lengths"]),
        chats=[_chat(evaluation, figures, index) for index in range(len(evaluation["prompts"]))],
        ggufs=list(evaluation["gguf"]),
        smallest=_smallest(evaluation),
    )


def _checks(evaluation: dict[str, Any], figures: Figures) -> dict[str, list[dict[str, Any]]]:
    """Failed ones first, then those that cannot be told; and those of tasks that passed apart: they are many."""
    checks = [
        check | {key: figures("verdict", "checks", index, key) for key in ("figure", "limit")}
        for index, check in enumerate(evaluation["verdict"]["checks"])
    ]
    verdict = {"checks": checks}
    passed = [check for check in checks if check["passed"]]
    of_tasks = [check for check in passed if check["name"].startswith("task ")]
    return {
        "failed": failed(verdict),
        "untold": untold(verdict),
        "passed": [check for check in passed if check not in of_tasks],
        "of_tasks": of_tasks,
    }


def _highlights(evaluation: dict[str, Any], figures: Figures) -> list[tuple[str, Figure, Figure]]:
    """What is looked at first, tuned and base."""
    keys = [key for key in ("loss", "perplexity", "accuracy") if key in evaluation["tuned_model"]]
    return [(key, figures("tuned", key), figures("base", key)) for key in keys]


def _smallest(evaluation: dict[str, Any]) -> str | None:
    """The smallest tuned file: the one that has most to show."""
    tuned = {name: gguf["bytes"] for name, gguf in evaluation["gguf"].items() if gguf["of"] == "tuned"}
    return min(tuned, key=tuned.__getitem__, default=None)


def _chat(evaluation: dict[str, Any], figures: Figures, index: int) -> dict[str, Any]:
    """The answers to one prompt: base against tuned, each GGUF against the model that it was made of."""
    replies = {name: answers[index]["reply"] for name, answers in evaluation["answers"].items()}
    others = {"base": "tuned", "tuned": "base"}
    others |= {name: evaluation["gguf"][name]["of"] for name in replies if name not in others}
    said = {
        name: {
            "pieces": differences(reply, replies[others[name]]),
            **{key: figures("answers", name, index, key) for key in ANSWERS.values()},
        }
        for name, reply in replies.items()
    }
    return {"prompt": evaluation["prompts"][index], "answers": said}
