"""What each model is measured by, the same for Transformers' models and for GGUF files.

Each takes the first so many conversations and questions; what the cache has of them is read, the rest measured.
"""

import functools
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NotRequired, TypedDict

from transformers import PreTrainedModel

from common.files import sha256
from llama.model import Weights
from pipeline.core.config import EvaluateSettings
from pipeline.core.task_files import task_files
from pipeline.evaluation import answers, gguf_scores, preferences
from pipeline.evaluation.answers import Answer, Reply
from pipeline.evaluation.general import all_sets, by_set
from pipeline.evaluation.harness import model_task_scores, task_scores
from pipeline.evaluation.inputs import Extent, Material
from pipeline.evaluation.loss import each_nats
from pipeline.evaluation.measurement_cache import Each, MeasurementCache


class AskedTasks(TypedDict):
    """What was found of tasks of lm-evaluation-harness, by their names."""

    scores: dict[str, float]
    items: dict[str, list[float]]  # what each question adds to the score


class Measured(TypedDict):
    """What was found of a model."""

    nats: list[float | None]  # of each conversation; null is no finite number
    replies: list[Reply]  # to the questions
    answers: list[Answer]  # to the prompts
    samples_per_second: NotRequired[float | None]  # rows
    general: NotRequired[dict[str, list[float | None]]]  # nats of each general text, by set
    preferred: NotRequired[list[bool | None]]  # of each pair of answers, whether the chosen one is likelier
    tasks: NotRequired[AskedTasks]
    memory: NotRequired[int]  # bytes that serving a file takes


def measure_model(
    name: str,
    model: Callable[[], PreTrainedModel],
    material: Material,
    cache: MeasurementCache,
    extent: Extent,
    has_file: bool,
) -> Measured:
    """Measure one of Transformers' models, loaded by `model` when something is still to be measured.

    The harness's tasks are asked of the files where it has some, since they ship.

    Raises:
        UserError: the model cannot be loaded, the GPU is too small for it, or a task cannot be asked.
    """
    tokenizer, settings, part = material.tokenizer, material.settings, material.first(extent)
    most, size, ends = settings.max_new_tokens, settings.batch_size, material.ends
    asked = [most, sorted(ends)]
    loss = model_loss(name, model, part, cache)
    replies = cache.each(
        f"{name}-questions",
        part.chat_keys,
        lambda which: answers.answer_each(model(), tokenizer, [part.chats[at] for at in which], most, size, ends),
        asked,
    )
    measured: Measured = {
        "nats": part.by_conversation(loss.values),
        "samples_per_second": loss.per_second,
        "replies": replies.values,
        "answers": cache.get(
            f"{name}-prompts",
            lambda: answers.answer_timed(model(), tokenizer, settings.prompts, most, ends),
            [*asked, settings.prompts],
        ),
    }
    if material.general:
        texts = all_sets(material)
        found = model_loss(f"{name}-general", model, texts, cache)
        measured["general"] = by_set(texts.by_conversation(found.values), material)
    if material.pairs:
        compared = preferences.answers(material)
        found = model_loss(f"{name}-preferences", model, compared, cache)
        measured["preferred"] = preferences.preferred(compared.by_conversation(found.values), material)
    if settings.tasks and not has_file:
        scores = functools.partial(model_task_scores, tokenizer=tokenizer, settings=settings)
        measured["tasks"] = cache.get(f"{name}-tasks", lambda: scores(model())._asdict(), of_tasks(settings))
    return measured


def model_loss(name: str, model: Callable[[], PreTrainedModel], part: Material, cache: MeasurementCache) -> Each:
    """Return the nats of each row of a part of the material; arguments and errors as of `measure_model`."""
    size, pad = part.settings.batch_size, part.tokenizer.pad_token_id
    return cache.each(
        f"{name}-loss", part.row_keys, lambda which: each_nats(model(), [part.rows[row] for row in which], size, pad)
    )


def of_tasks(settings: EvaluateSettings) -> list[object]:
    """Return what the harness's scores depend on beside the model.

    Raises:
        UserError: a task's file names one that is not here.
    """
    return [settings.tasks, settings.tasks_limit, [sha256(path) for path in task_files(settings.tasks)]]


def measure_file(
    name: str, path: Path, digest: str, material: Material, cache: MeasurementCache, extent: Extent
) -> Measured:
    """Measure a GGUF, in the llama.cpp that serves; it is loaded when something is still to be measured.

    Args:
        name: of the file among the measured models.
        path: of it.
        digest: its SHA-256.
        material: what models are measured on.
        cache: what was measured before.
        extent: how much of the material it is measured on.

    Raises:
        UserError: the file cannot be loaded, or a question leaves no room for an answer.
    """
    settings = material.settings
    with ExitStack() as stack:
        weights = functools.cache(lambda: stack.enter_context(Weights(path)))
        measured: Measured = {
            "nats": file_nats(name, weights, digest, material, cache, extent),
            "replies": file_replies(name, weights, digest, material, cache, extent),
            "answers": cache.get(
                f"{name}-prompts",
                lambda: gguf_scores.answer_alone(weights(), settings.prompts, settings.max_new_tokens),
                [digest, settings.max_new_tokens, settings.prompts],
            ),
            "memory": cache.get(f"{name}-memory", lambda: gguf_scores.serving_memory(weights()), digest),
        }
        if material.general:
            texts = all_sets(material)
            whole = Extent(len(texts.conversations), 0)
            nats = file_nats(f"{name}-general", weights, digest, texts, cache, whole)
            measured["general"] = by_set(nats, material)
        if material.pairs:
            compared = preferences.answers(material)
            whole = Extent(len(compared.conversations), 0)
            nats = file_nats(f"{name}-preferences", weights, digest, compared, cache, whole)
            measured["preferred"] = preferences.preferred(nats, material)
        if settings.tasks:
            depends = [digest, *of_tasks(settings)]
            asked = cache.get(f"{name}-tasks", lambda: task_scores(weights(), settings)._asdict(), depends)
            measured["tasks"] = asked
        return measured


def file_nats(
    name: str, weights: Callable[[], Weights], digest: str, material: Material, cache: MeasurementCache, extent: Extent
) -> list[float | None]:
    """Return a GGUF's nats of the first so many conversations; arguments and errors as of `measure_file`."""
    part = material.first(extent)
    found = cache.each(
        f"{name}-loss",
        part.row_keys,
        lambda which: gguf_scores.each_row_nats(weights(), [part.rows[row] for row in which], material.longest_row),
        digest,
    )
    return part.by_conversation(found.values)


def file_replies(
    name: str, weights: Callable[[], Weights], digest: str, material: Material, cache: MeasurementCache, extent: Extent
) -> list[Reply]:
    """Return a GGUF's replies to the first so many questions; arguments and errors as of `measure_file`."""
    part, most = material.first(extent), material.settings.max_new_tokens
    return cache.each(
        f"{name}-questions",
        part.chat_keys,
        lambda which: gguf_scores.answer_each(weights(), [part.chats[at] for at in which], most, material.longest_chat),
        [digest, most],
    ).values
