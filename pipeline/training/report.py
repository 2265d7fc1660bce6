"""What a training cost: time, throughput, memory, and how much of the model learnt."""

from typing import Any, cast

import torch
from rich.console import Console
from rich.table import Table
from trl import SFTTrainer

from pipeline.training.callbacks import Clock

GIB = 2**30


def resource_report(trainer: SFTTrainer) -> dict[str, Any]:
    """The figures of a finished training; tokens are those that are no padding, memory is GiB reserved on the GPU."""
    state, args = trainer.state, trainer.args
    # Not the clock that was handed in: a resumed trainer has put a new one in its place.
    seconds = next(c.seconds for c in trainer.callback_handler.callbacks if isinstance(c, Clock))
    samples = state.global_step * args.train_batch_size * args.gradient_accumulation_steps
    parameters = list(trained_model(trainer).parameters())
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    return {
        "steps": state.global_step,
        "epochs": round(state.epoch or 0.0, 3),
        "seconds": round(seconds, 2),
        "samples_per_second": round(samples / seconds, 2),
        "tokens_per_second": round(state.num_input_tokens_seen / seconds, 1),
        "tokens": state.num_input_tokens_seen,
        "peak_memory_reserved_gib": peak_memory(),
        "trainable_parameters": trainable,
        "trainable_share": round(trainable / sum(p.numel() for p in parameters), 6),
        "train_loss": _last(state.log_history, "loss"),
        "validation_loss": _last(state.log_history, "eval_loss"),
    }


def trained_model(trainer: SFTTrainer) -> torch.nn.Module:
    """The trainer's model; its types call it optional, which it is not once built."""
    return cast(torch.nn.Module, trainer.model)


def peak_memory() -> float | None:
    """GiB reserved on the GPU at most, or nothing on a CPU."""
    return round(torch.cuda.max_memory_reserved() / GIB, 3) if torch.cuda.is_available() else None


def print_report(report: dict[str, Any]) -> None:
    """The report as a table."""
    table = Table(title="training", show_header=False)
    for key, value in report.items():
        text = "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
        table.add_row(key.replace("_", " "), text)
    Console().print(table)


def _last(history: list[dict[str, Any]], key: str) -> float | None:
    values = [entry[key] for entry in history if key in entry]
    return round(values[-1], 5) if values else None
