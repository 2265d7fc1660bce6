"""Evaluated runs side by side, and which file of theirs to serve.

    python -m pipeline.compare                                      # the newest run of each fingerprint in MLflow
    python -m pipeline.compare small workspace                      # MLflow runs, DVC experiments, git revisions, here
    python -m pipeline.compare compare.max_answer_seconds=2         # within other budgets than conf/compare has

Writes reports/compare.json, reports/compare.md, reports/compare.html and reports/compare.svg.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline.comparison import report
from pipeline.comparison.rule import File, chosen_quality, excluded, front, recommend
from pipeline.comparison.runs import EvaluatedRun, find_runs
from pipeline.compose import CONF, compose, flatten
from pipeline.config import CompareSettings, load
from pipeline.errors import UserError
from pipeline.evaluation.gate import summed_up

REPORTS = Path("reports")
DESCRIBED = ("model", "fingerprint", "base", "mlflow_run", "rows", "tokens", "questions")
LEARNT_FROM = ("data", "train")  # the groups of settings by whose differences runs of one model are told apart


def main() -> None:
    """Compares the runs that are named, writes the comparison and prints it."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.compare", description="Compares evaluated runs.")
    parser.add_argument("arguments", nargs="*", metavar="RUN|key=value", help="a run; or a setting, as in conf/compare")
    arguments = parser.parse_args().arguments
    overrides = [argument for argument in arguments if "=" in argument]
    try:
        config = load(compose(CONF, overrides))
        runs = find_runs(config.tracking, [argument for argument in arguments if argument not in overrides])
        comparison = compared(runs, config.compare)
        report.write(REPORTS, comparison)
    except UserError as error:
        sys.exit(f"compare: {error}")
    report.show(Console(), comparison)
    print(f"report: {REPORTS / 'compare.html'}")


def compared(runs: list[EvaluatedRun], settings: CompareSettings) -> dict[str, Any]:
    """The comparison as reports/compare.json has it.

    Raises:
        UserError: no run has a tuned GGUF file.
    """
    files = [file for run in runs for file in run.files]
    if not files:
        raise UserError("none of the runs has a tuned GGUF file that was evaluated; run `dvc repro` first")
    quality, choice = chosen_quality(files, settings), recommend(files, settings)
    best = front(files, quality)
    return {
        "rule": {**asdict(settings), "quality": quality},
        "recommended": str(choice.file) if choice.file else None,
        "nearest": str(choice.nearest) if choice.nearest else None,
        "reason": choice.reason,
        "notes": notes(runs, settings, quality, choice.file),
        "runs": [{**figures_of(run), "settings": own} for run, own in zip(runs, differing_settings(runs), strict=True)],
        "files": [{**asdict(file), "front": file in best, "excluded": excluded(file, settings)} for file in files],
        "answers": answers(runs, settings),
    }


def figures_of(run: EvaluatedRun) -> dict[str, Any]:
    """What is compared of a run beside its files; `loss`, `perplexity` and `accuracy` are the tuned model's."""
    evaluation, tuned = run.evaluation, run.evaluation["tuned_model"]
    return {
        "name": run.name,
        "reference": run.reference,
        **{key: evaluation[key] for key in DESCRIBED},
        "training": evaluation["training"],
        **{key: tuned.get(key) for key in ("loss", "perplexity", "accuracy")},
        "gain": evaluation["gain"],
        "passed": evaluation["verdict"]["passed"],
        "verdict": summed_up(evaluation["verdict"]),
    }


def differing_settings(runs: list[EvaluatedRun]) -> list[dict[str, Any]]:
    """Of each run, those settings of data and training that are not the same in all."""
    flat = [flatten({group: run.evaluation["settings"].get(group) for group in LEARNT_FROM}) for run in runs]
    keys = [key for key in sorted(set().union(*flat)) if len({str(one.get(key)) for one in flat}) > 1]
    return [{key: one.get(key) for key in keys} for one in flat]


def notes(runs: list[EvaluatedRun], settings: CompareSettings, quality: str, chosen: File | None) -> list[str]:
    """What a reader must know before trusting the comparison: what was not measured alike, a verdict of no pass."""
    evaluations = [run.evaluation for run in runs]
    said = []
    if len({run.test_rows for run in runs}) > 1:
        said.append("The runs were evaluated on different test rows: their losses and accuracies are not comparable.")
    elif len({evaluation["tokens"] for evaluation in evaluations}) > 1:
        said.append("The runs split the same rows into different tokens: losses are per token, and not comparable.")
    if len({str((evaluation["prompts"], _answer_limit(evaluation))) for evaluation in evaluations}) > 1:
        said.append("The runs were asked different prompts, or for longer answers: seconds are not comparable.")
    if quality != settings.quality:
        said.append("Ranked by loss: not every run has questions with known answers.")
    for run in runs:
        verdict = run.evaluation["verdict"]
        if chosen and run.name == chosen.run and not verdict["passed"]:
            said.append(f"The evaluation of {run.name} says {summed_up(verdict)}; `make promote` refuses it.")
    return said


def answers(runs: list[EvaluatedRun], settings: CompareSettings) -> list[dict[str, Any]]:
    """Each prompt that all runs were asked, with the answer of that file of each run which the rule takes."""
    files = [recommend(own, settings) for run in runs if (own := run.files)]
    chosen = {file.run: file for choice in files if (file := choice.file or choice.nearest)}
    said = {}
    for run in runs:
        if run.name in chosen:
            kind = chosen[run.name].type
            said[run.name] = dict(zip(run.evaluation["prompts"], run.evaluation["answers"][kind], strict=True))
    shared = [prompt for prompt in runs[0].evaluation["prompts"] if all(prompt in own for own in said.values())]
    return [
        {
            "prompt": prompt,
            "answers": [
                {"file": str(chosen[name]), "reply": own[prompt]["reply"], "seconds": own[prompt]["seconds"]}
                for name, own in said.items()
            ],
        }
        for prompt in shared
    ]


def _answer_limit(evaluation: dict[str, Any]) -> Any:
    return evaluation["settings"].get("evaluate", {}).get("max_new_tokens")


if __name__ == "__main__":
    main()
