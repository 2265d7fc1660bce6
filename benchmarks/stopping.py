"""How many rows a gate on the loss takes, how often it is wrong, and how long that is on a 1B file.

    python -m benchmarks.stopping                 half an hour; writes benchmarks/results/stopping.json, .md
    python -m benchmarks.stopping --trials 200    in half of that
    python -m benchmarks.stopping --time          with a 1B shape's Q4_K_M on this machine, besides: some ten minutes

Rows are drawn, with replacement, from those of benchmarks/results/row-differences.json (benchmarks/row_differences.py),
by which real pairs of files differ: their mean is taken away, and the effect of a case put in its place. A case looks
as the evaluation does: after the fewest rows, then as its gate asks for more. "Without stopping" judges all rows by
the bootstrap's interval, once.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from transformers import AutoTokenizer

from benchmarks.inputs import REPOSITORY, llama, make_model, write_chats
from benchmarks.peers import MAX_LENGTH
from benchmarks.pipeline import facts
from common.errors import UserError
from common.files import write_json, write_text
from pipeline.evaluation.gguf_scores import row_nats
from pipeline.gguf.convert import convert
from pipeline.gguf.quantize import quantize
from pipeline.models.chat import encode
from pipeline.report.gates import Gate
from pipeline.statistics.intervals import bootstrap
from pipeline.statistics.sequences import Bounds, mean_bounds

DIFFERENCES = REPOSITORY / "benchmarks/results/row-differences.json"
RESULTS = REPOSITORY / "benchmarks/results"
EFFECTS = (0.0, 0.02, 0.05, 0.1, 0.2)  # nats a token by which a file is better than its threshold
LEVELS = (0.05, 0.005)  # conf/evaluate's gate.level, and conf/compare's
GOAL_ROWS, GOAL_SHARE = 70, 0.9  # rows of an effect of 0.1 or more, in so many cases
TRIALS = 400
ROWS = 500  # conf/evaluate's max_rows
FEWEST = 70  # its gate's min_rows


class Source(NamedTuple):
    """What two files differ by on real rows."""

    name: str
    nats: np.ndarray
    tokens: np.ndarray


class Case(NamedTuple):
    """What comes of one sequence of rows."""

    rows: int  # measured until it was decided, or all
    passed: bool | None
    passes_without: bool  # whether the interval of all rows is above the threshold


def main() -> None:
    """Time a file where asked to, draw all cases, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--differences", type=Path, default=DIFFERENCES)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--time", action="store_true", help="measure a 1B file, too; needs 10 GB of disk")
    arguments = parser.parse_args()
    seconds = timed("1b") if arguments.time else None
    random = np.random.default_rng(0)
    found = [
        {
            "pair": source.name,
            "level": level,
            "effect": effect,
            **summary(random, source, effect, level, arguments.trials),
        }
        for source in read(arguments.differences)
        for level in LEVELS
        for effect in EFFECTS
    ]
    report = {**facts(), "rows": ROWS, "fewest": FEWEST, "trials": arguments.trials, "cases": found}
    if seconds:
        report["seconds"] = seconds
    write_json(arguments.results / "stopping.json", report)
    write_text(arguments.results / "stopping.md", table(report))
    print(table(report))


def read(path: Path) -> list[Source]:
    """Return the measured differences, their mean taken away.

    Raises:
        UserError: they are not there.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; measure it: `python -m benchmarks.row_differences`")
    sources = []
    for model, content in json.loads(path.read_text(encoding="utf-8")).items():
        tokens = np.array(content["tokens"], dtype=np.float64)
        for name, pair in content["pairs"].items():
            nats = np.array(pair["nats"], dtype=np.float64)
            sources.append(Source(f"{model}, {name}", nats - tokens * nats.sum() / tokens.sum(), tokens))
    return sources


def summary(random: Generator, source: Source, effect: float, level: float, trials: int) -> dict[str, float]:
    """Return rows and verdicts of many sequences."""
    cases = [case(random, source, effect, level) for _ in range(trials)]
    rows = np.array([one.rows for one in cases])
    return {
        "median_rows": int(np.median(rows)),
        "rows_of_9_in_10": int(np.quantile(rows, GOAL_SHARE, method="higher")),
        "most_rows": int(rows.max()),
        "within_goal": float((rows <= GOAL_ROWS).mean()),
        "passes": sum(one.passed is True for one in cases) / trials,
        "fails": sum(one.passed is False for one in cases) / trials,
        "passes_without": sum(one.passes_without for one in cases) / trials,
    }


def case(random: Generator, source: Source, effect: float, level: float) -> Case:
    """Return what comes of one sequence, looked at as the evaluation does."""
    drawn = random.integers(len(source.tokens), size=ROWS)
    tokens = source.tokens[drawn]
    differences = source.nats[drawn] + effect * tokens
    bounds = mean_bounds(differences, tokens, level, FEWEST)
    rows = FEWEST
    while wanted := (gate := looked(bounds[:rows])).wanted:
        rows = wanted
    return Case(rows, gate.passed, bootstrap(differences, tokens.tolist()).low > 0)


def looked(bounds: list[Bounds]) -> Gate:
    """Return the gate on a gain above 0 as far as so many rows were measured."""
    return Gate("gain", "gain", ("base", "tuned"), "test conversation", True, 0.0, bounds, len(bounds), ROWS, FEWEST)


def timed(shape: str) -> dict[str, object]:
    """Return seconds that the rows of the goal take with a real shape's Q4_K_M, of lengths like FineTome's."""
    with tempfile.TemporaryDirectory(prefix="tunesmith-stopping-") as temporary:
        folder = Path(temporary)
        make_model(folder / "model", llama(shape))
        convert(folder / "model", folder / "F16.gguf", "F16")
        quantize(folder / "F16.gguf", folder / "Q4_K_M.gguf", "Q4_K_M")
        tokenizer = AutoTokenizer.from_pretrained(folder / "model")
        write_chats(folder / "chats.jsonl", GOAL_ROWS, tokenizer)
        lines = (folder / "chats.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [row for line in lines for row in encode(tokenizer, json.loads(line)["messages"], MAX_LENGTH, "all")]
        start = time.perf_counter()
        row_nats(folder / "Q4_K_M.gguf", rows)
        seconds = time.perf_counter() - start
    return {"shape": shape, "rows": len(rows), "tokens": sum(len(ids) for ids, _ in rows), "seconds": round(seconds, 1)}


def table(report: dict[str, Any]) -> str:
    """Return the result in Markdown."""
    head = "| pair | level | effect, nats | rows: median | 9 in 10 | most | passes | fails | passes without stopping |"
    lines = [
        f"Rows that a gate on the loss takes, of {report['rows']}, {report['trials']} sequences each; "
        f"{report['fewest']} at least.",
        "",
        head,
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in report["cases"]:
        counts = " | ".join(str(one[key]) for key in ("median_rows", "rows_of_9_in_10", "most_rows"))
        shares = " | ".join(f"{one[key]:.1%}" for key in ("passes", "fails", "passes_without"))
        lines.append(f"| {one['pair']} | {one['level']:g} | {one['effect']:g} | {counts} | {shares} |")
    if timed := report.get("seconds"):
        cpus = report["machine"]["cpus"]
        lines += [
            "",
            f"{timed['rows']} rows with {timed['tokens']:,} tokens took a Q4_K_M of the {timed['shape']} shape "
            f"{timed['seconds']:,} s on {cpus} CPUs.",
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
