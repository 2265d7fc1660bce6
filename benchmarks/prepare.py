"""What prepare takes in time and memory, and how many near-duplicates it finds.

    python -m benchmarks.prepare                      10,000 and 100,000 conversations of some 2,400 characters
    python -m benchmarks.prepare --rows 1000000       others

Conversations are of drawn words, some of which are common; PLANTED of them are others changed: words swapped, clauses
reordered, case and punctuation, ends cropped. Recall and precision are against the exact overlap of all pairs, at
THRESHOLD. datasketch (MIT) does the same prompts in the same run, where it is installed: `pip install datasketch`.
Seconds are of a processor, of all threads together, so that what else runs on the machine does not count.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import numpy as np

from common.files import write_json
from common.words import GIB
from pipeline.core.composition import CONF, compose
from pipeline.core.config import load
from pipeline.core.formats import Messages
from pipeline.data.exact_join import crossing_pairs
from pipeline.data.folding import fold
from pipeline.data.near_duplicates import PERMUTATIONS, near_pairs, shingle
from pipeline.stages import prepare as stage

RESULT = Path("benchmarks/results/prepare.json")
THRESHOLD = 0.8
PLANTED = 0.1  # share of the rows
VOCABULARY = 20_000
AT_ONCE = 100_000  # conversations, among which the planted ones have their models
STEPS = {"read": "read_all", "duplicates": "drop_repeated", "splits, joined": "divide", "write": "write"}
PROMPT, ANSWER = (20, 150), (150, 700)  # words

Pairs = set[tuple[int, int]]


class Accuracy(TypedDict):
    """How many pairs there are, and what was found of them."""

    pairs: int
    recall: float
    precision: float


def conversations(count: int, draw: random.Random) -> list[Messages]:
    """Return conversations, some of which are others changed."""
    words = [f"w{number}" for number in range(VOCABULARY)]
    weights = np.cumsum(1 / np.arange(1, VOCABULARY + 1)).tolist()
    made: list[Messages] = []
    for number in range(count):
        long, short = draw.randrange(*ANSWER), draw.randrange(*PROMPT)
        answer = " ".join(draw.choices(words, cum_weights=weights, k=long))
        if number and draw.random() < PLANTED:
            prompt = changed(made[draw.randrange(number)][0]["content"], draw)
        else:
            prompt = sentences(draw.choices(words, cum_weights=weights, k=short))
        made.append([{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}])
    return made


def sentences(words: list[str]) -> str:
    """Return words as sentences of twelve."""
    return " ".join(" ".join(words[first : first + 12]).capitalize() + "." for first in range(0, len(words), 12))


def changed(text: str, draw: random.Random) -> str:
    """Return a text with one to three changes that leave it nearly the same."""
    for change in draw.sample((swapped, reordered, recased, cropped), draw.randrange(1, 4)):
        text = change(text, draw)
    return text


def swapped(text: str, draw: random.Random) -> str:
    """Return a text with two neighbours swapped."""
    words = text.split()
    place = draw.randrange(len(words) - 1)
    words[place : place + 2] = words[place : place + 2][::-1]
    return " ".join(words)


def reordered(text: str, draw: random.Random) -> str:
    """Return a text whose last sentence comes first."""
    first, mark, last = text.rstrip(".").rpartition(". ")
    return f"{last}. {first}." if mark else text


def recased(text: str, draw: random.Random) -> str:
    """Return a text in capitals with other punctuation."""
    return text.upper().replace(".", " !")


def cropped(text: str, draw: random.Random) -> str:
    """Return a text without its last words."""
    return " ".join(text.split()[: -draw.randrange(1, 4)])


def accuracy(found: Pairs, right: Pairs) -> Accuracy:
    """Return recall and precision."""
    both = len(found & right)
    return {"pairs": len(right), "recall": both / len(right), "precision": both / max(len(found), 1)}


def ours(prompts: list[str]) -> Pairs:
    """Return the pairs that prepare finds."""
    return {(one, other) for one, other in near_pairs(shingle(prompts), THRESHOLD).tolist()}


def exact(prompts: list[str]) -> Pairs:
    """Return the pairs that there are; the tests hold the join against each pair compared with each."""
    every = np.arange(len(prompts))
    pairs = crossing_pairs(shingle(prompts), every, every, THRESHOLD).tolist()
    return {(one, other) for one, other in pairs if one < other}


def datasketch(prompts: list[str]) -> Pairs:
    """Return the pairs that datasketch finds: those of its index whose estimate reaches the threshold."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    sketches: dict[int, MinHash] = {}
    found: Pairs = set()
    for number, prompt in enumerate(prompts):
        words = prompt.split()
        sketch = MinHash(num_perm=PERMUTATIONS)
        sketch.update_batch({" ".join(words[n : n + 3]).encode() for n in range(max(len(words) - 2, 1))})
        near = [other for other in index.query(sketch) if sketch.jaccard(sketches[other]) >= THRESHOLD]
        found |= {(other, number) for other in near}
        index.insert(number, sketch)
        sketches[number] = sketch
    return found


def has_datasketch() -> bool:
    """Return whether datasketch is installed."""
    try:
        import datasketch  # noqa: F401
    except ImportError:
        return False
    return True


def seconds_of(find: Callable[[list[str]], Pairs], prompts: list[str]) -> float:
    """Return the seconds that a tool takes."""
    started = time.process_time()
    find(prompts)
    return round(time.process_time() - started, 2)


def steps(file: Path, out: Path) -> dict[str, float]:
    """Return the seconds of each step of prepare on a file of rows, and the peak of memory in GiB."""
    seconds: dict[str, float] = {}

    def timed(name: str, step: Callable[..., object]) -> Callable[..., object]:
        def run(*arguments: object) -> object:
            started = time.process_time()
            result = step(*arguments)
            seconds[name] = round(time.process_time() - started, 2)
            return result

        return run

    for name, function in STEPS.items():
        setattr(stage, function, timed(name, getattr(stage, function)))
    started = time.process_time()
    settings = replace(load(compose(CONF, ["data=local"])).data, files=[file.name])
    with redirect_stdout(sys.stderr):
        stage.prepare(settings, file.parent, out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
    return {**seconds, "all": round(time.process_time() - started, 2), "peak GiB": round(peak, 2)}


def measured(rows: int) -> dict[str, float]:
    """Return what prepare takes for so many conversations, in a process of its own."""
    with tempfile.TemporaryDirectory(dir=".", prefix=".prepare-", suffix=".tmp") as folder:
        file = Path(folder) / "rows.jsonl"
        with file.open("w", encoding="utf-8") as lines:
            for first in range(0, rows, AT_ONCE):
                some = conversations(min(AT_ONCE, rows - first), random.Random(first))
                lines.writelines(json.dumps({"messages": row}) + "\n" for row in some)
        megabytes = file.stat().st_size // 10**6
        command = [sys.executable, "-m", "benchmarks.prepare", "--file", str(file)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {"megabytes": megabytes, **json.loads(done.stdout)}


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000], help="conversations")
    parser.add_argument("--planted", type=int, default=20_000, help="those that recall is measured on")
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)  # of a process that measures
    options = parser.parse_args()
    if options.file:
        print(json.dumps(steps(options.file, options.file.parent / "out")))
        return
    texts = [fold(row[0]["content"]) for row in conversations(AT_ONCE, random.Random(0))]
    some = texts[: options.planted]
    right = exact(some)
    tools = {"ours": ours} | ({"datasketch": datasketch} if has_datasketch() else {})
    result = {
        "prepare, CPU seconds": {f"{rows} rows": measured(rows) for rows in options.rows},
        "planted": {"rows": len(some), "threshold": THRESHOLD}
        | {name: accuracy(find(some), right) for name, find in tools.items()},
        "near-duplicates, CPU seconds": {"prompts": len(texts)}
        | {name: seconds_of(find, texts) for name, find in tools.items()},
    }
    write_json(RESULT, result)
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
