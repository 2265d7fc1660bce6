"""What each model is measured by, part by part: the same for Transformers' models and for GGUF files."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.evaluation.answers import answer_all, answer_timed
from pipeline.evaluation.harness import task_scores
from pipeline.evaluation.inputs import Material
from pipeline.evaluation.loss import measure_loss
from pipeline.gguf.score import answer_alone, answer_together, row_nats

Part = Callable[[str, Callable[[], Any]], Any]  # a part's name, and what measures it where that is still to be done
Measured = dict[str, Any]  # nats of each conversation, replies to the questions, answers to the prompts


def measure_model(name: str, model: Callable[[], Any], given: Material, part: Part) -> Measured:
    """One of Transformers' models, loaded by `model` when a part is still to be measured; with the harness's scores.

    Raises:
        UserError: the model cannot be loaded, the GPU is too small for it, or a task cannot be asked.
    """
    tokenizer, settings = given.tokenizer, given.settings
    most, size, ends = settings.max_new_tokens, settings.batch_size, given.ends
    loss = part(f"{name}-loss", lambda: measure_loss(model(), given.rows, size, tokenizer.pad_token_id)._asdict())
    measured = {
        "nats": given.by_conversation(loss["nats"]),
        "samples_per_second": loss["samples_per_second"],
        "replies": part(f"{name}-questions", lambda: answer_all(model(), tokenizer, given.chats, most, size, ends)),
        "answers": part(f"{name}-prompts", lambda: answer_timed(model(), tokenizer, settings.prompts, most, ends)),
    }
    if settings.tasks:
        measured["tasks"] = part(f"{name}-tasks", lambda: task_scores(model(), tokenizer, settings))
    return measured


def measure_file(name: str, path: Path, given: Material, part: Part) -> Measured:
    """A GGUF, in the llama.cpp that serves.

    Raises:
        UserError: the file cannot be loaded, or a question leaves no room for an answer.
    """
    most = given.settings.max_new_tokens
    return {
        "nats": given.by_conversation(part(f"{name}-loss", partial(row_nats, path, given.rows))),
        "replies": part(
            f"{name}-questions", lambda: answer_together(path, given.chats, most, context=given.longest_chat)
        ),
        "answers": part(f"{name}-prompts", partial(answer_alone, path, given.settings.prompts, most)),
    }
