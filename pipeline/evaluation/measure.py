"""What each model is measured by, the same for Transformers' models and for GGUF files."""

import functools
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from transformers import PreTrainedModel

from llama.model import Weights
from pipeline.evaluation.answers import Answer, Reply, answer_all, answer_timed
from pipeline.evaluation.gguf_scores import answer_alone, answer_together, row_nats
from pipeline.evaluation.harness import model_task_scores
from pipeline.evaluation.inputs import Material
from pipeline.evaluation.loss import measure_loss

Cached = Callable[[str, Callable[[], Any]], Any]  # a measurement's name, and what takes it where that is to be done


class Measured(TypedDict):
    """What was found of a model."""

    nats: list[float | None]  # of each conversation; null is no finite number
    replies: list[Reply]  # to the questions
    answers: list[Answer]  # to the prompts
    samples_per_second: NotRequired[float]  # rows
    tasks: NotRequired[dict[str, float]]  # scores of lm-evaluation-harness


def measure_model(name: str, model: Callable[[], PreTrainedModel], material: Material, cached: Cached) -> Measured:
    """Measure one of Transformers' models, loaded by `model` when something is still to be measured.

    With the harness's scores.

    Raises:
        UserError: the model cannot be loaded, the GPU is too small for it, or a task cannot be asked.
    """
    tokenizer, settings = material.tokenizer, material.settings
    most, size, ends = settings.max_new_tokens, settings.batch_size, material.ends
    loss = cached(f"{name}-loss", lambda: measure_loss(model(), material.rows, size, tokenizer.pad_token_id)._asdict())
    measured: Measured = {
        "nats": material.by_conversation(loss["nats"]),
        "samples_per_second": loss["samples_per_second"],
        "replies": cached(
            f"{name}-questions", lambda: answer_all(model(), tokenizer, material.chats, most, size, ends)
        ),
        "answers": cached(f"{name}-prompts", lambda: answer_timed(model(), tokenizer, settings.prompts, most, ends)),
    }
    if settings.tasks:
        measured["tasks"] = cached(f"{name}-tasks", lambda: model_task_scores(model(), tokenizer, settings).scores)
    return measured


def measure_file(name: str, path: Path, material: Material, cached: Cached) -> Measured:
    """Measure a GGUF, in the llama.cpp that serves; it is loaded when something is still to be measured.

    Raises:
        UserError: the file cannot be loaded, or a question leaves no room for an answer.
    """
    settings, most = material.settings, material.settings.max_new_tokens
    with ExitStack() as stack:
        weights = functools.cache(lambda: stack.enter_context(Weights(path)))
        nats = cached(f"{name}-loss", lambda: row_nats(weights(), material.rows))
        return {
            "nats": material.by_conversation(nats),
            "replies": cached(
                f"{name}-questions", lambda: answer_together(weights(), material.chats, most, material.longest_chat)
            ),
            "answers": cached(f"{name}-prompts", lambda: answer_alone(weights(), settings.prompts, most)),
        }
