"""The table of benchmarks/quality.py: what was learnt by whom, and ours against the others.

A difference's 95% interval is by the bootstrap, over rows and over trainings: rows are drawn together for both sides,
which pairs them, and of each side's seeds as many as there are, with replacement. Ours is no worse in a figure if the
interval of its difference from the better peer reaches to the better side of zero.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.statistics.intervals import CONFIDENCE, RESAMPLES, SEED

LOSSES = ("validation", "test")
FIGURES = {"validation_loss": "validation loss", "test_loss": "test loss", "accuracy": "accuracy"}
MORE_IS_BETTER = {"validation_loss": False, "test_loss": False, "accuracy": True}


def summary(run: dict[str, Any]) -> dict[str, Any]:
    """Return a run's figures without those of single rows."""
    losses = {f"{split}_loss": sum(run[split]["nats"]) / sum(run[split]["tokens"]) for split in LOSSES}
    kept = {"accuracy": sum(run["right"]) / len(run["right"]), "questions": len(run["right"])}
    return {**losses, **kept, "replies": run["replies"], "wall_seconds": run["wall_seconds"]}


def compared(ours: Sequence[dict[str, Any]], peers: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return ours less a peer's in each figure, with its interval."""
    differences = {
        f"{split}_loss": difference(
            [run[split]["nats"] for run in ours], [run[split]["nats"] for run in peers], ours[0][split]["tokens"]
        )
        for split in LOSSES
    }
    ours_right, peers_right = ([run["right"] for run in runs] for runs in (ours, peers))
    return {**differences, "accuracy": difference(ours_right, peers_right, [1] * len(ours_right[0]))}


def difference(
    ours: Sequence[Sequence[float]], peers: Sequence[Sequence[float]], weights: Sequence[float]
) -> dict[str, float]:
    """Return the mean of ours less that of the peers.

    Args:
        ours: [trainings, rows], such as nats.
        peers: likewise, of the same rows.
        weights: [rows], such as tokens.
    """
    random = np.random.default_rng(SEED)
    counts = np.asarray(weights, dtype=np.float64)
    sides = [np.asarray(side, dtype=np.float64) for side in (ours, peers)]

    def mean(rows: Any, seeds: Sequence[Any]) -> float:
        totals = [side[chosen][:, rows].sum() / len(chosen) for side, chosen in zip(sides, seeds, strict=True)]
        return float((totals[0] - totals[1]) / counts[rows].sum())

    def drawn(count: int) -> Any:
        return random.integers(count, size=count)

    means = [mean(drawn(len(counts)), [drawn(len(side)) for side in sides]) for _ in range(RESAMPLES)]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    whole = mean(np.arange(len(counts)), [np.arange(len(side)) for side in sides])
    return {"value": whole, "low": float(low), "high": float(high)}


def verdict(against: dict[str, dict[str, dict[str, float]]], figure: str) -> tuple[str, bool] | None:
    """Return the peer that is better in a figure, and whether ours is no worse than it; None without a peer."""
    if not against:
        return None
    sign = 1 if MORE_IS_BETTER[figure] else -1
    better = min(against, key=lambda peer: sign * against[peer][figure]["value"])
    found = against[better][figure]
    return better, (found["high"] if sign > 0 else -found["low"]) >= 0


def table(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    train, lora = report["train"], report["lora"]
    questions = max((run["questions"] for run in report["runs"].values() if "questions" in run), default=0)
    lines = [
        f"# What is learnt: {report['model']} on GSM8K, on {report['card'] or 'a CPU'}",
        "",
        f"{report['date']}; {', '.join(f'{name} {version}' for name, version in report['packages'].items())}.",
        "",
        f"{report['rows']:,} rows, {report['updates']:,} updates of {train['update_size']} at {train['lr']:g}"
        f" ({train['scheduler']}), rank {lora['r']}, cut at {train['max_length']} tokens. Losses in nats a token;"
        f" accuracy: the final number of {questions:,} questions of GSM8K's own test, answered greedily. In the mean"
        " over trainings with other seeds, each in brackets. `benchmarks/quality_table.py` says how they are compared.",
        "",
        "| | what | validation loss | test loss | accuracy |",
        "|---|---|--:|--:|--:|",
        row(report, "base", "untouched"),
        *(row(report, name, engine["what"]) for name, engine in report["engines"].items()),
        "",
        *differences(report["against"]),
    ]
    return "\n".join(lines) + "\n"


def row(report: dict[str, Any], name: str, what: str) -> str:
    """Return an engine's line: its figures, or why there are none."""
    runs = {key: run for key, run in report["runs"].items() if key.rpartition("-")[0] == name or key == name}
    scored = [run for run in runs.values() if "accuracy" in run]
    if not scored:
        failure = next((f"failed: {run['failed']}" for run in runs.values() if "failed" in run), None)
        lacking = report["engines"].get(name, {}).get("not_run") or "not yet"
        return f"| {name} | {what} | {(failure or f'not run: {lacking}').replace('|', '/')} | | |"
    cells = [of_seeds([run[figure] for run in scored], ".1%" if figure == "accuracy" else ".4f") for figure in FIGURES]
    return f"| {' | '.join([name, what, *cells])} |"


def of_seeds(values: list[float], form: str) -> str:
    """Return the mean, and of several values each."""
    each = f" ({', '.join(format(value, form) for value in values)})" if len(values) > 1 else ""
    return format(sum(values) / len(values), form) + each


def differences(against: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """Return ours less each peer, and what follows."""
    if not against:
        return ["There is nothing to compare yet."]
    lines = ["| ours less | validation loss | test loss | accuracy, points |", "|---|--:|--:|--:|"]
    for peer, found in against.items():
        cells = [interval(found[figure], 100 if figure == "accuracy" else 1) for figure in FIGURES]
        lines.append(f"| {' | '.join([peer, *cells])} |")
    lines.append("")
    for figure, words in FIGURES.items():
        better, fine = verdict(against, figure) or ("", False)
        lines.append(f"- {words}: ours is {'no worse' if fine else 'WORSE'} than the better of them, {better}.")
    return lines


def interval(found: dict[str, float], scale: float) -> str:
    """Return a difference with its bounds."""
    form = "+.2f" if scale > 1 else "+.4f"
    value, low, high = (format(found[key] * scale, form) for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
