"""Tasks of lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness), where it is installed."""

import logging
from importlib.util import find_spec
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.errors import UserError
from common.imports import let_sklearn_in
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


def task_scores(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: EvaluateSettings
) -> dict[str, float]:
    """Return the score of each of `evaluate.tasks`; of a group that has no score as a whole, those of its tasks.

    A task's score is the first of its metrics of which more is better, as arc_easy's accuracy. Prompts are the tasks'
    own, without a chat template.

    Raises:
        UserError: a task is unknown, its data is not to be had, or it has no such metric.
    """
    let_sklearn_in()
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.WARNING)  # it tells its every step
    manager = TaskManager()
    try:
        manager.load(settings.tasks)
    except Exception as error:  # of the harness, of datasets, of the network: all say why
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"evaluate.tasks {', '.join(settings.tasks)} cannot be loaded: {reason}") from error
    size = "auto" if model.device.type == "cuda" else settings.batch_size  # as many as fit
    language_model = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=size, max_batch_size=settings.batch_size)
    found = simple_evaluate(
        language_model,
        tasks=settings.tasks,
        task_manager=manager,
        limit=settings.tasks_limit,
        bootstrap_iters=0,
        log_samples=False,
    )
    scores = {task: _score(found, task) for task in found["results"]}
    within = {
        task for group, tasks in found["group_subtasks"].items() if scores.get(group) is not None for task in tasks
    }
    outermost = {task: score for task, score in scores.items() if score is not None and task not in within}
    if not outermost:
        raise UserError(f"evaluate.tasks {', '.join(settings.tasks)} have no metric of which more is better")
    return outermost


def _score(found: dict[str, Any], task: str) -> float | None:
    better = found["higher_is_better"].get(task, {})
    for key, value in found["results"][task].items():  # keys are METRIC,FILTER
        metric, comma, _ = key.partition(",")
        if comma and better.get(metric) and isinstance(value, int | float):
            return float(value)
    return None
