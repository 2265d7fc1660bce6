"""The report as one self-contained page: no script, nothing fetched, every text escaped."""

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from common.harmless import harmless
from common.words import counted
from pipeline.report.charts import Course, course, curves, histograms
from pipeline.report.differences import differences
from pipeline.report.formats import Figure, Figures
from pipeline.report.metrics import HEADLINES, of
from pipeline.report.record import Check, Evaluation
from pipeline.report.tables import tables
from pipeline.report.verdict import outcome, shortage

# What a judge found of two answers.
JUDGED = {
    "tuned": "The judge finds tuned better.",
    "base": "The judge finds base better.",
    "tie": "The judge finds neither better.",
    "unclear": "What the judge said of base and tuned is no verdict.",
}
LOOK = Path(__file__).parent  # page.css and parts.html.jinja, which other pages share


@cache
def templates(*folders: Path) -> jinja2.Environment:
    """Return the templates of these folders and those of LOOK, for pages that show anybody's words."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, LOOK]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["counted"] = counted
    environment.globals["harmless"] = harmless
    return environment


def page(evaluation: Evaluation) -> str:
    """Return the page; page.html.jinja arranges it, page.css gives it its look."""
    figures = Figures(evaluation)
    template = templates().get_template("page.html.jinja")
    return template.render(
        evaluation=evaluation,
        tables=tables(evaluation),
        figures=figures,
        checks=_checks(evaluation, figures),
        outcome=outcome(evaluation.verdict),
        shortage=shortage(evaluation.verdict),
        highlights=_highlights(evaluation, figures),
        courses=_courses(evaluation),
        curves=curves(evaluation.curve),
        histograms=histograms(evaluation.lengths),
        chats=[_chat(evaluation, figures, index) for index in range(len(evaluation.prompts))],
        ggufs=list(evaluation.gguf),
        smallest=_smallest(evaluation),
    )


class ShownCheck(NamedTuple):
    """A check with its figures as they are shown."""

    check: Check
    figure: Figure
    limit: Figure


def _checks(evaluation: Evaluation, figures: Figures) -> dict[str, list[ShownCheck]]:
    """Return failed ones first, then those that cannot be told; and those of tasks that passed apart: they are many."""
    shown = [
        ShownCheck(check, *(figures("verdict", "checks", index, key) for key in ("figure", "limit")))
        for index, check in enumerate(evaluation.verdict.checks)
    ]
    passed = [one for one in shown if one.check.passed]
    of_tasks = [one for one in passed if one.check.name.startswith("task ")]
    return {
        "failed": [one for one in shown if one.check.passed is False],
        "untold": [one for one in shown if one.check.passed is None],
        "passed": [one for one in passed if one not in of_tasks],
        "of_tasks": of_tasks,
    }


def _courses(evaluation: Evaluation) -> list[Course]:
    """Return how the checks were decided, those that were not first."""
    checks = sorted(evaluation.verdict.checks, key=lambda check: check.passed is True)
    return [shown for shown in map(course, checks) if shown]


def _highlights(evaluation: Evaluation, figures: Figures) -> list[tuple[str, Figure, Figure]]:
    """Return what is looked at first, tuned and base."""
    keys = [key for key in HEADLINES if key in evaluation.tuned_model.model_fields_set]
    return [(key, figures("tuned", key), figures("base", key)) for key in keys]


def _smallest(evaluation: Evaluation) -> str | None:
    """Return the smallest tuned file: the one that has most to show."""
    tuned = evaluation.tuned_files
    return min(tuned, key=lambda kind: tuned[kind].bytes, default=None)


def _chat(evaluation: Evaluation, figures: Figures, index: int) -> dict[str, Any]:
    """Return the answers to one prompt: base against tuned, each GGUF against the model that it was made of."""
    replies = {name: answers[index].reply for name, answers in evaluation.answers.items()}
    others = {"base": "tuned", "tuned": "base"}
    others |= {name: evaluation.gguf[name].of for name in replies if name not in others}
    entries = {
        name: {
            "pieces": differences(reply, replies[others[name]]),
            **{metric.name: figures("answers", name, index, metric.name) for metric in of("answer")},
        }
        for name, reply in replies.items()
    }
    outcomes = evaluation.judgement.outcomes if evaluation.judgement else ()
    judged = JUDGED[outcomes[index]] if index < len(outcomes) else ""
    return {"prompt": evaluation.prompts[index], "answers": entries, "judged": judged}
