"""reports/rows.json of models whose losses and replies a test chooses."""

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.core.config import GateSettings
from pipeline.report.rows import ModelRows, RowResults

Task = tuple[str, str]  # group and task of a question
GATE = GateSettings(
    min_gain=0.0,
    max_quantization_loss=0.05,
    max_task_drop=0.1,
    max_flips=None,
    max_forgetting=None,
    level=0.05,
    min_rows=20,
    min_questions=20,
)


def found_rows(
    losses: Mapping[str, float],
    *,
    rows: int = 200,
    spread: float = 0.03,
    measured: Mapping[str, int] | None = None,
    right: Mapping[str, Sequence[bool]] | None = None,
    asked: Sequence[Task] = (),
    items: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    general: Mapping[str, int] | None = None,
    preferred: Mapping[str, Sequence[bool | None]] | None = None,
) -> RowResults:
    """Return rows that are as hard for all models, and of which each has its own share by chance besides.

    Args:
        losses: of each model over all rows, nats a token.
        rows: that there are.
        spread: of what each row costs a model beside its loss, nats a token.
        measured: of a model, on so many of them; on all, where it does not say.
        right: whether each model's replies were; none were asked of the others.
        asked: group and task of each question.
        items: by model, the score of each item of the harness's tasks.
        general: texts of each set of general ones, on which each model's loss is that of the rows.
        preferred: of each pair of answers, whether each model finds the chosen one likelier.
    """
    random = np.random.default_rng(0)
    tokens = random.integers(5, 40, rows)
    hard = random.normal(0, 1, rows)
    models = {}
    for name, loss in losses.items():
        own = random.normal(0, spread, rows)
        own += loss - np.average(own, weights=tokens) + hard
        count = (measured or {}).get(name, rows)
        models[name] = ModelRows(
            nats=tuple((own * tokens)[:count].tolist()),
            right=tuple((right or {}).get(name, ())),
            general={kind: tuple((own * tokens)[:texts].tolist()) for kind, texts in (general or {}).items()},
            items={task: tuple(scores) for task, scores in (items or {}).get(name, {}).items()},
            preferred=tuple((preferred or {}).get(name, ())),
        )
    return RowResults(
        rows=tuple(f"row{number}" for number in range(rows)),
        tokens=tuple(tokens.tolist()),
        numbers=tuple(range(1, rows + 1)),
        questions=tuple(f"question{number}" for number in range(len(asked))),
        groups=tuple(group for group, _ in asked),
        tasks=tuple(task for _, task in asked),
        general={kind: tuple(tokens[:texts].tolist()) for kind, texts in (general or {}).items()},
        pairs=tuple(
            f"chosen{number} rejected{number}" for number in range(len(next(iter((preferred or {"": ()}).values()))))
        ),
        models=models,
    )
