"""The verdict: whether a model is good enough to be promoted, threshold by threshold, or too little tells.

A check has passed (true), has failed (false), or cannot be told (null), since it rests on too few conversations or
questions. One that failed fails the whole; else one that cannot be told leaves the whole untold.
"""

from collections.abc import Iterator
from typing import Literal

from common.words import counted
from pipeline.core.config import GateSettings
from pipeline.core.gguf_types import OUT_TYPES
from pipeline.core.mappings import flatten
from pipeline.report.record import Check, Gain, Measurements, ModelFigures, Verdict

# Null where nothing was asked, or beside the figure that they are the bounds of.
UNTOLD = ("tokens_per_second", "first_token_seconds", "answer_seconds", "_low", "_high", ".low", ".high")

Outcome = Literal["pass", "fail", "too few to tell"]


def judge(measured: Measurements, gate: GateSettings) -> Verdict:
    """Return the verdict on the figures of an evaluation: passed if each check is.

    Args:
        measured: a null among its figures is a number that is not finite, and fails.
        gate: the thresholds.

    """
    checks = [
        *_counts(measured, gate),
        _finite(measured),
        _gain(measured.gain, gate.min_gain),
        *_quantizations(measured, gate.max_quantization_loss),
        *_tasks(measured.base_model, measured.tuned_model, gate.max_task_drop),
    ]
    return Verdict(passed=all(check.passed for check in checks), checks=tuple(checks))


def failed(verdict: Verdict) -> list[Check]:
    """Return the checks that failed."""
    return [check for check in verdict.checks if check.passed is False]


def untold(verdict: Verdict) -> list[Check]:
    """Return the checks that cannot be told."""
    return [check for check in verdict.checks if check.passed is None]


def outcome(verdict: Verdict) -> Outcome:
    """Return what comes of the checks together."""
    if failed(verdict):
        return "fail"
    return "too few to tell" if untold(verdict) else "pass"


def summed_up(verdict: Verdict) -> str:
    """Return the outcome, with the names of what failed, or with how many more would tell."""
    match outcome(verdict):
        case "fail":
            return f"fail ({', '.join(check.name for check in failed(verdict))})"
        case "too few to tell":
            return f"too few to tell: {shortage(verdict)}"
        case _:
            return "pass"


def shortage(verdict: Verdict) -> str:
    """Return how many more of what would tell."""
    short = [(check.missing, check.name.removesuffix("s")) for check in untold(verdict) if check.missing]
    return " and ".join(counted(missing, f"more {name}") for missing, name in short)


def verdict_lines(verdict: Verdict) -> list[str]:
    """Return the verdict for a terminal: what failed and what cannot be told, each with its sentence."""
    checks = counted(len(verdict.checks), "check")
    counts = {"pass": f"pass, {checks}", "fail": f"fail, {len(failed(verdict))} of {checks}"}
    head = counts.get(outcome(verdict), summed_up(verdict))
    amiss = [*failed(verdict), *untold(verdict)]
    return [f"verdict: {head}", *(f"  {check.name}: {check.what}" for check in amiss)]


def _counts(measured: Measurements, gate: GateSettings) -> Iterator[Check]:
    """Yield whether there is enough to tell by; questions count where there are any."""
    yield _count("test conversation", measured.rows, gate.min_rows, "raise data.test, or evaluate.max_rows")
    if measured.questions:
        more = "add some to data.questions, or raise evaluate.max_questions"
        yield _count("question", measured.questions, gate.min_questions, more)


def _count(of: str, count: int, least: int, more: str) -> Check:
    what = f"{counted(count, of)}; it takes {least:,} to tell"
    if count >= least:
        return _check(f"{of}s", what, count, least, True)
    return _check(f"{of}s", f"{what}: {more}", count, least, None).model_copy(update={"missing": least - count})


def _finite(measured: Measurements) -> Check:
    figures = flatten(measured.model_dump(include={"base_model", "tuned_model", "gain", "gguf"}, exclude_unset=True))
    lost = [key for key, value in figures.items() if value is None and not key.endswith(UNTOLD)]
    what = f"no finite number: {', '.join(lost)}" if lost else "each figure is a finite number"
    return _check("finite", what, len(lost), 0, not lost)


def _gain(gain: Gain, limit: float) -> Check:
    if gain.loss is None:
        return _check("gain", "the loss of base or tuned is no finite number", None, limit, False)
    what = f"from base to tuned the loss falls by {gain.loss:.4f} nats a token, "
    if gain.low is None:
        what += f"of which a single conversation gives no confidence interval; all of it must be above {limit:g}"
        return _check("gain", what, gain.loss, limit, None if gain.loss > limit else False)
    what += f"with 95% confidence by {gain.low:.4f} to {gain.high:.4f}; all of that must be above {limit:g}"
    return _check("gain", what, gain.low, limit, gain.low > limit)


def _quantizations(measured: Measurements, limit: float) -> Iterator[Check]:
    """Yield each quantized file of the tuned model against an unquantized one, or Transformers' where there is none."""
    files = measured.tuned_files
    plain = next((kind for kind in OUT_TYPES if kind in files), None)
    whole = (files[plain] if plain else measured.tuned_model).perplexity
    for kind, file in files.items():
        if kind in OUT_TYPES:
            continue
        if file.perplexity is None or whole is None:
            yield _check(f"quantization {kind}", "a perplexity is no finite number", None, limit, False)
            continue
        above = round(file.perplexity / whole - 1, 6)
        what = (
            f"the perplexity of {kind} is {file.perplexity:.4f}, {above:+.2%} against {whole:.4f} of"
            f" {plain or 'the model before export'}; at most {limit:+.2%} is allowed"
        )
        yield _check(f"quantization {kind}", what, above, limit, above <= limit)


def _tasks(base: ModelFigures, tuned: ModelFigures, limit: float) -> Iterator[Check]:
    """Yield questions by task, and the tasks of lm-evaluation-harness."""
    before_and_after = [(base.accuracy_by_task, tuned.accuracy_by_task), (base.tasks, tuned.tasks)]
    for befores, afters in before_and_after:
        for task, before in befores.items():
            after = afters[task]
            drop = round(before - after, 4)
            what = f"{after:.1%} against the base's {before:.1%}; at most {limit:.1%} of all may be lost"
            yield _check(f"task {task}", what, drop, limit, drop <= limit)


def _check(name: str, what: str, figure: float | None, limit: float, passed: bool | None) -> Check:
    return Check(name=name, what=what, figure=figure, limit=limit, passed=passed)
