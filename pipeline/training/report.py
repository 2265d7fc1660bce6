"""What a training cost: time, throughput, memory, arithmetic, and how much of the model learnt."""

from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel

from pipeline.training.trainer import Trainer

GIB = 2**30
# Dense matrix products in bf16 (fp16 on the two oldest), TFLOP/s, as the makers' data sheets have them. A name that
# another one begins with comes first.
PEAK_TFLOPS = {
    "B200": 2250, "H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "A10G": 70,
    "A10": 125, "RTX 4090": 165, "RTX 3090": 71, "A6000": 155, "V100": 125, "T4": 65,
}  # fmt: skip


def resource_report(trainer: Trainer) -> dict[str, Any]:
    """The figures of a training over all its parts.

    Tokens are those that are no padding, memory is GiB reserved on the GPU, a `_share` is from 0 to 1. What a CPU has
    no figure for is None.
    """
    state, meter = trainer.state, trainer.meter
    seconds, epochs = meter.seconds, state.epoch or 0.0
    parameters = list(trainer.trained_model.parameters())
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    total = count_parameters(trainer.trained_model)
    tokens_per_second = state.num_input_tokens_seen / seconds
    card = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None
    return {
        "steps": state.global_step,
        "epochs": round(epochs, 3),
        "best_step": trainer.best_step,
        "parts": meter.parts,
        "seconds": round(seconds, 2),
        "samples_per_second": round(epochs * trainer.conversations / seconds, 2),
        "tokens_per_second": round(tokens_per_second, 1),
        "tokens": state.num_input_tokens_seen,
        "micro_batch": trainer.args.per_device_train_batch_size,
        "effective_batch": trainer.args.per_device_train_batch_size * trainer.args.gradient_accumulation_steps,
        "peak_memory_gib": round(meter.peak / GIB, 3) if card else None,
        "peak_memory_training_gib": round(meter.training_peak / GIB, 3) if card else None,
        "peak_memory_share": round(meter.peak / card, 5) if card else None,
        "peak_memory_training_share": round(meter.training_peak / card, 5) if card else None,
        "arithmetic_share": arithmetic_share(trainer.trained_model, tokens_per_second),
        "trainable_parameters": trainable,
        "trainable_share": round(trainable / total, 6),
        "train_loss": _last(state.log_history, "loss"),
        "validation_loss": trainer.validation_loss,
    }


def count_parameters(model: Any) -> int:
    """All weights; of those packed in 4 bit, as many as they stand for."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return PreTrainedModel.num_parameters(base)


def arithmetic_share(model: Any, tokens_per_second: float) -> float | None:
    """The share of the card's peak that the matrix products with weights take, or None where the peak is unknown.

    A weight costs a token 2 operations forward, 2 for the gradient of its input and, if it is trained, 2 for its own
    (Kaplan et al. 2020, section 2.1); attention's own products are left out.
    """
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    peak = next((peak for card, peak in PEAK_TFLOPS.items() if card in name), None)
    if peak is None:
        return None
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    looked_up = 0 if model.config.tie_word_embeddings else model.get_input_embeddings().weight.numel()
    operations = 4 * (count_parameters(model) - looked_up) + 2 * trainable
    return round(operations * tokens_per_second / (peak * 1e12), 4)


def print_report(report: dict[str, Any]) -> None:
    """The report as a table."""
    table = Table(title="training", show_header=False)
    for key, value in report.items():
        table.add_row(key.replace("_", " ").replace("gib", "GiB"), _shown(key, value))
    Console().print(table)


def _shown(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if key.endswith("_share"):
        return f"{value:.3%}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _last(history: list[dict[str, Any]], key: str) -> float | None:
    values = [entry[key] for entry in history if key in entry]
    return round(values[-1], 5) if values else None
