"""From what was measured to the figures of the reports, each rounded here and nowhere else."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from pipeline.evaluation.inputs import Material
from pipeline.evaluation.intervals import Interval, bootstrap, share
from pipeline.evaluation.loss import Row
from pipeline.evaluation.measure import Measured
from pipeline.evaluation.questions import Question, accuracies, is_right
from pipeline.evaluation.texts import text_figures

HEADLINE_GROUP = "held_out"  # of the questions, where they have groups
# Tokens after the first below which no speed is told. On two busy cores, 90% of a 135M model's runs of so many tokens
# were within 10% of its speed over all and the worst 19% off; of runs of 8 tokens, 19% and 58%.
SPEED_TOKENS = 64
LOSS, PERPLEXITY, SHARE, SECONDS, SPEED = 5, 4, 4, 4, 2  # digits

Figures = dict[str, Any]


def model_figures(measured: Measured, given: Material) -> Figures:
    """Loss, accuracy and what the replies are like, of one model."""
    loss = bootstrap(_numbers(measured["nats"]), given.scored)
    figures: Figures = {**_named("loss", loss, LOSS), **_named("perplexity", _perplexity(loss), PERPLEXITY)}
    if "samples_per_second" in measured:
        figures["samples_per_second"] = _rounded(measured["samples_per_second"], SPEED)
    if given.questions:
        figures |= _accuracy(measured["replies"], given.questions)
    texts = text_figures([*measured["replies"], *measured["answers"]])
    figures["texts"] = {name: _rounded(value, SHARE) for name, value in texts.items()}
    if "tasks" in measured:
        figures["tasks"] = {task: _rounded(score, SHARE) for task, score in measured["tasks"].items()}
    return figures


def file_figures(file: dict[str, Any], measured: Measured, given: Material) -> Figures:
    """The same of a GGUF, with what the manifest says of it and how fast it answers."""
    answers = measured["answers"]
    said = sum(max(answer["tokens"] - 1, 0) for answer in answers)
    saying = sum(answer["seconds"] - answer["first_token_seconds"] for answer in answers)
    return {
        **model_figures(measured, given),
        **{key: file[key] for key in ("of", "bytes", "kl", "top_1")},
        "tokens_per_second": _speed(said, saying),  # over all answers together
        "first_token_seconds": _mean([answer["first_token_seconds"] for answer in answers]),
        "answer_seconds": _mean([answer["seconds"] for answer in answers]),
    }


def gain(base: Measured, tuned: Measured, given: Material) -> Figures:
    """By how many nats a token tuned is below base, on the same conversations."""
    fall = bootstrap(_numbers(base["nats"]) - _numbers(tuned["nats"]), given.scored)
    return {name: _rounded(v, LOSS) for name, v in (("loss", fall.value), ("low", fall.low), ("high", fall.high))}


def shown_answers(measured: Measured) -> list[dict[str, Any]]:
    """The answers to the prompts, their seconds rounded; without a speed where they are short."""
    return [
        {
            **answer,
            **{key: _rounded(answer[key], SECONDS) for key in ("first_token_seconds", "seconds")},
            "tokens_per_second": _speed(answer["tokens"] - 1, answer["seconds"] - answer["first_token_seconds"]),
        }
        for answer in measured["answers"]
    ]


def lengths(measured: dict[str, Measured], rows: Sequence[Row]) -> dict[str, list[int]]:
    """Tokens of what the assistant says in the test split, and of what each model replies."""
    turns = [list(turn) for _, mask in rows for marked, turn in groupby(mask) if marked]
    replies = {name: [*one["replies"], *one["answers"]] for name, one in measured.items()}
    return {"reference": [len(turn) for turn in turns]} | {
        name: [reply["tokens"] for reply in said] for name, said in replies.items()
    }


def metrics(evaluation: dict[str, Any]) -> dict[str, Any]:
    """The numbers of an evaluation, for DVC and MLflow; what is not finite is left out."""
    files = {key: {name: v for name, v in file.items() if name != "of"} for key, file in evaluation["gguf"].items()}
    numbers = {
        "base": evaluation["base_model"],
        "tuned": evaluation["tuned_model"],
        "gain": evaluation["gain"],
        "gguf": files,
        "passed": int(evaluation["verdict"]["passed"]),
    }
    known: dict[str, Any] = _known(numbers)
    return known


def _accuracy(replies: list[dict[str, Any]], questions: Sequence[Question]) -> Figures:
    right = [is_right(question, reply["reply"]) for question, reply in zip(questions, replies, strict=True)]
    shares = accuracies(questions, right)
    headline = HEADLINE_GROUP if HEADLINE_GROUP in shares["groups"] else next(iter(shares["groups"]))
    counted = [r for question, r in zip(questions, right, strict=True) if question["group"] == headline]
    by_name = {"accuracy_by_group": shares["groups"], "accuracy_by_task": shares["tasks"]}
    return {**_named("accuracy", share(counted), SHARE), **by_name}


def _numbers(values: list[float | None]) -> np.ndarray:
    return np.array(values, dtype=np.float64)  # which makes None nan


def _perplexity(loss: Interval) -> Interval:
    with np.errstate(over="ignore"):  # then it is infinite
        return Interval(*np.exp(loss).tolist())


def _named(name: str, interval: Interval, digits: int) -> Figures:
    low, high = _rounded(interval.low, digits), _rounded(interval.high, digits)
    return {name: _rounded(interval.value, digits), f"{name}_low": low, f"{name}_high": high}


def _speed(tokens: int, seconds: float) -> float | None:
    """Tokens a second; None where there are too few of them to tell."""
    return _rounded(tokens / seconds, SPEED) if tokens >= SPEED_TOKENS else None


def _rounded(value: float | None, digits: int) -> float | None:
    """None for what JSON has no number for."""
    return None if value is None or not np.isfinite(value) else round(value, digits)


def _mean(values: list[float]) -> float | None:
    return _rounded(sum(values) / len(values), SECONDS) if values else None


def _known(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _known(entry) for key, entry in value.items() if entry is not None}
