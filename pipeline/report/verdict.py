"""The verdict: whether a model is good enough to be promoted, threshold by threshold, or too little tells.

A check has passed (true), has failed (false), or cannot be told (null), since it rests on too few conversations or
questions. One that failed fails the whole; else one that cannot be told leaves the whole untold.
"""

from collections.abc import Iterator
from typing import Literal

from common.words import counted
from pipeline.core.config import GateSettings
from pipeline.core.mappings import flatten
from pipeline.report.gate_checks import check_of
from pipeline.report.gates import gates
from pipeline.report.record import Check, Measurements, Verdict
from pipeline.report.rows import ModelRows, RowResults

# Null where nothing was asked, or beside the figure that they are the bounds of.
UNTOLD = (
    *("tokens_per_second", "first_token_seconds", "answer_seconds", "language_kept"),
    *("_low", "_high", ".low", ".high"),
)

Outcome = Literal["pass", "fail", "too few to tell"]


def judge(measured: Measurements, rows: RowResults, settings: GateSettings) -> Verdict:
    """Return the verdict on the figures of an evaluation: passed if each check is.

    Args:
        measured: a null among its figures is a number that is not finite, and fails.
        rows: what was found of each row.
        settings: the thresholds.

    """
    checks = [
        *_counts(measured, settings),
        _finite(measured, rows),
        *(check_of(gate, settings) for gate in gates(rows, settings)),
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
            return ": ".join(filter(None, ("too few to tell", shortage(verdict))))
        case _:
            return "pass"


def shortage(verdict: Verdict) -> str:
    """Return how many more of what would tell."""
    missing: dict[str, int] = {}
    for check in untold(verdict):
        if check.missing:
            noun = check.of or check.name.removesuffix("s")
            missing[noun] = max(check.missing, missing.get(noun, 0))
    return " and ".join(counted(count, f"more {noun}") for noun, count in missing.items())


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


def _finite(measured: Measurements, rows: RowResults) -> Check:
    figures = flatten(measured.model_dump(include={"base_model", "tuned_model", "gain", "gguf"}, exclude_unset=True))
    lost = [key for key, value in figures.items() if value is None and not key.endswith(UNTOLD)]
    of_rows = [f"{name} of {_lost_rows(found, rows)}" for name, found in rows.models.items() if None in found.nats]
    of_rows += [
        f"{name} of pair {found.preferred.index(None) + 1:,} of answers"
        for name, found in rows.models.items()
        if None in found.preferred
    ]
    what = f"no finite number: {', '.join([*lost, *of_rows])}" if lost or of_rows else "each figure is a finite number"
    return _check("finite", what, len(lost) + len(of_rows), 0, not lost and not of_rows)


def _lost_rows(found: ModelRows, rows: RowResults) -> str:
    """Return which rows of the test split have no finite loss."""
    lost = [place for place, nats in enumerate(found.nats) if nats is None]
    first = f"row {rows.numbers[lost[0]]:,}" if rows.numbers else f"the row {rows.rows[lost[0]]}"
    if len(lost) == len(found.nats) > 1:
        return "any row"
    return f"{first} of the test split" + (f" and {len(lost) - 1:,} more" if len(lost) > 1 else "")


def _check(name: str, what: str, figure: float | None, limit: float, passed: bool | None) -> Check:
    return Check(name=name, what=what, figure=figure, limit=limit, passed=passed)
