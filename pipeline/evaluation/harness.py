"""Tasks of lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness), where it is installed."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, cast

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.errors import UserError
from common.imports import let_sklearn_in
from llama.errors import EngineError
from llama.model import Weights
from pipeline.core.config import EvaluateSettings
from pipeline.evaluation.batches import AT_ONCE

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

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


Sample = dict[str, Any]  # a question: by which filter it was graded, what was found, and a grade for each metric


class Found(TypedDict):
    """What the harness says of a task or a group, as far as it is read here; keys are names of tasks and groups."""

    results: dict[str, dict[str, object]]
    samples: dict[str, list[Sample]]  # of tasks alone
    group_subtasks: dict[str, list[str]]
    higher_is_better: dict[str, dict[str, bool | None]]  # by metric


class TaskScores(NamedTuple):
    """What was found of tasks, by their names."""

    scores: dict[str, float]
    items: dict[str, tuple[float, ...]]  # what each question adds to the score, in the task's order


def task_scores(weights: Weights, settings: EvaluateSettings) -> TaskScores:
    """Return what a GGUF scores in each of `evaluate.tasks`; of a group without a score as a whole, in its tasks.

    A task's score is the first of its metrics of which more is better, as arc_easy's accuracy. Prompts are the tasks'
    own, without a chat template.

    Raises:
        UserError: a task is unknown or of no form that the harness knows, its data is not to be had, it has no such
            metric, or a likelihood is no number.
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

    most = settings.batch_size or AT_ONCE
    size = "auto" if model.device.type == "cuda" else most  # as many as fit
    return _asked(HFLM(model, tokenizer=tokenizer, batch_size=size, max_batch_size=most), settings)


def _asked(language_model: object, settings: EvaluateSettings) -> TaskScores:
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.WARNING)  # it tells its every step
    manager = TaskManager()
    for task in settings.tasks:  # each, before any is asked
        with _explained(task, "cannot be loaded"):
            manager.load([task])
    asked = TaskScores({}, {})
    for task in settings.tasks:
        found = read_scores(task, _ask(language_model, task, manager, settings.tasks_limit))
        asked.scores.update(found.scores)
        asked.items.update(found.items)
    return asked


def read_scores(task: str, found: Found) -> TaskScores:
    """Return the scores of a task, or of a group of them, by what the harness says of it.

    Raises:
        UserError: it has no metric of which more is better, or what a question is graded by is no number.
    """
    metrics = _outermost(found)
    if not metrics:
        raise UserError(f"evaluate.tasks {task} has no metric of which more is better")
    _require_numbers(task, found)
    scores = {name: float(cast(float, found["results"][name][metric])) for name, metric in metrics.items()}
    return TaskScores(scores, {name: tuple(_items(found, name, metric)) for name, metric in metrics.items()})


def _ask(language_model: object, task: str, manager: "TaskManager", limit: int | None) -> Found:
    """Return all that the harness says of a task, or of a group of them."""
    from lm_eval import simple_evaluate

    with _explained(task, "cannot be asked"):
        found = simple_evaluate(language_model, tasks=[task], task_manager=manager, limit=limit, bootstrap_iters=0)
    return cast(Found, found)


@contextmanager
def _explained(task: str, what: str) -> Iterator[None]:
    """Turn an error of the harness, of datasets, of a template or of the network into a line: all of them say why."""
    try:
        yield
    except (UserError, EngineError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(f"evaluate.tasks {task} {what}: {type(error).__name__}: {reason}") from error


def _outermost(found: Found) -> dict[str, str]:
    """Return the tasks and groups that have a score and are in no group that has one, with their metrics."""
    metrics = {task: metric for task in found["results"] if (metric := _metric(found, task))}
    within = {task for group, tasks in found["group_subtasks"].items() if group in metrics for task in tasks}
    return {task: metric for task, metric in metrics.items() if task not in within}


def _require_numbers(task: str, found: Found) -> None:
    """See that what the questions were graded by are numbers: of one that is none, the grade would be anything.

    Raises:
        UserError: a log-likelihood is none.
    """
    for part, samples in found["samples"].items():
        for sample in samples:
            if not all(map(math.isfinite, _numbers(sample["resps"]))):
                raise UserError(
                    f"evaluate.tasks {task}: question {sample['doc_id'] + 1} of {part} has a log-likelihood that is no"
                    " finite number, so the model's weights are broken; leave the task out, or train and export again"
                )


def _numbers(responses: object) -> Iterator[float]:
    """Yield the numbers in what a model was found to say, however deep they stand."""
    if isinstance(responses, float):
        yield responses
    elif isinstance(responses, list | tuple):
        for response in responses:
            yield from _numbers(response)


def _metric(found: Found, task: str) -> str | None:
    """Return a task's first metric of which more is better, with its filter, as METRIC,FILTER."""
    better = found["higher_is_better"].get(task, {})
    for key, figure in found["results"][task].items():
        metric, comma, _ = key.partition(",")
        if comma and better.get(metric) and isinstance(figure, int | float):
            return key
    return None


def _items(found: Found, task: str, metric: str) -> Iterator[float]:
    """Yield what each question of a task, or of the tasks of a group, was given by a metric."""
    name, _, sieve = metric.partition(",")
    for part in found["group_subtasks"].get(task) or [task]:
        if part in found["samples"]:
            answers = [sample for sample in found["samples"][part] if sample["filter"] == sieve]
            yield from (float(answer[name]) for answer in sorted(answers, key=lambda answer: answer["doc_id"]))
        else:
            yield from _items(found, part, metric)
