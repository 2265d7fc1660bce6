"""What checkpoints cost a training of starter-m, and what their digests add to Transformers' plain saving.

    make bench            writes benchmarks/results/checkpoints.json and prints the table; needs a finished `make repro`

One training of 100 updates with a save every 50. The peer saves the same state by Transformers alone: no digests,
nothing forced to the disk, no rotation.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from transformers import Trainer as PlainTrainer

from benchmarks.pipeline import cpu_trainer, facts
from common.files import write_json
from pipeline.core.config import load
from pipeline.stages.compose import PARAMS, read_params
from pipeline.training.trainer import Trainer

RESULT = Path("benchmarks/results/checkpoints.json")
UPDATES, SAVE_STEPS = 100, 50
REPEATS = 5


def main() -> None:
    """Train, measure and write the result."""
    config = load(read_params(PARAMS))
    settings = replace(config.train, max_steps=UPDATES, save_steps=SAVE_STEPS, eval_steps=10 * UPDATES)
    with tempfile.TemporaryDirectory() as folder:
        trainer: Any = cpu_trainer(replace(config, train=settings), Path(folder))
        saves: list[float] = []
        trainer._save_checkpoint = lambda *state: saves.append(_seconds(Trainer._save_checkpoint, trainer, *state))
        seconds = _seconds(trainer.train)
        saved = Path(folder) / f"checkpoint-{UPDATES}"
        size = sum(path.stat().st_size for path in saved.rglob("*") if path.is_file())
        ours, peer = (
            median(_seconds(kind._save_checkpoint, trainer, trainer.model, None) for _ in range(REPEATS))
            for kind in (Trainer, PlainTrainer)
        )
    result = {
        "model": config.model.name,
        "updates": UPDATES,
        "save_steps": SAVE_STEPS,
        "training_seconds": round(seconds, 2),
        "saving_seconds": round(sum(saves), 3),
        "saving_share": round(sum(saves) / seconds, 5),
        "checkpoint_bytes": size,
        "seconds_a_save": round(ours, 4),
        "seconds_a_plain_save": round(peer, 4),
        "ratio": round(ours / peer, 3),
    }
    write_json(RESULT, {**facts(), "measured": result})
    print(f"saving took {sum(saves) / seconds:.2%} of {seconds:.1f} s")
    print(f"one save {ours:.3f} s, Transformers' alone {peer:.3f} s, of {size / 1e6:.1f} MB")


def _seconds(work: Callable, *arguments: Any) -> float:
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
