"""How much goes through the model at once, activations kept or recomputed: as set, or as the GPU's memory allows."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from common.errors import UserError
from common.files import write_json
from common.words import counted
from pipeline.models.loading import device_name
from pipeline.training.shared import free_memory
from pipeline.training.trainer import Trainer

RECORD = "micro_batch.json"
MEMORY_SHARE = 0.9  # of what is free on the card; the rest is for fragments
CPU_ROWS, CPU_TOKENS = 8, 1024  # more at once are no faster there, and need more padding
ENOUGH_ROWS = 2  # of full length keep a GPU busy: with no fewer, activations are kept


@dataclass(frozen=True)
class BatchSize:
    """What a training went on with on a device; the next session of it goes on with the same, for the same digits."""

    device: str
    asked: str  # by the settings
    rows: int
    checkpointing: bool
    compile: bool

    def __str__(self) -> str:
        kept, compiled = "recomputed" if self.checkpointing else "kept", "" if self.compile else "not "
        return f"{counted(self.rows, 'row')} at once, activations {kept}, layers {compiled}compiled"


def recorded(folder: Path, device: str, requested: str) -> BatchSize | None:
    """Return how a training in `folder` went on, on such a device with the same settings."""
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        size = BatchSize(**json.loads(path.read_text(encoding="utf-8")))
        return size if (size.device, size.asked) == (device_name(device), requested) else None
    except (ValueError, TypeError):  # damaged: as if it were not there
        return None


def record(folder: Path, size: BatchSize) -> None:
    """Keep a batch size for the next session of the training."""
    write_json(folder / RECORD, asdict(size))


def halved(rows: int) -> int:
    """Return half as many rows.

    Raises:
        UserError: it is one row already.
    """
    if rows == 1:
        raise UserError(
            "the GPU's memory does not hold one row; lower train.max_length or train.lora.r, set "
            "train.gradient_checkpointing=offload, or take train=qlora with a 4-bit model"
        )
    return rows // 2


def rows_and_checkpointing(
    trainer: Trainer, rows: int | None, checkpointing: bool | None, most: int
) -> tuple[int, bool, str]:
    """Return what of the two is not given, from a trial on the GPU, and why; nothing is learnt.

    Args:
        trainer: that will train.
        rows: conversations of full length at once; None for as many as size, up to `most`.
        checkpointing: whether activations are recomputed; None for where they do not size.
        most: rows that an update has use for.

    Raises:
        UserError: not even one row fits.
    """
    if rows is not None and checkpointing is not None:
        return rows, checkpointing, "asked for"
    if not checkpointing:
        fitting = rows_that_fit(trainer, False)
        enough = rows or min(most, ENOUGH_ROWS)
        if fitting >= enough or checkpointing is False:
            return rows or min(fitting, most) or halved(1), False, f"{fitting} would fit with all activations kept"
    if rows is not None:
        return rows, True, f"{counted(rows, 'row')} would not fit with all activations kept"
    fitting = rows_that_fit(trainer, True)
    return min(fitting, most) or halved(1), True, f"{fitting} would fit with activations recomputed"


def rows_that_fit(trainer: Trainer, checkpointing: bool) -> int:
    """Return rows of full length that the GPU's free memory holds, from what one row and two take.

    It grows linearly.
    """
    trained = [p for p in trainer.trained_model.parameters() if p.requires_grad]
    free_memory()
    available = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
    try:
        (one, tokens), (two, more_tokens) = (trainer.memory_of(rows, checkpointing) for rows in (1, 2))
    except torch.OutOfMemoryError:
        return 0
    per_row = max(two - one, 1) / (more_tokens - tokens) * trainer.row_tokens
    fixed = one - per_row * tokens / trainer.row_tokens + 8 * sum(p.numel() for p in trained)  # AdamW's two moments
    free_memory()
    return max(0, int((MEMORY_SHARE * available - fixed) / per_row))


def cpu_rows(trainer: Trainer) -> int:
    """Return rows at once on a CPU: of so many tokens on average."""
    lengths = trainer.conversations["train"].lengths
    return max(1, min(trainer.update_size, CPU_ROWS, CPU_TOKENS * len(lengths) // sum(lengths)))
