"""The numbers of an evaluation: all of them in reports/metrics.json and MLflow, a few as DVC's metrics."""

from typing import Any

from pipeline.report.record import Evaluation

Numbers = dict[str, "float | Numbers"]


def numbers(evaluation: Evaluation) -> Numbers:
    """Return them nested by model and file; what is not finite, or was not measured, is left out."""
    tree = evaluation.tree()
    files = {key: {name: value for name, value in file.items() if name != "of"} for key, file in tree["gguf"].items()}
    found: Numbers = _known(
        {
            "base": tree["base_model"],
            "tuned": tree["tuned_model"],
            "gain": tree["gain"],
            "gguf": files,
            "judgement": _judgement(tree.get("judgement")),
            "passed": int(evaluation.verdict.passed),
        }
    )
    return found


def headlines(evaluation: Evaluation) -> Numbers:
    """Return those by which experiments are compared, in the order of the stages; what was not measured is left out.

    Of the GGUF files they tell of the smallest, which has most to lose.
    """
    prepared, training = evaluation.prepared, evaluation.training
    base, tuned = evaluation.base_model, evaluation.tuned_model
    smallest = min(evaluation.tuned_files.values(), key=lambda file: file.bytes, default=None)
    found: Numbers = _known(
        {
            "train_rows": prepared and prepared.splits["train"].rows,
            "validation_loss": training and training.validation_loss,
            "train_seconds": training and training.seconds,
            "train_tokens_per_second": training and training.tokens_per_second,
            "peak_memory_gib": training and training.peak_memory_gib,
            "base_loss": base.loss,
            "tuned_loss": tuned.loss,
            "base_perplexity": base.perplexity,
            "tuned_perplexity": tuned.perplexity,
            "base_accuracy": base.accuracy,
            "tuned_accuracy": tuned.accuracy,
            "base_preference_accuracy": base.preference_accuracy,
            "tuned_preference_accuracy": tuned.preference_accuracy,
            "forgetting": max(
                (found.forgetting for found in tuned.general.values() if found.forgetting is not None), default=None
            ),
            "gguf_bytes": smallest and smallest.bytes,
            "gguf_kl": smallest and smallest.kl,
            "gguf_answer_seconds": smallest and smallest.answer_seconds,
            "passed": int(evaluation.verdict.passed),
        }
    )
    return found


def _judgement(tree: dict[str, object] | None) -> dict[str, object] | None:
    return {name: value for name, value in tree.items() if name not in ("model", "outcomes")} if tree else None


def _known(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _known(entry) for key, entry in value.items() if entry is not None}
