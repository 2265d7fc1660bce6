"""Tasks of lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness), where it is installed."""

import logging
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, NamedTuple

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.errors import UserError
from common.imports import let_sklearn_in
from llama.model import Weights
from pipeline.core.config import EvaluateSettings

PACKAGE = "lm_eval"


def check_installed(tasks: list[str]) -> None:
    """Say before anything is measured that the harness is missing.

    Raises:
        UserError: there are tasks, and no harness to ask them.
    """
    if tasks and find_spec(PACKAGE) is None:
        raise UserError(
            f"evaluate.tasks names {tasks[0]} and lm-evaluation-harness is not installed; "
            "run `pip install -e .[harness]`, or set evaluate.tasks=[]"
        )


class TaskScores(NamedTuple):
    """What was found of tasks, by their names."""

    scores: dict[str, float]
    items: dict[str, tuple[float, ...]]  # what each question adds to the score, in the task's order


def task_scores(weights: Weights, settings: EvaluateSettings) -> TaskScores:
    """Return what a GGUF scores in each of `evaluate.tasks`; of a group without a score as a whole, in its tasks.

    A task's score is the first of its metrics of which more is better, as arc_easy's accuracy. Prompts are the tasks'
    own, without a chat template.

    Raises:
        UserError: a task is unknown, its data is not to be had, or it has no such metric.
    """
    let_sklearn_in()
    from llama.harness import GGUF

    return _asked(GGUF(weights), settings)


def model_task_scores(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: EvaluateSettings
) -> TaskScores:
    """Return the same of a Transformers model, where there is no file of it."""
    let_sklearn_in()
    from lm_eval.models.huggingface import HFLM

    size = "auto" if model.device.type == "cuda" else settings.batch_size  # as many as fit
    return _asked(HFLM(model, tokenizer=tokenizer, batch_size=size, max_batch_size=settings.batch_size), settings)


def _asked(language_model: Any, settings: EvaluateSettings) -> TaskScores:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.WARNING)  # it tells its every step
    manager = TaskManager()
    try:
        manager.load(settings.tasks)
    except Exception as error:  # of the harness, of datasets, of the network: all say why
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"evaluate.tasks {', '.join(settings.tasks)} cannot be loaded: {reason}") from error
    found = simple_evaluate(
        language_model, tasks=settings.tasks, task_manager=manager, limit=settings.tasks_limit, bootstrap_iters=0
    )
    metrics = {task: metric for task in found["results"] if (metric := _metric(found, task))}
    within = {task for group, tasks in found["group_subtasks"].items() if group in metrics for task in tasks}
    outermost = {task: metric for task, metric in metrics.items() if task not in within}
    if not outermost:
        raise UserError(f"evaluate.tasks {', '.join(settings.tasks)} have no metric of which more is better")
    scores = {task: float(found["results"][task][metric]) for task, metric in outermost.items()}
    return TaskScores(scores, {task: tuple(_items(found, task, metric)) for task, metric in outermost.items()})


def _metric(found: dict[str, Any], task: str) -> str | None:
    """Return a task's first metric of which more is better, with its filter, as METRIC,FILTER."""
    better = found["higher_is_better"].get(task, {})
    for key, figure in found["results"][task].items():
        metric, comma, _ = key.partition(",")
        if comma and better.get(metric) and isinstance(figure, int | float):
            return key
    return None


def _items(found: dict[str, Any], task: str, metric: str) -> Iterator[float]:
    """Yield what each question of a task, or of the tasks of a group, was given by a metric."""
    name, _, sieve = metric.partition(",")
    for part in found["group_subtasks"].get(task) or [task]:
        if part in found["samples"]:
            answers = [sample for sample in found["samples"][part] if sample["filter"] == sieve]
            yield from (float(answer[name]) for answer in sorted(answers, key=lambda answer: answer["doc_id"]))
        else:
            yield from _items(found, part, metric)
