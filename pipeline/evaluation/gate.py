"""The verdict: whether a model is good enough to be promoted, threshold by threshold, or too little tells.

A check has passed (true), has failed (false), or cannot be told (null), since it rests on too few conversations or
questions. One that failed fails the whole; else one that cannot be told leaves the whole untold.
"""

from collections.abc import Iterator
from typing import Any, Literal

from pipeline.compose import flatten
from pipeline.config import GateSettings
from pipeline.gguf.convert import OUT_TYPES
from serve.words import counted

# Null where nothing was asked, or beside the figure that they are the bounds of.
UNTOLD = ("tokens_per_second", "first_token_seconds", "answer_seconds", "_low", "_high", ".low", ".high")

Check = dict[str, Any]
Verdict = dict[str, Any]
Outcome = Literal["pass", "fail", "too few to tell"]


def judge(evaluation: dict[str, Any], gate: GateSettings) -> Verdict:
    """The verdict on the figures of an evaluation: passed if each check is.

    Args:
        evaluation: `rows`, `questions`, `base_model`, `tuned_model`, `gain` and `gguf` of reports/evaluation.json; null
            is a number that is not finite, and fails.
        gate: the thresholds.

    Returns:
        `passed`, and `checks` with name, sentence, figure, limit and whether it passed, null where that cannot be told;
        where more of something would tell, `missing` is how many.
    """
    checks = [
        *_counts(evaluation, gate),
        _finite(evaluation),
        _gain(evaluation["gain"], gate.min_gain),
        *_quantizations(evaluation, gate.max_quantization_loss),
        *_tasks(evaluation["base_model"], evaluation["tuned_model"], gate.max_task_drop),
    ]
    return {"passed": all(check["passed"] for check in checks), "checks": checks}


def failed(verdict: Verdict) -> list[Check]:
    """The checks that failed."""
    return [check for check in verdict["checks"] if check["passed"] is False]


def untold(verdict: Verdict) -> list[Check]:
    """The checks that cannot be told; a record from before there was such a thing has none."""
    return [check for check in verdict["checks"] if check["passed"] is None]


def outcome(verdict: Verdict) -> Outcome:
    """What comes of the checks together."""
    if failed(verdict):
        return "fail"
    return "too few to tell" if untold(verdict) else "pass"


def summed_up(verdict: Verdict) -> str:
    """The outcome, with the names of what failed, or with how many more would tell."""
    match outcome(verdict):
        case "fail":
            return f"fail ({', '.join(check['name'] for check in failed(verdict))})"
        case "too few to tell":
            return f"too few to tell: {shortage(verdict)}"
        case _:
            return "pass"


def shortage(verdict: Verdict) -> str:
    """How many more of what would tell."""
    short = [check for check in untold(verdict) if "missing" in check]
    return " and ".join(counted(check["missing"], f"more {check['name'].removesuffix('s')}") for check in short)


def verdict_lines(verdict: Verdict) -> list[str]:
    """The verdict for a terminal: what failed and what cannot be told, each with its sentence."""
    checks = counted(len(verdict["checks"]), "check")
    counts = {"pass": f"pass, {checks}", "fail": f"fail, {len(failed(verdict))} of {checks}"}
    head = counts.get(outcome(verdict), summed_up(verdict))
    amiss = [*failed(verdict), *untold(verdict)]
    return [f"verdict: {head}", *(f"  {check['name']}: {check['what']}" for check in amiss)]


def _counts(evaluation: dict[str, Any], gate: GateSettings) -> Iterator[Check]:
    """Whether there is enough to tell by; questions count where there are any."""
    yield _count("test conversation", evaluation["rows"], gate.min_rows, "raise data.test, or evaluate.max_rows")
    if evaluation["questions"]:
        more = "add some to data.questions, or raise evaluate.max_questions"
        yield _count("question", evaluation["questions"], gate.min_questions, more)


def _count(of: str, count: int, least: int, more: str) -> Check:
    what = f"{counted(count, of)}; it takes {least:,} to tell"
    if count >= least:
        return _check(f"{of}s", what, count, least, True)
    return _check(f"{of}s", f"{what}: {more}", count, least, None) | {"missing": least - count}


def _finite(evaluation: dict[str, Any]) -> Check:
    figures = flatten({name: evaluation[name] for name in ("base_model", "tuned_model", "gain", "gguf")})
    lost = [key for key, value in figures.items() if value is None and not key.endswith(UNTOLD)]
    what = f"no finite number: {', '.join(lost)}" if lost else "each figure is a finite number"
    return _check("finite", what, len(lost), 0, not lost)


def _gain(gain: dict[str, Any], limit: float) -> Check:
    if gain["loss"] is None:
        return _check("gain", "the loss of base or tuned is no finite number", None, limit, False)
    what = f"from base to tuned the loss falls by {gain['loss']:.4f} nats a token, "
    if gain["low"] is None:
        what += f"of which a single conversation gives no confidence interval; all of it must be above {limit:g}"
        return _check("gain", what, gain["loss"], limit, None if gain["loss"] > limit else False)
    what += f"with 95% confidence by {gain['low']:.4f} to {gain['high']:.4f}; all of that must be above {limit:g}"
    return _check("gain", what, gain["low"], limit, gain["low"] > limit)


def _quantizations(evaluation: dict[str, Any], limit: float) -> Iterator[Check]:
    """Each quantized file of the tuned model against an unquantized one, or Transformers' where there is none."""
    files = {key: file for key, file in evaluation["gguf"].items() if file["of"] == "tuned"}
    plain = next((kind for kind in OUT_TYPES if kind in files), None)
    whole = (files[plain] if plain else evaluation["tuned_model"])["perplexity"]
    for kind, file in files.items():
        if kind in OUT_TYPES:
            continue
        if file["perplexity"] is None or whole is None:
            yield _check(f"quantization {kind}", "a perplexity is no finite number", None, limit, False)
            continue
        above = round(file["perplexity"] / whole - 1, 6)
        what = (
            f"the perplexity of {kind} is {file['perplexity']:.4f}, {above:+.2%} against {whole:.4f} of"
            f" {plain or 'the model before export'}; at most {limit:+.2%} is allowed"
        )
        yield _check(f"quantization {kind}", what, above, limit, above <= limit)


def _tasks(base: dict[str, Any], tuned: dict[str, Any], limit: float) -> Iterator[Check]:
    """Questions by task, and the tasks of lm-evaluation-harness."""
    for key in ("accuracy_by_task", "tasks"):
        for task, before in base.get(key, {}).items():
            after = tuned[key][task]
            drop = round(before - after, 4)
            what = f"{after:.1%} against the base's {before:.1%}; at most {limit:.1%} of all may be lost"
            yield _check(f"task {task}", what, drop, limit, drop <= limit)


def _check(name: str, what: str, figure: float | None, limit: float, passed: bool | None) -> Check:
    return {"name": name, "what": what, "figure": figure, "limit": limit, "passed": passed}
