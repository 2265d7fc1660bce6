"""How many rows go through the model at once: as set, or the most that fit on the card."""

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch

from pipeline.errors import UserError
from pipeline.files import write_json
from pipeline.training.trainer import Trainer

RECORD = "micro_batch.json"
MEMORY_SHARE = 0.92  # of what is free on the card; the rest is for fragments and other lengths
CPU_ROWS = 8  # more rows at once are no faster there


def recorded(folder: Path, device: str) -> int | None:
    """The micro-batch that a training in `folder` went on with on such a device."""
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return record["rows"] if record["device"] == device_name(device) else None
    except (ValueError, KeyError, TypeError):  # damaged: as if it were not there
        return None


def record(folder: Path, device: str, rows: int) -> None:
    """Keeps the micro-batch for the next part of the training."""
    write_json(folder / RECORD, {"rows": rows, "device": device_name(device)})


def device_name(device: str) -> str:
    """`cpu`, or the card's name."""
    return torch.cuda.get_device_name() if device == "cuda" else device


def halved(rows: int, update_size: int) -> int:
    """The largest micro-batch of at most half of `rows` that divides an update.

    Raises:
        UserError: it is one row already.
    """
    smaller = [size for size in divisors(update_size) if size <= rows // 2]
    if not smaller:
        raise UserError(
            "the GPU's memory does not hold one row; lower train.max_length or train.lora.r, set "
            "train.gradient_checkpointing=true, or take train=qlora with a 4-bit model"
        )
    return smaller[-1]


def divisors(number: int) -> list[int]:
    """All that divide `number`, ascending."""
    return [size for size in range(1, number + 1) if number % size == 0]


def largest(update_size: int, trial: Trainer | None) -> int:
    """The largest divisor of an update's rows that fits the GPU, tried from above; without a `trial`, at most CPU_ROWS.

    Raises:
        UserError: not even one row fits.
    """
    sizes = reversed(divisors(update_size))
    rows = next((rows for rows in sizes if (rows <= CPU_ROWS if trial is None else fits_on_gpu(trial, rows))), 0)
    return rows or halved(1, update_size)


def fits_on_gpu(trainer: Trainer, rows: int) -> bool:
    """Whether the `rows` longest rows fit, forward, backward and with the optimizer's state; nothing is learnt."""
    dataset: Any = trainer.train_dataset
    lengths = [len(ids) for ids in dataset["input_ids"]]
    longest = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)[:rows]
    examples = [dataset[index] for index in longest] * -(-rows // len(longest))
    model, collate = trainer.trained_model, cast(Callable, trainer.data_collator)
    free_memory()
    available = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
    torch.cuda.set_per_process_memory_fraction(MEMORY_SHARE * available / torch.cuda.mem_get_info()[1])
    try:
        if trainer.args.gradient_checkpointing:  # which `train` would switch on
            cast(Any, model).gradient_checkpointing_enable(trainer.args.gradient_checkpointing_kwargs)
        model.train()
        batch = {key: value.to("cuda") for key, value in collate(examples[:rows]).items()}
        with torch.autocast("cuda", dtype=torch.bfloat16):
            trainer.compute_loss(model, batch).backward()
        # AdamW's two moments stand beside the gradients from the first update on.
        _ = [torch.empty_like(p, dtype=torch.float32) for p in model.parameters() if p.requires_grad for _ in range(2)]
        return True
    except torch.OutOfMemoryError:
        return False
    finally:
        model.zero_grad(set_to_none=True)
        torch.cuda.set_per_process_memory_fraction(1.0)


def free_memory() -> None:
    """Gives back what no tensor holds any more, and measures the peak anew."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
