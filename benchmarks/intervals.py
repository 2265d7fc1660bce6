"""How often the evaluation's 95% intervals hold the truth, by the number of conversations or questions behind them.

    python -m benchmarks.intervals      # some minutes; conf/evaluate's gate.min_rows and gate.min_questions rest on it

Conversations have tokens of all lengths (log-normal) and nats a token whose mean is known; questions are right with a
known share. `passes` is how often a model that gains nothing has its whole interval above 0: 2.5% is what is promised.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from pipeline.statistics.intervals import bootstrap, share

TRIALS = 500
COUNTS = (2, 10, 50, 200)
SHARES = (0.05, 0.1, 0.5, 0.95)
# Nats a token, of mean 0: most alike; a few gain much; a few lose much.
NOISE: dict[str, Callable[[Generator, int], np.ndarray]] = {
    "even": lambda random, count: random.normal(0, 1, count),
    "few gain": lambda random, count: random.exponential(1, count) - 1,
    "few lose": lambda random, count: 1 - random.exponential(1, count),
}


def main() -> None:
    """Print a line for each number and kind."""
    random = np.random.default_rng(0)
    for count in COUNTS:
        for name in NOISE:
            held, passed = conversations(random, name, count)
            print(f"{count:4} conversations, {name:8}: holds {held:.1%}, passes {passed:.1%}", flush=True)
        found = [questions(random, true, count) for true in SHARES]
        least, widest = min(held for held, _ in found), max(half for _, half in found)
        print(f"{count:4} questions: holds {least:.1%} at least, {widest:.1%} to either side", flush=True)


def conversations(random: Generator, name: str, count: int) -> tuple[float, float]:
    """Return shares of TRIALS in which the interval holds the truth, and lies above it."""
    held = above = 0
    for _ in range(TRIALS):
        tokens = np.maximum(1, random.lognormal(4, 0.8, count))
        found = bootstrap(NOISE[name](random, count) * tokens, tokens.tolist())
        held += found.low <= 0 <= found.high
        above += found.low > 0
    return held / TRIALS, above / TRIALS


def questions(random: Generator, true: float, count: int) -> tuple[float, float]:
    """Return the share of TRIALS in which the interval holds the truth, and half its mean width."""
    right = random.random((TRIALS, count)) < true
    found = [share(row.tolist()) for row in right]
    held = sum(one.low <= true <= one.high for one in found) / TRIALS
    return held, sum(one.high - one.low for one in found) / 2 / TRIALS


if __name__ == "__main__":
    main()
