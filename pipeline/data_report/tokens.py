"""Tokens of the first rows of train, by the model that is configured, where its tokenizer is here already."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from common.errors import UserError
from pipeline.core.config import Config, ModelSettings
from pipeline.core.formats import Messages
from pipeline.data_report.record import TokenFigures


class Model(NamedTuple):
    """Whose tokens are counted, and how training reads them."""

    settings: ModelSettings
    max_length: int
    loss_on: str


class Counted(NamedTuple):
    """The figures, and the tokens of each conversation's longest row."""

    figures: TokenFigures
    lengths: list[int]


def model_of(config: Config) -> Model:
    """Return the model that is configured."""
    return Model(config.model, config.train.max_length, config.train.loss_on)


def count_tokens(model: Model, rows: list[Messages]) -> Counted | str:
    """Return what the rows come to in tokens, or why that cannot be said here."""
    from pipeline.look.rows import Reading  # seconds, which a run without a model does not spend
    from pipeline.look.summary import measured, summarize
    from pipeline.models.chat import load_tokenizer

    settings = here(model.settings)
    if settings is None:
        return f"the tokenizer of {model.settings.name} is not on this machine yet"
    try:
        reading = Reading(load_tokenizer(settings), model.max_length, "train.max_length", model.loss_on)
    except UserError as error:
        return str(error)
    found = [measured(reading, list(map(dict, messages))) for messages in rows]
    summary = summarize("train", model.settings.name, reading, dict(enumerate(found, 1)))
    lengths = [one["longest"] for one in found if not one["refused"]]
    figures = TokenFigures(
        model=model.settings.name,
        conversations=len(rows),
        max_length=model.max_length,
        cut=len(summary.cut),
        learnt=summary.learnt / max(summary.tokens, 1),
        learnt_cut=summary.learnt_cut / max(summary.learnt, 1),
        lengths=summary.lengths,
        fitting={f"{share:.0%}": length for share, length in summary.fitting.items()},
        refused={reason: len(numbers) for reason, numbers in summary.refusals.items()},
        control_tokens=summary.controls,
    )
    return Counted(figures, lengths)


def here(model: ModelSettings) -> ModelSettings | None:
    """Return the model as a folder of this machine that has its tokenizer; None where that had to be fetched first."""
    from huggingface_hub import try_to_load_from_cache

    from pipeline.models.packaged import is_fetched, is_packaged

    if is_packaged(model.path):
        return model if is_fetched(model.path, model.revision) else None
    if Path(model.path).is_dir():
        return model
    found = try_to_load_from_cache(model.path, "tokenizer.json", revision=model.revision)
    return replace(model, path=str(Path(found).parent), revision=None) if isinstance(found, str) else None
