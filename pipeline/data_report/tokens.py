"""Tokens of the first rows of train, by the model that is configured, where its tokenizer is here already."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from common.errors import UserError
from common.harmless import harmless
from common.imports import importing
from common.words import counted, percent
from pipeline.core.config import Config, ModelSettings
from pipeline.core.formats import Messages
from pipeline.data_report.record import TokenFigures

if TYPE_CHECKING:
    from pipeline.look.rows import Conversation
    from pipeline.look.summary import Summary


class Model(NamedTuple):
    """Whose tokens are counted, and how training reads them."""

    settings: ModelSettings
    max_length: int
    loss_on: str


class Read(NamedTuple):
    """The figures, the tokens of each conversation's longest row, and some conversations as the model reads them."""

    figures: TokenFigures
    lengths: list[int]
    conversations: list["Conversation"]


def model_of(config: Config) -> Model:
    """Return the model that is configured."""
    return Model(config.model, config.train.max_length, config.train.loss_on)


def read_tokens(model: Model, rows: Sequence[Messages], shown: Sequence[int]) -> Read | str:
    """Return what the rows come to in tokens, and some of them as they are read; or why there is neither here."""
    with importing():  # Transformers, which a run without a model does not need
        from pipeline.look.rows import Reading, read_conversation
        from pipeline.look.summary import measured, summarize
        from pipeline.models.chat import ENDLESS, load_tokenizer

    try:
        settings = here(model.settings)
        if settings is None:
            return f"the tokenizer of {model.settings.name} is not on this machine yet"
        tokenizer = load_tokenizer(settings)
    except UserError as error:
        return str(error)
    tokenizer.model_max_length = ENDLESS  # of which it else warns, row by row
    reading = Reading(tokenizer, model.max_length, "train.max_length", model.loss_on)
    found = [measured(reading, list(map(dict, messages))) for messages in rows]
    figures = token_figures(model, summarize("train", model.settings.name, reading, dict(enumerate(found, 1))))
    lengths = [one["longest"] for one in found if not one["refused"]]
    read = [read_conversation(reading, number, list(map(dict, rows[number - 1]))) for number in shown]
    return Read(figures, lengths, read)


def token_figures(model: Model, summary: "Summary") -> TokenFigures:
    """Return what a summary of rows comes to."""
    return TokenFigures(
        model=summary.model,
        conversations=summary.conversations,
        max_length=model.max_length,
        cut=len(summary.cut),
        learnt=summary.learnt / max(summary.tokens, 1),
        learnt_cut=summary.learnt_cut / max(summary.learnt, 1),
        lengths=summary.lengths,
        fitting={f"{share:.0%}": length for share, length in summary.fitting.items()},
        refused={reason: len(numbers) for reason, numbers in summary.refusals.items()},
        control_tokens=summary.controls,
    )


def token_lines(tokens: TokenFigures | None) -> list[str]:
    """Return what is to be said of tokens in a terminal."""
    if tokens is None:
        return []
    refused = [
        f"the chat template refuses {counted(rows, 'conversation')}: {harmless(reason)}"
        for reason, rows in tokens.refused.items()
    ]
    if not tokens.lengths:
        return refused
    lengths = ", ".join(f"{name} {length:,}" for name, length in tokens.lengths.items())
    cut = f"train.max_length={tokens.max_length} cuts {percent(tokens.cut, tokens.conversations)}"
    enough = f"{tokens.fitting['0%']:,} cuts none, {tokens.fitting['5%']:,} at most 5%"
    return [
        f"tokens of {tokens.model}, of {counted(tokens.conversations, 'row')}: {lengths}; {cut}; {enough}",
        *refused,
    ]


def here(model: ModelSettings) -> ModelSettings | None:
    """Return the model as a folder of this machine that has its tokenizer; None where that had to be fetched first."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    from pipeline.models.packaged import is_fetched, is_packaged

    if is_packaged(model.path):
        return model if is_fetched(model.path, model.revision) else None
    if Path(model.path).is_dir():
        return model
    try:
        found = try_to_load_from_cache(model.path, "tokenizer.json", revision=model.revision)
    except HFValidationError:  # the name of a folder that is not there
        return None
    return replace(model, path=str(Path(found).parent), revision=None) if isinstance(found, str) else None
