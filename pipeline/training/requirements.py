"""What the settings must be to the model, found out from its configuration and tokenizer, before weights are read.

Each check raises a `UserError` that names key, value and what it may be.
"""

from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.errors import UserError
from pipeline.core.config import Config, LoraSettings, ModelSettings
from pipeline.models.loading import context_holds
from pipeline.training.engines.trl import with_adapter
from pipeline.training.start import Start, require_fit
from pipeline.training.targets import last_part, saved, targets, tied, width


@dataclass(frozen=True, kw_only=True)
class Asked:
    """All that is asked of a base: where two are equal, a base fits both or neither."""

    model: ModelSettings
    base: str  # digest of its files
    max_length: int  # of training
    evaluated_length: int
    lora: LoraSettings | None  # None where all weights learn
    start: Start | None  # what its adapter goes on from
    exported_alone: bool  # whether llama.cpp is to take the adapter


def asked(config: Config, base: str, start: Start | None) -> Asked:
    """Return what a configuration asks of a base of that digest."""
    return Asked(
        model=config.model,
        base=base,
        max_length=config.train.max_length,
        evaluated_length=config.evaluate.max_length,
        lora=None if config.train.method == "full" else config.train.lora,
        start=start,
        exported_alone=config.export.adapter,
    )


def check(asked: Asked, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return true for a training, and its evaluation, that this model can be given.

    Args:
        asked: of it; the next two follow from its base.
        model: the base as a causal language model without weights, which is of no more use afterwards.
        tokenizer: the base's, with a padding token.

    Raises:
        UserError: a setting that this model cannot be trained or evaluated with.
    """
    context_holds("train.max_length", asked.max_length, model.config)
    context_holds("evaluate.max_length", asked.evaluated_length, model.config)
    padding_is_embedded(tokenizer, model, asked.model.path)
    if asked.lora is not None:
        projections_are_wide_enough(asked.lora, model)
        learns_once(asked.lora, model)
        embeddings_stay_whole(asked.lora, model, asked.exported_alone)
        adapted = with_adapter(model, asked.lora)  # whatever else PEFT refuses
        if asked.start:
            require_fit(asked.start, asked.lora, adapted, asked.base)
    return True


def padding_is_embedded(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, path: str) -> None:
    """Refuse a token for padding that is none of the model's."""
    rows = model.get_input_embeddings().num_embeddings
    if tokenizer.pad_token_id >= rows:
        raise UserError(
            f"the tokenizer of {path} pads with {tokenizer.pad_token!r}, token {tokenizer.pad_token_id}, and the model "
            f"has {rows} tokens; set pad_token in its tokenizer_config.json to one of those"
        )


def projections_are_wide_enough(lora: LoraSettings, model: PreTrainedModel) -> None:
    """Refuse an adapter of larger rank than the matrix that it is added to."""
    narrowest = min(targets(model, lora).items(), key=lambda named: min(width(named[1])))
    most = min(width(narrowest[1]))
    if lora.r > most:
        raise UserError(
            f"train.lora.r is {lora.r}; it may be at most {most}, the width of {last_part(narrowest[0])}, or name "
            "wider ones as train.lora.target_modules"
        )


def learns_once(lora: LoraSettings, model: PreTrainedModel) -> None:
    """Refuse what would learn whole and by an adapter."""
    whole = saved(model, lora)
    both = [name for name in targets(model, lora) if any(f"{name}.".startswith(f"{above}.") for above in whole)]
    if both:
        raise UserError(
            f"train.lora.modules_to_save and train.lora.target_modules both have {last_part(both[0])}; "
            "leave it out of one of them"
        )


def embeddings_stay_whole(lora: LoraSettings, model: PreTrainedModel, exported_alone: bool) -> None:
    """Refuse an adapter on embedding or head where these are one matrix, or llama.cpp is to take it alone."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    adapted = [last_part(name) for name, module in targets(model, lora).items() if module in ends]
    cause = f"train.lora.target_modules names {', '.join(adapted)}"
    if adapted and tied(model):
        raise UserError(
            f"{cause}, and this model's embedding and head are one matrix, which two adapters would part; "
            f"set train.lora.modules_to_save=[{adapted[0]}], which trains it whole"
        )
    if adapted and exported_alone:
        raise UserError(f"export.adapter is true, and {cause}, which llama.cpp takes in no adapter; set it to false")
