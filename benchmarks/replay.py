"""What replaying general texts keeps of what a base knew, and what it costs of what is learnt: a training a share.

    python -m benchmarks.replay                          starter-m, shares 0 to 0.2, on two cores about half an hour
    python -m benchmarks.replay --models starter-s       in a quarter of that

Each share is prepared and trained from nothing as the stages do it. Gain is by how many nats a token the loss on the
test split falls, forgetting by how many it rises on each general set; their bounds hold with 95% confidence. Of each
model the least share counts whose forgetting is below LEFT of that without replay on every set, beyond doubt. Prints a
table, and writes benchmarks/results/replay.json and replay.md.
"""

import argparse
import gc
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.inputs import REPOSITORY
from benchmarks.pipeline import facts
from benchmarks.processes import run_module
from common.files import write_json, write_text
from pipeline.core.composition import compose
from pipeline.core.config import Config, load
from pipeline.core.paths import ADAPTER, PREPARE_REPORT
from pipeline.core.records import PrepareReport
from pipeline.evaluation.general import all_sets, by_set, with_general
from pipeline.evaluation.inputs import Material, read_material
from pipeline.evaluation.loss import measure_loss
from pipeline.stages.evaluate import load_model
from pipeline.statistics.intervals import Interval, bootstrap

Nats = list[float | None]  # None where a model has diverged

RESULTS = REPOSITORY / "benchmarks/results"
SHARES = (0.0, 0.05, 0.1, 0.15, 0.2)
DATA = ["data=starter-replay", "tracking.enabled=false"]
KEPT = 0.95  # of the gain, at least
LEFT = 0.3  # of the forgetting, at most
NATS = 4  # digits


class Change(TypedDict):
    """By how many nats a token a loss fell, or rose, and its 95% confidence interval."""

    nats: float
    low: float
    high: float


class Trained(TypedDict):
    """What came of a training."""

    model: str
    share: float
    replayed: int  # rows
    train: int  # rows, those among them
    gain: Change
    forgetting: dict[str, Change]  # by general set


def main() -> None:
    """Train and measure each share of each model and write the result; or measure one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["starter-m"])
    parser.add_argument("--shares", nargs="+", type=float, default=list(SHARES))
    parser.add_argument("--measure", type=Path, help="measure what was trained in this folder alone, into the file")
    parser.add_argument("overrides", nargs="*", help="of prepare and train, as train.max_steps=130")
    arguments = parser.parse_args()
    if arguments.measure:
        write_json(arguments.measure, measure(load(compose(REPOSITORY / "conf", arguments.overrides))))
        return
    found = [
        trained(model, share, arguments.overrides) for model in arguments.models for share in sorted(arguments.shares)
    ]
    write_json(RESULTS / "replay.json", {**facts(), "overrides": arguments.overrides, "trained": found})
    write_text(RESULTS / "replay.md", as_markdown(found))
    print_table(found)


def trained(model: str, share: float, more: Sequence[str]) -> Trained:
    """Return what comes of a training with a share of replay, in a folder of its own."""
    overrides = [f"model={model}", *DATA, f"data.replay.share={share}", *more]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for there in ("starter", "general"):
            (folder / there).symlink_to(REPOSITORY / there)
        for stage in ("prepare", "train"):
            run_module(folder, f"pipeline.stages.{stage}", *overrides)
        run_module(folder, "benchmarks.replay", "--measure", "measured.json", *overrides)
        found: Trained = json.loads((folder / "measured.json").read_text(encoding="utf-8"))
    Console().print(f"{model}, {share:.0%} replayed: {in_words(found)}", highlight=False)
    return found


def measure(config: Config) -> Trained:
    """Return what came of the training in the working folder."""
    material = with_general(read_material(ADAPTER, config.evaluate, config.train.loss_on, frozenset()))
    prepared = PrepareReport.read(PREPARE_REPORT)
    (base, old), (tuned, new) = (nats(config, material, is_tuned) for is_tuned in (False, True))
    sets = {name: [text.rows for text in texts] for name, texts in material.general.items()}
    weights = by_set(all_sets(material).scored, material)
    return Trained(
        model=config.model.name,
        share=config.data.replay.share if config.data.replay else 0.0,
        replayed=prepared.replay.taken if prepared.replay else 0,
        train=prepared.splits["train"].rows,
        gain=change(difference(base, tuned, material.scored)),
        forgetting={name: change(difference(new[name], old[name], weights[name])) for name in sets},
    )


def nats(config: Config, material: Material, tuned: bool) -> tuple[Nats, dict[str, Nats]]:
    """Return what a model's loss on each test conversation and each general text is."""
    model = load_model(config, tuned)
    size, pad = config.evaluate.batch_size, material.tokenizer.pad_token_id
    own, general = (
        part.by_conversation(measure_loss(model, part.rows, size, pad).nats) for part in (material, all_sets(material))
    )
    del model
    gc.collect()
    return own, by_set(general, material)


def difference(one: Nats, other: Nats, weights: Sequence[float]) -> Interval:
    """Return by how much the first loss is above the other."""
    return bootstrap(np.array(one, dtype=np.float64) - np.array(other, dtype=np.float64), weights)


def change(interval: Interval) -> Change:
    """Return an interval as it is written."""
    value, low, high = (round(float(bound), NATS) for bound in interval)
    return Change(nats=value, low=low, high=high)


def least(found: Sequence[Trained]) -> Trained | None:
    """Return the training with the least share that forgets at most LEFT of what none does, beyond doubt."""
    without = next(one for one in found if not one["share"])
    held = (
        one
        for one in sorted(found, key=lambda one: one["share"])
        if all(now["high"] <= LEFT * without["forgetting"][name]["nats"] for name, now in one["forgetting"].items())
    )
    return next(held, None)


def in_words(found: Trained) -> str:
    """Return the figures of a training."""
    lost = ", ".join(f"{name} {one['nats']:+.4f}" for name, one in found["forgetting"].items())
    return f"gain {found['gain']['nats']:.4f}, forgetting: {lost}"


def rows_of(found: Sequence[Trained]) -> list[list[str]]:
    """Return the cells of each training, beside what comes of none replayed."""
    cells = []
    for one in found:
        without = next(other for other in found if other["model"] == one["model"] and not other["share"])
        own = [other for other in found if other["model"] == one["model"]]
        mark = " (least that holds)" if one is least(own) else ""
        kept = one["gain"]["nats"] / without["gain"]["nats"]
        lost = [
            f"{now['nats']:+.4f} ({now['low']:+.4f} to {now['high']:+.4f}), "
            f"{1 - now['nats'] / without['forgetting'][name]['nats']:.0%} less"
            for name, now in one["forgetting"].items()
        ]
        rows = f"{one['replayed']:,} of {one['train']:,}"
        gain = f"{one['gain']['nats']:.4f} ({one['gain']['low']:.4f} to {one['gain']['high']:.4f})"
        cells.append([one["model"], f"{one['share']:.0%}{mark}", rows, gain, f"{kept:.1%}", *lost])
    return cells


def heads(found: Sequence[Trained]) -> list[str]:
    """Return what stands above the cells."""
    return [
        "model",
        "share",
        "rows replayed",
        "gain, nats",
        "gain kept",
        *(f"forgetting, {name}" for name in found[0]["forgetting"]),
    ]


def as_markdown(found: Sequence[Trained]) -> str:
    """Return the table as Markdown."""
    lines = [heads(found), ["---"] * len(heads(found)), *rows_of(found)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def print_table(found: Sequence[Trained]) -> None:
    """Print the table."""
    table = Table(*heads(found), title="replay")
    for cells in rows_of(found):
        table.add_row(*cells)
    Console().print(table)


if __name__ == "__main__":
    main()
