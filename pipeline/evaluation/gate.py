"""The verdict: whether a model is good enough to be promoted, threshold by threshold."""

from collections.abc import Iterator
from typing import Any

from pipeline.compose import flatten
from pipeline.config import GateSettings
from pipeline.gguf.convert import OUT_TYPES

# Null where nothing was asked, or beside the figure that they are the bounds of.
UNTOLD = ("tokens_per_second", "first_token_seconds", "answer_seconds", "_low", "_high")

Check = dict[str, Any]


def judge(evaluation: dict[str, Any], gate: GateSettings) -> dict[str, Any]:
    """The verdict on the figures of an evaluation: passed if each check is.

    Args:
        evaluation: `base_model`, `tuned_model`, `gain` and `gguf` of reports/evaluation.json; null is a number that is
            not finite, and fails.
        gate: the thresholds.

    Returns:
        `passed`, and `checks` with name, sentence, figure, limit and whether it passed.
    """
    checks = [
        _finite(evaluation),
        _gain(evaluation["gain"], gate.min_gain),
        *_quantizations(evaluation, gate.max_quantization_loss),
        *_tasks(evaluation["base_model"], evaluation["tuned_model"], gate.max_task_drop),
    ]
    return {"passed": all(check["passed"] for check in checks), "checks": checks}


def verdict_lines(verdict: dict[str, Any]) -> list[str]:
    """The verdict for a terminal: what failed, each with its sentence."""
    failed = [check for check in verdict["checks"] if not check["passed"]]
    if not failed:
        return [f"verdict: pass, {len(verdict['checks'])} checks"]
    return [f"verdict: fail, {len(failed)} of {len(verdict['checks'])} checks"] + [
        f"  {check['name']}: {check['what']}" for check in failed
    ]


def _finite(evaluation: dict[str, Any]) -> Check:
    figures = flatten({name: evaluation[name] for name in ("base_model", "tuned_model", "gain", "gguf")})
    lost = [key for key, value in figures.items() if value is None and not key.endswith(UNTOLD)]
    what = f"no finite number: {', '.join(lost)}" if lost else "each figure is a finite number"
    return _check("finite", what, len(lost), 0, not lost)


def _gain(gain: dict[str, Any], limit: float) -> Check:
    if gain["low"] is None:
        return _check("gain", "the loss of base or tuned is no finite number", None, limit, False)
    what = (
        f"from base to tuned the loss falls by {gain['loss']:.4f} nats a token, with 95% confidence by "
        f"{gain['low']:.4f} to {gain['high']:.4f}; all of that must be above {limit:g}"
    )
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


def _check(name: str, what: str, figure: float | None, limit: float, passed: bool) -> Check:
    return {"name": name, "what": what, "figure": figure, "limit": limit, "passed": passed}
