"""From what was measured to the figures of the reports, each rounded here and nowhere else."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from pipeline.core.records import ManifestFile
from pipeline.data.grading import Question, accuracies, headline_group, is_right
from pipeline.evaluation.answers import Reply
from pipeline.evaluation.general import general_tokens
from pipeline.evaluation.inputs import Extent, Material
from pipeline.evaluation.loss import Row
from pipeline.evaluation.measure import AskedTasks, Measured
from pipeline.evaluation.preferences import pair_digests
from pipeline.evaluation.text_statistics import text_figures
from pipeline.report.record import SPEED_TOKENS, FileFigures, Gain, GeneralFigures, ModelFigures, ShownAnswer
from pipeline.report.rows import SCHEMA, ModelRows, RowResults, are_right_or_wrong, digests
from pipeline.statistics.intervals import Interval, bootstrap, share

LOSS, PERPLEXITY, SHARE, SECONDS, SPEED = 5, 4, 4, 4, 2  # digits


def row_results(measured: dict[str, Measured], material: Material) -> RowResults:
    """Return what was found of each row and question, as reports/rows.json has it."""
    conversations, questions = material.conversations, material.questions
    return RowResults(
        schema_version=SCHEMA,
        rows=tuple(conversation.digest for conversation in conversations),
        tokens=tuple(material.scored),
        numbers=tuple(conversation.number for conversation in conversations),
        questions=digests(questions),
        groups=tuple(question["group"] for question in questions),
        tasks=tuple(question["task"] for question in questions),
        general={name: tuple(tokens) for name, tokens in general_tokens(material).items()},
        pairs=pair_digests(material),
        models={name: _model_rows(found, questions) for name, found in measured.items()},
    )


def on_the_same(measured: dict[str, Measured], material: Material) -> tuple[dict[str, Measured], Material]:
    """Return of each model what was found on the rows and questions that all were measured on, and these."""
    extent = Extent(*(min(len(found[kind]) for found in measured.values()) for kind in ("nats", "replies")))
    cut: dict[str, Measured] = {
        name: {**found, "nats": found["nats"][: extent.rows], "replies": found["replies"][: extent.questions]}
        for name, found in measured.items()
    }
    return cut, material.first(extent)


def model_figures(measured: Measured, material: Material, base: Measured | None = None) -> ModelFigures:
    """Return loss, accuracy and what the replies are like, of one model; beside the base, what it has forgotten."""
    return ModelFigures(**_figures(measured, material, base))


def _figures(
    measured: Measured, material: Material, base: Measured | None, whole: Measured | None = None
) -> dict[str, Any]:
    loss = bootstrap(_numbers(measured["nats"]), material.scored)
    figures: dict[str, Any] = {**_named("loss", loss, LOSS), **_named("perplexity", _perplexity(loss), PERPLEXITY)}
    if "samples_per_second" in measured:
        figures["samples_per_second"] = _rounded(measured["samples_per_second"], SPEED)
    if material.questions:
        figures |= _accuracy(measured["replies"], material.questions)
    if material.questions and whole:
        figures |= flips(*(_right(found["replies"], material.questions) for found in (measured, whole)))
    if "preferred" in measured:
        figures |= preference_figures(measured["preferred"], base["preferred"] if base else None)
    texts = text_figures([*measured["replies"], *measured["answers"]], material.asked)
    figures["texts"] = {name: _rounded(value, SHARE) for name, value in texts.items()}
    if "general" in measured:
        before = base["general"] if base else None
        figures["general"] = general_figures(measured["general"], general_tokens(material), before)
    if "tasks" in measured:
        figures["tasks"] = {task: _rounded(score, SHARE) for task, score in measured["tasks"]["scores"].items()}
    if whole and "tasks" in measured and "tasks" in whole:
        figures["task_flips"] = _task_flips(measured["tasks"], whole["tasks"])
    return figures


def file_figures(
    file: ManifestFile,
    measured: Measured,
    material: Material,
    base: Measured | None = None,
    whole: Measured | None = None,
) -> FileFigures:
    """Return the same of a GGUF beside the base, with what the manifest says of it and what serving it takes.

    Beside the unquantized model that it was made of, it has what it answers otherwise.
    """
    answers = measured["answers"]
    tokens = sum(max(answer["tokens"] - 1, 0) for answer in answers)
    first = [answer["first_token_seconds"] for answer in answers]
    seconds = sum(answer["seconds"] for answer in answers) - sum(first)
    return FileFigures(
        **_figures(measured, material, base, whole),
        **file.model_dump(include={"of", "bytes", "kl", "top_1"}),
        memory_bytes=measured["memory"],
        tokens_per_second=_speed(tokens, seconds),  # over all answers together
        prompt_tokens_per_second=_speed(sum(answer["read"] for answer in answers), sum(first)),
        first_token_seconds=_mean(first),
        answer_seconds=_mean([answer["seconds"] for answer in answers]),
    )


def preference_figures(
    preferred: Sequence[bool | None], before: Sequence[bool | None] | None
) -> dict[str, float | None]:
    """Return of how many pairs the chosen answer is likelier, and which are won and lost against the base `before`."""
    known = [one is True for one in preferred]
    figures = _named("preference_accuracy", share(known), SHARE) | {"pairs": len(known)}
    if before:
        differ = flips(known, [one is True for one in before])
        figures |= {"pairs_won": differ["flips_won"], "pairs_lost": differ["flips_lost"]}
    return figures


def flips(after: Sequence[float], before: Sequence[float]) -> dict[str, float]:
    """Return the share of questions that one alone of two has right, by whether a file and the unquantized one have."""
    pairs = list(zip(after, before, strict=True))
    won, lost = sum(one > other for one, other in pairs), sum(one < other for one, other in pairs)
    return {"flips": round((won + lost) / len(pairs), SHARE), "flips_lost": lost, "flips_won": won}


def _task_flips(after: AskedTasks, before: AskedTasks) -> dict[str, float]:
    """Return the same share of each task of which all questions are right or wrong."""
    pairs = {task: (scores, before["items"][task]) for task, scores in after["items"].items()}
    return {task: flips(*pair)["flips"] for task, pair in pairs.items() if are_right_or_wrong(*pair)}


def general_figures(
    nats: Mapping[str, list[float | None]],
    tokens: Mapping[str, list[int]],
    before: Mapping[str, list[float | None]] | None,
) -> dict[str, GeneralFigures]:
    """Return a model's loss on each set that has texts, and by how much it is above that of the base `before`."""
    found = {}
    for name in (name for name in nats if tokens[name]):
        own = _numbers(nats[name])
        figures: dict[str, float | None] = _named("loss", bootstrap(own, tokens[name]), LOSS)
        if before:
            figures |= _named("forgetting", bootstrap(own - _numbers(before[name]), tokens[name]), LOSS)
        found[name] = GeneralFigures(texts=len(own), **figures)
    return found


def gain(base: Measured, tuned: Measured, material: Material) -> Gain:
    """Return by how many nats a token tuned is below base, on the same conversations."""
    fall = bootstrap(_numbers(base["nats"]) - _numbers(tuned["nats"]), material.scored)
    return Gain(loss=_rounded(fall.value, LOSS), low=_rounded(fall.low, LOSS), high=_rounded(fall.high, LOSS))


def shown_answers(measured: Measured) -> tuple[ShownAnswer, ...]:
    """Return the answers to the prompts, their seconds rounded; without a speed where they are short."""
    return tuple(
        ShownAnswer(
            reply=answer["reply"],
            tokens=answer["tokens"],
            first_token_seconds=_rounded(answer["first_token_seconds"], SECONDS),
            seconds=_rounded(answer["seconds"], SECONDS),
            tokens_per_second=_speed(answer["tokens"] - 1, answer["seconds"] - answer["first_token_seconds"]),
        )
        for answer in measured["answers"]
    )


def lengths(measured: dict[str, Measured], rows: Sequence[Row]) -> dict[str, tuple[int, ...]]:
    """Return tokens of what the assistant says in the test split, and of what each model replies."""
    turns = [list(turn) for _, mask in rows for marked, turn in groupby(mask) if marked]
    replies = {name: [*one["replies"], *one["answers"]] for name, one in measured.items()}
    return {"reference": tuple(len(turn) for turn in turns)} | {
        name: tuple(reply["tokens"] for reply in own) for name, own in replies.items()
    }


def _model_rows(measured: Measured, questions: Sequence[Question]) -> ModelRows:
    right = tuple(_right(measured["replies"], questions[: len(measured["replies"])]))
    general = {name: tuple(nats) for name, nats in measured.get("general", {}).items()}
    asked = measured["tasks"]["items"] if "tasks" in measured else {}
    items = {task: tuple(scores) for task, scores in asked.items()}
    preferred = tuple(measured.get("preferred", ()))
    return ModelRows(nats=tuple(measured["nats"]), right=right, items=items, general=general, preferred=preferred)


def _right(replies: Sequence[Reply], questions: Sequence[Question]) -> list[bool]:
    return [is_right(question, reply["reply"]) for question, reply in zip(questions, replies, strict=True)]


def _accuracy(replies: Sequence[Reply], questions: Sequence[Question]) -> dict[str, Any]:
    right = _right(replies, questions)
    shares = accuracies(questions, right)
    headline = headline_group(shares["groups"])
    counted = [r for question, r in zip(questions, right, strict=True) if question["group"] == headline]
    by_name = {f"accuracy_by_{kind[:-1]}": dict(sorted(each.items())) for kind, each in shares.items()}
    return {**_named("accuracy", share(counted), SHARE), **by_name}


def _numbers(values: list[float | None]) -> np.ndarray:
    return np.array(values, dtype=np.float64)  # which makes None nan


def _perplexity(loss: Interval) -> Interval:
    with np.errstate(over="ignore"):  # then it is infinite
        return Interval(*np.exp(loss).tolist())


def _named(name: str, interval: Interval, digits: int) -> dict[str, float | None]:
    low, high = _rounded(interval.low, digits), _rounded(interval.high, digits)
    return {name: _rounded(interval.value, digits), f"{name}_low": low, f"{name}_high": high}


def _speed(tokens: int, seconds: float) -> float | None:
    """Return tokens a second; None where there are too few of them to tell."""
    return _rounded(tokens / seconds, SPEED) if tokens >= SPEED_TOKENS else None


def _rounded(value: float | None, digits: int) -> float | None:
    """Return None for what JSON has no number for."""
    return None if value is None or not np.isfinite(value) else round(value, digits)


def _mean(values: list[float]) -> float | None:
    return _rounded(sum(values) / len(values), SECONDS) if values else None
