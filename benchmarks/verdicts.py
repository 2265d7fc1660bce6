"""How often a verdict on two models is wrong, and how often it sees what it says that it could.

    python -m benchmarks.verdicts      # some minutes; draws from what benchmarks/row_differences.py measured

Pairs are drawn, with replacement, from the row differences of real files: of two trainings that differ in their seed,
of Q4_K_M against F16, of tuned against base, each both ways round. Without a difference: what they differ by on average
is taken away; of questions, those that the two answered differently go to either side by a coin. With one: the
difference that the test names is planted. `At any row` counts a verdict wherever it first fell: as who looks after each
row, and stops when it suits. Level and margins are conf/compare's. Writes benchmarks/results/verdicts.json and
verdicts.md.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from benchmarks.inputs import REPOSITORY
from benchmarks.row_differences import RESULT as DIFFERENCES
from benchmarks.row_differences import OfModel, Pair
from common.files import write_json, write_text
from pipeline.comparison.pairs import Judgement
from pipeline.core.composition import compose
from pipeline.core.config import load
from pipeline.statistics.paired import Paired, Test, holm, paired_loss, paired_share
from pipeline.statistics.sequences import mean_bounds, share_above

RESULTS = REPOSITORY / "benchmarks/results"
COUNTS = (150, 500)  # rows, or questions
TASKS, ITEMS = 10, 200  # of a judgement of everything together
COMPARE = load(compose(REPOSITORY / "conf")).compare
LEVEL, MARGIN = COMPARE.level, COMPARE.margin


class Differences(NamedTuple):
    """Of each row by how much the new file is better; of a question a whole point, or none."""

    values: np.ndarray
    weights: np.ndarray


class Case(NamedTuple):
    """Something to draw pairs from."""

    of: str
    figure: str
    draw: Callable[[Generator, int, float], Differences]  # so many rows with such a difference
    judge: Callable[[Differences], Paired]
    above: Callable[[Differences], np.ndarray]  # whether it is better beyond doubt, after each row


class Found(NamedTuple):
    """How often the new file was found better."""

    of: str
    figure: str
    rows: int
    promoted: float  # without a difference, at the end
    promoted_at_any: float
    names: float  # the median of the differences that the tests name
    seen: float  # that difference, at the end
    seen_at_any: float


def main() -> None:
    """Draw all pairs and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1000, help="that are drawn of each kind")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    differences, random = json.loads(DIFFERENCES.read_text()), np.random.default_rng(0)
    found = []
    for case in cases(differences):
        for count in COUNTS:
            found.append(tried(case, random, count, arguments.pairs))
            print(line(found[-1]), flush=True)
    together = all_together(differences, random, arguments.pairs)
    print(together, flush=True)
    result = {"level": LEVEL, "pairs": arguments.pairs, "found": [one._asdict() for one in found], "together": together}
    write_json(arguments.out / "verdicts.json", result)
    write_text(arguments.out / "verdicts.md", table(found, together, arguments.pairs))


def cases(differences: Mapping[str, OfModel]) -> Iterator[Case]:
    """Yield each pair of files, both ways round."""
    for model, found in differences.items():
        for name, pair in found["pairs"].items():
            for sign, way in ((1, name), (-1, f"{name}, turned round")):
                falls, tokens = sign * np.array(pair["nats"]), np.array(found["tokens"], dtype=np.float64)
                rest = falls - falls.sum() / tokens.sum() * tokens
                draw = partial(drawn_rows, rest, tokens)
                yield Case(f"{model}, {way}", "loss", draw, loss_of, loss_above)
            if apart := share_apart(pair):
                draw = partial(drawn_questions, apart)
                yield Case(f"{model}, {name}", "accuracy", draw, accuracy_of, accuracy_above)


def share_apart(pair: Pair) -> float:
    """Return the share of questions that one of a pair alone answered right."""
    right = list(zip(pair["new_right"], pair["old_right"], strict=True))
    return sum(new != old for new, old in right) / len(right) if right else 0.0


def drawn_rows(rest: np.ndarray, tokens: np.ndarray, random: Generator, count: int, true: float) -> Differences:
    """Return rows of which the new file is better by so many nats a token."""
    chosen = random.integers(len(rest), size=count)
    return Differences(rest[chosen] + true * tokens[chosen], tokens[chosen])


def drawn_questions(apart: float, random: Generator, count: int, true: float) -> Differences:
    """Return questions of which the new file answers by such a share more right."""
    differ = max(apart, true)
    chances = [(differ + true) / 2, 1 - differ, (differ - true) / 2]
    return Differences(random.choice([1.0, 0.0, -1.0], size=count, p=chances), np.ones(count))


def loss_of(drawn: Differences, level: float = LEVEL) -> Paired:
    """Return the verdict on rows."""
    values = drawn.values.tolist()
    return paired_loss([0.0] * len(values), values, drawn.weights.tolist(), level, MARGIN.loss)


def accuracy_of(drawn: Differences, level: float = LEVEL) -> Paired:
    """Return the verdict on questions."""
    new, old = np.maximum(drawn.values, 0.0), np.maximum(-drawn.values, 0.0)
    return paired_share(new.tolist(), old.tolist(), level, MARGIN.accuracy)


def loss_above(drawn: Differences) -> np.ndarray:
    """Return, after each row, whether the loss is better beyond doubt."""
    return np.array([one.low > 0 for one in mean_bounds(drawn.values, drawn.weights, LEVEL)])


def accuracy_above(drawn: Differences) -> np.ndarray:
    """Return, after each question, whether the accuracy is."""
    return share_above(drawn.values, 0.0, LEVEL)


def tried(case: Case, random: Generator, count: int, pairs: int) -> Found:
    """Return how often a new file is found better, without a difference and with the one that its test names."""
    nothing, planted, names = np.zeros(2), np.zeros(2), []
    for _ in range(pairs):
        drawn = case.draw(random, count, 0.0)
        names.append(case.judge(drawn).smallest)
        nothing += told(case.above(drawn))
        if np.isfinite(names[-1]):
            planted += told(case.above(case.draw(random, count, names[-1])))
    (promoted, at_any), (seen, seen_at_any) = (nothing / pairs).tolist(), (planted / pairs).tolist()
    return Found(case.of, case.figure, count, promoted, at_any, float(np.median(names)), seen, seen_at_any)


def told(above: np.ndarray) -> tuple[bool, bool]:
    """Return whether a difference is seen after the last row, and after any."""
    return bool(above[-1]), bool(above.any())


def all_together(differences: Mapping[str, OfModel], random: Generator, pairs: int) -> dict[str, float]:
    """Return how often a judgement of loss, questions and ten tasks promotes where nothing differs."""
    by_name = {f"{case.of}, {case.figure}": case for case in cases(differences)}
    of = next(name.removesuffix(", accuracy") for name in by_name if name.endswith(", accuracy"))
    loss, accuracy = by_name[f"{of}, loss"], by_name[f"{of}, accuracy"]
    promoted = 0
    for _ in range(pairs // 10):  # of twelve tests each
        tests: list[Test] = [partial(loss_of, loss.draw(random, COUNTS[-1], 0.0))]
        tests += [partial(accuracy_of, accuracy.draw(random, ITEMS, 0.0)) for _ in range(1 + TASKS)]
        promoted += Judgement(tuple(holm(tests, LEVEL))).finding == "better"
    return {"tasks": TASKS, "pairs": pairs // 10, "promoted": promoted / (pairs // 10)}


def line(found: Found) -> str:
    """Return a row of the table."""
    unit = "nats a token" if found.figure == "loss" else "points"
    names = found.names if found.figure == "loss" else 100 * found.names
    return (
        f"| {found.of} | {found.figure} | {found.rows} | {found.promoted:.1%} | {found.promoted_at_any:.1%} "
        f"| {names:.3g} {unit} | {found.seen:.1%} | {found.seen_at_any:.1%} |"
    )


def table(found: list[Found], together: dict[str, float], pairs: int) -> str:
    """Return the result in Markdown."""
    worst = max(one.promoted_at_any for one in found)
    least, least_at_any = min(one.seen for one in found), min(one.seen_at_any for one in found)
    return "\n".join(
        [
            "# How far a verdict can be trusted\n",
            f"`python -m benchmarks.verdicts` draws {pairs:,} pairs of each kind from measured row differences, at a",
            f"level of {LEVEL:.1%}. Without a difference at most {worst:.1%} were promoted, wherever one stopped. A",
            f"difference of the size that the test named was seen in {least_at_any:.0%} or more; in {least:.0%} or",
            "more by a single look, at the end.\n",
            "| drawn from | figure | rows | no difference: promoted | at any row | test names | seen | at any row |",
            "|---|---|---|---|---|---|---|---|",
            *(line(one) for one in found),
            f"\nLoss, questions and {together['tasks']:g} tasks together, of which none differs: "
            f"{together['promoted']:.1%} promoted.\n",
        ]
    )


if __name__ == "__main__":
    main()
