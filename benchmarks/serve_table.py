"""The table of benchmarks/serve.py, from what was measured.

A figure is the median of all its samples, over repeats and rounds. The ratio is ours to the peer that the goal names:
the median of what it is for each question in each round, since a machine's speed changes from one round to the next. A
prompt's length is in tokens, by what the peers themselves tell of it. Where other processes take CPU time, ours gives
way with fewer threads (llama/threads.py) and the peers do not: that alone is an advantage. What the figures are:

- first token: seconds from the question to the first text of its answer, as the client sees it.
- decode: tokens a second after the first one, one user, a short prompt; llama-bench's is its `tg`, without sampling.
- prefill: tokens of a long prompt by the first-token time; llama-bench's is its `pp`, without a first token.
- alone, four in turn: the conversation of one user, or of four who take turns; a later turn has the earlier ones before
  it, answers included.
- all together: tokens of four simultaneous answers by the seconds from the questions to the last token.
- memory growth: of the resident memory of the process that serves, from 20% to 100% of the time; a cache of
  conversations that is still filling up counts. Ours has the clients in the same process.
- the same as alone: the share of greedy answers under load that are token by token those given to one user.
"""

from collections import Counter
from dataclasses import dataclass
from statistics import median
from typing import Any

OURS = "ours"


@dataclass(frozen=True)
class Goal:
    """What a figure of ours is to be: in proportion to a peer's, or by itself."""

    scenario: str
    figure: str  # the beginning of its name
    peer: str | None
    at_least: float | None = None
    at_most: float | None = None

    def met(self, value: float) -> bool:
        """Return whether a ratio, or a figure where no peer is named, is within the goal."""
        return value >= self.at_least if self.at_least is not None else value <= (self.at_most or 0.0)

    def __str__(self) -> str:
        sign, bound = ("≥", self.at_least) if self.at_least is not None else ("≤", self.at_most)
        return f"{sign} {bound:g}" + (f" x {self.peer}" if self.peer else "")


GOALS = (
    Goal("one-user", "decode", "llama-bench", at_least=0.97),
    Goal("one-user", "first token", "llama-server", at_most=1.1),
    Goal("later-turns", "alone, turn", "llama-server", at_most=1.1),
    Goal("later-turns", "four in turn, turn", "llama-server", at_most=1.1),
    Goal("four-users", "all together", "llama-server", at_least=1.0),
    Goal("four-users", "slowest first token", "llama-server", at_most=1.0),
    Goal("load", "errors", None, at_most=0),
)


def goal_of(scenario: str, figure: str) -> Goal | None:
    """Return the goal that a figure has; a conversation's first turn has none, since nothing is known of it yet."""
    if scenario == "later-turns" and "turn 1:" in figure:
        return None
    return next((goal for goal in GOALS if goal.scenario == scenario and figure.startswith(goal.figure)), None)


def merged(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one peer's runs of a scenario as one: all samples of each figure, or the first failure.

    Empty without runs.
    """
    failure = next((run for run in rounds if "failed" in run), None)
    if failure:
        return {"failed": failure["failed"]}
    figures: dict[str, Any] = {}
    for run in rounds:
        for name, figure in run["figures"].items():
            pooled = figures.setdefault(name, {**figure, "samples": []})
            pooled["samples"] = [*pooled["samples"], *figure["samples"]]
    return {"figures": figures} if figures else {}


def verdict(scenario: str, figure: str, peers: dict[str, Any]) -> dict[str, Any]:
    """Return a figure's goal, the ratio to it, and whether it is met, as far as these are known."""
    goal, ours = goal_of(scenario, figure), value(peers.get(OURS), figure)
    if goal is None or ours is None:
        return {"goal": goal and str(goal), "ratio": None, "met": None}
    if goal.peer is None:
        return {"goal": str(goal), "ratio": None, "met": goal.met(ours)}
    found = ratio(peers.get(OURS), peers.get(goal.peer), figure)
    return {"goal": str(goal), "ratio": found, "met": None if found is None else goal.met(found)}


def ratio(ours: dict[str, Any] | None, peer: dict[str, Any] | None, figure: str) -> float | None:
    """Return ours to a peer's of a figure: the median over their samples, one by one; None where there are none."""
    pairs = zip(samples(ours, figure), samples(peer, figure), strict=False)
    return median(found) if (found := [own / other for own, other in pairs]) else None


def value(run: dict[str, Any] | None, figure: str) -> float | None:
    """Return the median of a figure's samples; None where there are none."""
    return median(found) if (found := samples(run, figure)) else None


def samples(run: dict[str, Any] | None, figure: str) -> list[float]:
    """Return all that was measured of a figure, in the order of rounds and questions."""
    return (run or {}).get("figures", {}).get(figure, {}).get("samples", [])


def table(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    setup, peers = report["setup"], report["peers"]
    versions = ", ".join(f"{name} {version}" for name, version in setup["packages"].items())
    lines = [
        f"# Chat serving on a CPU, {report['model']}",
        "",
        f"{report['date']}; {setup['processor']}, {setup['cpus']} usable CPUs, {setup['threads']} threads; {versions}."
        " llama-bench and llama-server are built from llama-cpp-python's own sources, with the flags of its wheel."
        + (" **A quick run, to see that it works: one short round.**" if report["quick"] else ""),
        "",
        *conditions(report),
        "`benchmarks/serve_table.py` says what the figures are.",
        "",
        f"| scenario | figure | {' | '.join(peers)} | goal for ours | ratio | met |",
        f"|---|---|{'--:|' * len(peers)}---|--:|---|",
    ]
    for scenario, runs in report["scenarios"].items():
        lines += [row(scenario, figure, runs, list(peers)) for figure in figures(runs)]
    return "\n".join([*lines, "", *legend(report)]) + "\n"


def conditions(report: dict[str, Any]) -> list[str]:
    """Return paragraphs on what makes the figures comparable.

    The same instruction sets, and a machine that was left alone.
    """
    built: dict[str, list[str]] = {}
    for peer, kernels in report["kernels"].items():
        built.setdefault(kernels, []).append(peer)
    lines = [f"Built for {kernels}: {', '.join(names)}." for kernels, names in built.items()]
    if others := report["others_share"]:
        median_share, most = others["median"], others["most"]
        lines.append(f"Other processes took {median_share:.0%} of the CPUs in the median run, {most:.0%} in the worst.")
    return [part for line in lines for part in (line, "")]


def figures(runs: dict[str, Any]) -> list[str]:
    """Return all figures of a scenario in the order in which they were first measured; ours' order counts most."""
    ordered = sorted(runs, key=lambda peer: peer != OURS)
    return list(dict.fromkeys(name for peer in ordered for name in runs[peer].get("figures", {}))) or ["-"]


def row(scenario: str, figure: str, runs: dict[str, Any], peers: list[str]) -> str:
    """Return a line of the table."""
    found = verdict(scenario, figure, runs)
    ratio = "-" if found["ratio"] is None else f"{found['ratio']:.3f}"
    met = {True: "yes", False: "**no**", None: "-" if found["goal"] is None else "unknown"}[found["met"]]
    cells = [cell(runs.get(peer), figure) for peer in peers]
    return f"| {' | '.join([scenario, label(figure, runs), *cells, found['goal'] or '-', ratio, met])} |"


def label(figure: str, runs: dict[str, Any]) -> str:
    """Return a figure's name with the length of its prompt, where that is known."""
    lengths = [run.get("figures", {}).get(figure, {}).get("prompt") for run in runs.values()]
    counts = Counter(length for length in lengths if length)
    return f"{figure} ({counts.most_common(1)[0][0]} tokens of prompt)" if counts else figure


def cell(run: dict[str, Any] | None, figure: str) -> str:
    """Return one peer's figure, or why there is none."""
    if run is None:
        return "-"
    if "failed" in run:
        return "failed"
    number = value(run, figure)
    if number is None:
        return "-" if "figures" in run else "not yet"
    return f"{number:,.0f}" if number == int(number) or abs(number) >= 1000 else f"{number:.3g}"


def legend(report: dict[str, Any]) -> list[str]:
    """Return what the peers are, what the load is, and why some have failed."""
    lines = [f"- {name}: {what}" for name, what in report["peers"].items()]
    size = report["sizes"]
    lines.append(f"- load: {size['clients']} clients for {size['minutes']:g} minutes, on {report['starter']}")
    for scenario, runs in report["scenarios"].items():
        lines += [f"- failed: {peer}, {scenario}: {run['failed']}" for peer, run in runs.items() if "failed" in run]
    return lines
