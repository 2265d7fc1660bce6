"""What two trainings of the same data differ by, row by row: what benchmarks/verdicts.py draws its pairs from.

    python -m benchmarks.row_differences     half an hour on two cores; needs a package index for SmolLM2

The starter is trained twice, with different seeds, SmolLM2-135M (on GSM8K, of which --gsm8k names the folder) once, and
exported; each file is measured on the same test rows and questions by the evaluation's own functions. Writes
benchmarks/results/row-differences.json: of each model tokens and, by pair, nats that the old file needs more than the
new one, and which questions each answered right.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np

from benchmarks.inputs import REPOSITORY
from common.files import write_json
from pipeline.core.composition import compose
from pipeline.core.config import Config, load
from pipeline.core.paths import ADAPTER, GGUF, MANIFEST
from pipeline.core.records import Manifest
from pipeline.data.grading import is_right
from pipeline.evaluation.answers import Reply
from pipeline.evaluation.gguf_scores import answer_together, end_tokens, row_nats
from pipeline.evaluation.inputs import Material, read_material

RESULT = REPOSITORY / "benchmarks/results/row-differences.json"
DIGITS = 3
COMMON = ["tracking=none", "runtime.device=cpu", "export.quantizations=[F16,Q4_K_M]", "export.base=[F16]"]
STARTER = [
    *("model=starter-s", f"model.path={REPOSITORY}/starter/models/starter-s", "train.max_steps=130"),
    *("data.files=[chats.jsonl]", "data.questions=questions.jsonl", "data.test=500"),
]
SMOLLM2 = [
    *("experiment=gsm8k", "data.files=[train.jsonl]", "data.questions=null", "data.test=200", "data.max_rows=600"),
    *("train.max_steps=4", "train.effective_batch=8", "train.max_length=256", "train.max_truncated=1"),
    *("evaluate.max_length=256", "evaluate.max_rows=100"),
]
STARTER_FILES, SMOLLM2_FILES = ("chats.jsonl", "questions.jsonl"), ("train.jsonl",)
SETTINGS, SEEDS = {"starter-s": STARTER, "SmolLM2-135M": SMOLLM2}, {"starter-s": (1, 2), "SmolLM2-135M": (1,)}
# The new file against the old one, each a training's seed and a file of it.
PAIRS = {
    "another seed": ((2, "F16"), (1, "F16")),
    "Q4_K_M against F16": ((1, "Q4_K_M"), (1, "F16")),
    "tuned against base": ((1, "F16"), (1, "base-F16")),
}


class Measured(NamedTuple):
    """What was found of a file."""

    nats: np.ndarray
    right: list[bool]


class Pair(TypedDict):
    """What a new file needs less than an old one, in the file of results."""

    nats: list[float]  # of each row
    new_right: str  # a digit for each question: 1 where it was answered right
    old_right: str


class OfModel(TypedDict):
    """The pairs of a model's files."""

    tokens: list[int]  # of each row
    pairs: dict[str, Pair]


def main() -> None:
    """Measure both models and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gsm8k", type=Path, default=REPOSITORY / "data/raw/gsm8k", help="folder of its train.jsonl")
    parser.add_argument("--keep", type=Path, help="folder in which trainings are left, and gone on with")
    parser.add_argument("--models", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    arguments = parser.parse_args()
    sources = {"starter-s": (REPOSITORY / "starter", STARTER_FILES), "SmolLM2-135M": (arguments.gsm8k, SMOLLM2_FILES)}
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.models:
            place, (folder, files) = (arguments.keep or Path(temporary)) / name, sources[name]
            found = differences(place, SETTINGS[name], [folder / file for file in files], SEEDS[name])
            others = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
            write_json(RESULT, others | {name: found})


def differences(folder: Path, settings: Sequence[str], sources: Sequence[Path], seeds: Sequence[int]) -> OfModel:
    """Return tokens, nats and right answers of each pair of files, trained in `folder` with these seeds."""
    measured: dict[tuple[int, str], Measured] = {}
    made = {name: both for name, both in PAIRS.items() if {seed for seed, _ in both} <= set(seeds)}
    for seed in seeds:
        place = folder / str(seed)
        train(place, [*COMMON, *settings, f"train.seed={seed}"], sources)
        wanted = {name for both in made.values() for of, name in both if of == seed}
        with chdir(place):
            material = read(load(compose(REPOSITORY / "conf", [*COMMON, *settings])))
            files = Manifest.read(GGUF / MANIFEST).models
            measured |= {(seed, name): measure(GGUF / files[name].file, material) for name in sorted(wanted)}
    pairs = {name: pair(measured[new], measured[old]) for name, (new, old) in made.items()}
    return {"tokens": material.scored, "pairs": pairs}


def train(folder: Path, settings: Sequence[str], sources: Sequence[Path]) -> None:
    """Prepare, train and export in a folder, where that is still to be done."""
    folder.mkdir(parents=True, exist_ok=True)
    for source in sources:
        shutil.copy(source, folder)
    for stage, made in (("prepare", "data/prepared"), ("train", "models/adapter"), ("export", "models/gguf")):
        if not (folder / made).exists():
            command = [sys.executable, "-m", "pipeline", stage, *settings, "hydra.output_subdir=null"]
            subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, check=True)


def read(config: Config) -> Material:
    """Return the test rows and questions of the working folder."""
    first = next(iter(Manifest.read(GGUF / MANIFEST).models.values()))
    return read_material(ADAPTER, config.evaluate, config.train.loss_on, end_tokens(GGUF / first.file))


def measure(path: Path, material: Material) -> Measured:
    """Return nats of each conversation and which questions a file answers right."""
    nats = material.by_conversation(row_nats(path, material.rows))
    replies: list[Reply] = []
    if material.questions:
        replies = answer_together(path, material.chats, material.settings.max_new_tokens, material.longest_chat)
    right = [is_right(one, reply["reply"]) for one, reply in zip(material.questions, replies, strict=True)]
    return Measured(np.array(nats, dtype=np.float64), right)


def pair(new: Measured, old: Measured) -> Pair:
    """Return what a new file needs less than an old one on each row, and of each question whether it is right."""
    falls = np.round(old.nats - new.nats, DIGITS).tolist()
    return {"nats": falls, "new_right": shorter(new.right), "old_right": shorter(old.right)}


def shorter(right: Sequence[bool]) -> str:
    """Return a digit for each question: 1 where it was answered right."""
    return "".join(str(int(one)) for one in right)


if __name__ == "__main__":
    main()
