"""Evaluated runs side by side, and which file of theirs to serve.

    tunesmith compare                                      # the newest run of each fingerprint in MLflow
    tunesmith compare small workspace                      # MLflow runs, DVC experiments, git revisions, here
    tunesmith compare compare.max_answer_seconds=2         # within other budgets than conf/compare has

Writes reports/compare.json, reports/compare.md, reports/compare.html and reports/compare.svg.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace

from rich.console import Console

from common.errors import UserError
from pipeline.comparison import report
from pipeline.comparison.pairs import Judgement
from pipeline.comparison.record import ComparedPair, ComparedPrompt, ComparedRun, Comparison, PairedFigure
from pipeline.comparison.rule import Candidate, chosen_quality, excluded, front, judged, recommend
from pipeline.comparison.runs import EvaluatedRun, find_runs
from pipeline.core.composition import CONF, compose
from pipeline.core.config import CompareSettings, load
from pipeline.core.mappings import flatten
from pipeline.core.paths import REPORTS, ROWS
from pipeline.report.file_table import shown_figures
from pipeline.report.metrics import HEADLINES, of
from pipeline.report.record import Evaluation
from pipeline.report.verdict import summed_up
from pipeline.statistics.paired import Paired

LACKING = {  # what runs are without that cannot be ranked by a quality
    "preference": "pairs of answers that are held out",
    "accuracy": "questions with known answers",
}
TOLD = {"better", "worse"}  # findings that tell two files apart
LEARNT_FROM = ("data", "train")  # the groups of settings by whose differences runs of one model are told apart


def run(arguments: Sequence[str] = ()) -> None:
    """Compare the runs that are named, write the comparison and print it.

    Args:
        arguments: runs, and settings as `key=value`.

    Raises:
        UserError: a setting that conf/ does not know, or nothing to compare.
    """
    overrides = [argument for argument in arguments if "=" in argument]
    config = load(compose(CONF, overrides))
    runs = find_runs(config.tracking, [argument for argument in arguments if argument not in overrides])
    comparison = compared(runs, config.compare)
    report.write(REPORTS, comparison)
    report.show(Console(), comparison)
    print(f"report: {REPORTS / 'compare.html'}")


def compared(runs: list[EvaluatedRun], settings: CompareSettings) -> Comparison:
    """Return the comparison as reports/compare.json has it.

    Raises:
        UserError: no run has a tuned GGUF file.
    """
    files = [file for run in runs for file in run.files]
    if not files:
        raise UserError("none of the runs has a tuned GGUF file that was evaluated; run `dvc repro` first")
    quality, choice = chosen_quality(files, settings), recommend(files, settings)
    best, held = front(files, quality), choice.best
    ranked = replace(settings, quality=quality)

    def alike(file: Candidate, other: Candidate) -> bool:
        return not {judged(*pair, ranked).finding for pair in ((file, other), (other, file))} & TOLD

    return {
        "rule": {
            "quality": quality,
            "max_answer_seconds": settings.max_answer_seconds,
            "max_gguf_mb": settings.max_gguf_mb,
            "max_memory_mb": settings.max_memory_mb,
        },
        "recommended": str(choice.file) if choice.file else None,
        "nearest": str(choice.nearest) if choice.nearest else None,
        "reason": choice.reason,
        "notes": notes(runs, settings, quality, choice.file),
        "runs": [described(run, own) for run, own in zip(runs, differing_settings(runs), strict=True)],
        "files": [
            {
                "run": file.run,
                "type": file.type,
                "figures": shown_figures(file.figures.tree()),
                "front": file in best,
                "excluded": excluded(file, settings),
                "alike": [str(other) for other in best if other is not file and alike(file, other)],
            }
            for file in files
        ],
        "pairs": [paired(file, held, judged(file, held, ranked)) for file in files if file is not held],
        "answers": answers(runs, settings),
    }


def paired(file: Candidate, against: Candidate, judgement: Judgement) -> ComparedPair:
    """Return what is said of a file against another one."""
    return {
        "file": str(file),
        "against": str(against),
        "finding": judgement.finding,
        "figures": [figure(one) for one in judgement.figures],
        "apart": list(judgement.apart),
    }


def figure(found: Paired) -> PairedFigure:
    """Return a finding as JSON has it, with null for what is no finite number."""
    return PairedFigure(
        **{  # type: ignore[typeddict-item]
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(found).items()
        }
    )


def described(run: EvaluatedRun, settings: dict[str, object]) -> ComparedRun:
    """Return what is compared of a run beside its files, and its `settings` that differ from others'."""
    evaluation, training = run.evaluation, run.evaluation.training
    return {
        "name": run.name,
        "reference": run.reference,
        "model": evaluation.model,
        "fingerprint": evaluation.fingerprint,
        "base": evaluation.base.model_dump(),
        "mlflow_run": evaluation.mlflow_run,
        "rows": evaluation.rows,
        "tokens": evaluation.tokens,
        "questions": evaluation.questions,
        "training": {one.name: getattr(training, one.name) for one in of("training")} if training else {},
        "figures": {key: getattr(evaluation.tuned_model, key) for key in HEADLINES},
        "gain": {"loss": evaluation.gain.loss, "low": evaluation.gain.low, "high": evaluation.gain.high},
        "passed": evaluation.verdict.passed,
        "verdict": summed_up(evaluation.verdict),
        "settings": settings,
    }


def differing_settings(runs: list[EvaluatedRun]) -> list[dict[str, object]]:
    """Return of each run those settings of data and training that are not the same in all."""
    flat = [flatten({group: run.evaluation.settings[group] for group in LEARNT_FROM}) for run in runs]
    keys = [key for key in sorted(set().union(*flat)) if len({str(one.get(key)) for one in flat}) > 1]
    return [{key: one.get(key) for key in keys} for one in flat]


def notes(runs: list[EvaluatedRun], settings: CompareSettings, quality: str, chosen: Candidate | None) -> list[str]:
    """Return what a reader must know before trusting the comparison.

    What was not measured alike, a verdict of no pass.
    """
    evaluations = [run.evaluation for run in runs]
    lines = []
    if len({run.test_rows for run in runs}) > 1:
        lines.append("The runs were evaluated on different test rows: their losses and accuracies are not comparable.")
    elif len({evaluation.tokens for evaluation in evaluations}) > 1:
        lines.append("The runs split the same rows into different tokens: losses are per token, and not comparable.")
    if len({str((evaluation.prompts, _answer_limit(evaluation))) for evaluation in evaluations}) > 1:
        lines.append("The runs were asked different prompts, or for longer answers: seconds are not comparable.")
    if lost := [run.name for run in runs if run.rows is None]:
        lines.append(
            f"Of {', '.join(lost)} there is no {ROWS.name}: its files are told from no others. `dvc repro` makes it."
        )
    if quality != settings.quality:
        lines.append(f"Ranked by {quality}: not every run has {LACKING[settings.quality]}.")
    for run in runs:
        verdict = run.evaluation.verdict
        if chosen and run.name == chosen.run and not verdict.passed:
            lines.append(f"The evaluation of {run.name} says {summed_up(verdict)}; `tunesmith promote` refuses it.")
    return lines


def answers(runs: list[EvaluatedRun], settings: CompareSettings) -> list[ComparedPrompt]:
    """Return each prompt that all runs were asked, with the answer of that file of each run which the rule takes."""
    files = [recommend(own, settings) for run in runs if (own := run.files)]
    chosen = {choice.best.run: choice.best for choice in files}
    run_answers = {}
    for run in runs:
        if run.name in chosen:
            kind = chosen[run.name].type
            run_answers[run.name] = dict(zip(run.evaluation.prompts, run.evaluation.answers[kind], strict=True))
    shared = [prompt for prompt in runs[0].evaluation.prompts if all(prompt in own for own in run_answers.values())]
    return [
        {
            "prompt": prompt,
            "answers": [
                {"file": str(chosen[name]), "reply": own[prompt].reply, "seconds": own[prompt].seconds}
                for name, own in run_answers.items()
            ],
        }
        for prompt in shared
    ]


def _answer_limit(evaluation: Evaluation) -> object:
    return evaluation.settings["evaluate"].get("max_new_tokens")
