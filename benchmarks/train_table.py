"""The table of benchmarks/train.py, from what was measured.

- tokens/s: tokens that are no padding, a second, in the updates after compilation; how much of the time was between
  updates is in the note. Ours by the train stage's report, the peers' as benchmarks/peers.py says.
- peak GiB: the most that PyTorch reserved on the GPU.
- share of the limit: of a bf16 matrix product's speed, measured on the same card. A token costs 4 operations for each
  weight of the decoder's layers (forward, and backward to the inputs), 6 for each of the adapter and, if it is learnt,
  4 for each of the head. Attention's own products are left out, and so is what gradient checkpointing computes twice.
- first update, s: from the start of the process until the first update has ended, with what compiles in it. Ours
  tokenizes its rows in that time, the peers get theirs tokenized.
"""

from typing import Any

FIGURES = {"tokens_per_second": ",.0f", "peak_memory_gib": ".2f", "limit_share": ".1%", "startup_seconds": ".0f"}


def operations_a_token(parameters: dict[str, int], supervised_share: float) -> float:
    """Return what a token costs in matrix products with weights, on average.

    Args:
        parameters: counts of `layers`, `head` and `adapter`.
        supervised_share: of the tokens, 0 to 1.
    """
    return 4 * parameters["layers"] + 4 * parameters["head"] * supervised_share + 6 * parameters["adapter"]


def table(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    rows = report["rows"]
    card = f"{report['card']}, driver {report['driver']}" if report["card"] else "a CPU"
    lines = [
        f"# LoRA training, {report['model']} shape, on {card}",
        "",
        f"{report['date']}; {', '.join(f'{name} {version}' for name, version in report['packages'].items())}.",
        "",
        f"{rows['conversations']:,} conversations of {rows['mean_tokens']:,.0f} tokens on average, {rows['longest']:,}"
        f" at most, {rows['supervised_share']:.1%} of the tokens learnt. {report['steps']} updates of ours,"
        f" {report['peer_steps']} of a peer. {limit(report['limit'])} `benchmarks/train_table.py` says what the columns"
        " mean.",
        "",
        "| name | what | tokens/s | peak GiB | share of the limit | first update, s | note |",
        "|---|---|--:|--:|--:|--:|---|",
    ]
    for name, run in report["runs"].items():
        figures = ["-" if run.get(key) is None else format(run[key], form) for key, form in FIGURES.items()]
        lines.append(f"| {' | '.join([name, run['what'], *figures, note(run)])} |")
    return "\n".join(lines) + "\n"


def limit(measured: dict[str, Any]) -> str:
    """Return a sentence about what the card can do."""
    if "tflops" not in measured:
        return "The limit was not measured."
    size, kind = measured["size"], measured["dtype"]
    return f"The limit: {measured['tflops']:,.3g} TFLOP/s in a {kind} product of two {size} x {size} matrices."


def note(run: dict[str, Any]) -> str:
    """Return the last column: why there are no figures, or what there is to say about them."""
    for key in ("failed", "not_run"):
        if key in run:
            return f"{key.replace('_', ' ')}: {run[key]}".replace("|", "\\|")
    outside = run["outside_share"]
    between = "" if outside is None else f"{outside:.1%} of the time between updates"
    return "; ".join(filter(None, [between, run["note"]]))
