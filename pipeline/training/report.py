"""What a training cost: time, throughput, memory, arithmetic, and how much of the model learnt."""

from collections.abc import Mapping
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel

from common.words import GIB
from pipeline.training.lora import Model, without_adapter
from pipeline.training.plan import this_card
from pipeline.training.trainer import Trainer


def resource_report(trainer: Trainer) -> dict[str, Any]:
    """Return the figures of a training over all its sessions.

    Tokens are those that are no padding, memory is GiB reserved on the GPU, a `_share` is from 0 to 1; `steady_` is
    from the sixth update on, without what is between updates (see Meter). What there is no figure for is None.
    """
    state, meter = trainer.state, trainer.meter
    seconds, epochs, steady = meter.seconds, state.epoch or 0.0, meter.steady_tokens_per_second
    rows = trainer.conversations["train"].rows_of_epoch(trainer.update_size)
    parameters = list(trainer.trained_model.parameters())
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    total = count_parameters(trainer.trained_model)
    card = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None
    return {
        "steps": state.global_step,
        "epochs": round(epochs, 3),
        "best_step": trainer.best_step,
        "sessions": meter.sessions,
        "seconds": round(seconds, 2),
        "samples_per_second": round(epochs * rows / seconds, 2),
        "tokens_per_second": round(state.num_input_tokens_seen / seconds, 1),
        "tokens": state.num_input_tokens_seen,
        "steady_tokens_per_second": _rounded(steady, 1),
        "outside_share": _rounded(meter.outside_share, 4),
        "startup_seconds": _rounded(meter.startup, 1),
        "micro_batch": trainer.conversations["train"].layout.rows,
        "effective_batch": trainer.update_size,
        "processes": trainer.args.world_size,
        "peak_memory_gib": round(meter.peak / GIB, 3) if card else None,
        "peak_memory_training_gib": round(meter.training_peak / GIB, 3) if card else None,
        "peak_memory_share": round(meter.peak / card, 5) if card else None,
        "peak_memory_training_share": round(meter.training_peak / card, 5) if card else None,
        "arithmetic_share": arithmetic_share(trainer, steady),
        "trainable_parameters": trainable,
        "trainable_share": round(trainable / total, 6),
        "train_loss": _last(state.log_history, "loss"),
        "validation_loss": trainer.validation_loss,
        **({} if trainer.validation_accuracy is None else {"validation_accuracy": trainer.validation_accuracy}),
    }


def count_parameters(model: Model) -> int:
    """Return all weights; of those packed in 4 bit, as many as they stand for."""
    return PreTrainedModel.num_parameters(without_adapter(model))


def operations(trainer: Trainer, tokens: float) -> float:
    """Return the operations of the matrix products with weights, for so many tokens.

    A weight costs a token 2 forward, 2 for the gradient of its input and, if it is trained, 2 for its own (Kaplan et
    al. 2020, section 2.1); attention's own products are left out. The head's are for supervised tokens, where it is for
    them alone.
    """
    model = trainer.trained_model
    learnt = trainer.conversations["train"]
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    head = model.get_output_embeddings().get_parameter("weight").numel()
    looked_up = 0 if model.config.tie_word_embeddings else model.get_input_embeddings().get_parameter("weight").numel()
    share = sum(learnt.supervised) / sum(learnt.lengths) if trainer.learns_from_supervised else 1.0
    return tokens * (4 * (count_parameters(model) - looked_up - head + share * head) + 2 * trainable)


def arithmetic_share(trainer: Trainer, tokens_per_second: float | None) -> float | None:
    """Return the share of the card's peak that `operations` take, or None where the peak is unknown."""
    card = this_card(trainer.args.device.type)
    if card is None or card.peak is None or tokens_per_second is None:
        return None
    return round(operations(trainer, tokens_per_second) / (card.peak * trainer.args.world_size), 4)


def print_report(report: Mapping[str, object]) -> None:
    """Print the report as a table."""
    table = Table(title="training", show_header=False)
    for key, value in report.items():
        table.add_row(key.replace("_", " ").replace("gib", "GiB"), _shown(key, value))
    Console().print(table)


def _shown(key: str, value: object) -> str:
    if value is None:
        return "-"
    if key.endswith("_share"):
        return f"{value:.3%}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _last(history: list[dict[str, float]], key: str) -> float | None:
    values = [entry[key] for entry in history if key in entry]
    return round(values[-1], 5) if values else None
