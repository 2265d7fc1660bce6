"""What the settings of a training must be to one another, before anything is read."""

from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import UserError
from pipeline.core.paths import ADAPTER

if TYPE_CHECKING:
    from pipeline.core.config import Config, ExportSettings, TrainSettings

FALLING = ("linear", "cosine", "warmup_stable_decay")  # schedules that end at a minimum


def validate(config: "Config") -> None:
    """Check a training's schedule and adapter.

    Raises:
        UserError: a setting that another one leaves without effect, or that it cannot go with; the message names both.
    """
    validate_schedule(config.train)
    validate_method(config.train)
    validate_preference(config.train)
    validate_export(config.train, config.export)


def validate_schedule(train: "TrainSettings") -> None:
    """Check that the schedule has use for what is set of it."""
    if train.min_lr_ratio and train.scheduler not in FALLING:
        raise UserError(
            f"train.min_lr_ratio is {train.min_lr_ratio}, and train.scheduler={train.scheduler} does not fall to a "
            f"minimum; set it to 0, or take {', '.join(FALLING)}"
        )
    decays = train.scheduler == "warmup_stable_decay"
    if decays and train.decay_ratio is None:
        raise UserError(
            "train.scheduler=warmup_stable_decay needs train.decay_ratio, the share of all steps in which the rate "
            "falls, such as 0.1"
        )
    if train.decay_ratio is not None and not decays:
        raise UserError(
            f"train.decay_ratio is {train.decay_ratio}, and train.scheduler={train.scheduler} has no such part; set it "
            "to null, or take warmup_stable_decay"
        )
    if train.decay_ratio is not None and train.warmup_ratio + train.decay_ratio > 1:
        raise UserError(
            f"train.warmup_ratio {train.warmup_ratio} and train.decay_ratio {train.decay_ratio} are more than 1 "
            "together, which is all steps; lower one of them"
        )


def validate_method(train: "TrainSettings") -> None:
    """Check that there is an adapter where one is described."""
    adapter_keys = {"rslora": train.lora.rslora, "dora": train.lora.dora, "modules_to_save": train.lora.modules_to_save}
    for key, value in adapter_keys.items():
        if value and train.method == "full":
            text = str(value).lower()
            raise UserError(f"train.lora.{key} is {text}, and train.method=full has no adapter; take lora, or unset it")


def validate_preference(train: "TrainSettings") -> None:
    """Check that what answers are compared by has an adapter to go on from and to be held against, and is used."""
    preference = train.preference
    if train.method == "full" and (train.start_adapter or preference.has_reference):
        key = "start_adapter" if train.start_adapter else "preference.loss"
        value = train.start_adapter or preference.loss
        raise UserError(
            f"train.{key} is {value}, and train.method=full has no adapter, beside which the base is what it was; take "
            "lora"
        )
    if train.start_adapter and ADAPTER in (Path(train.start_adapter), *Path(train.start_adapter).parents):
        raise UserError(
            f"train.start_adapter is {train.start_adapter}, where train writes, and DVC removes it before; copy it to "
            "another folder, and name that"
        )
    weights = (preference.desirable_weight, preference.undesirable_weight)
    if preference.loss not in ("kto", None) and weights != (1, 1):
        raise UserError(
            f"train.preference.desirable_weight and undesirable_weight are {weights[0]:g} and {weights[1]:g}, and only "
            f"kto has use for them; set them to 1, or take train=kto"
        )
    if preference.loss not in ("dpo", None) and preference.nll_weight:
        raise UserError(
            f"train.preference.nll_weight is {preference.nll_weight:g}, and only dpo has use for it; set it to 0, or "
            "take train=dpo"
        )
    if preference.loss == "kto" and train.update_size == 1:
        raise UserError(
            "train=kto holds each answer of an update against the others' prompts, and train.effective_batch is 1; "
            "set it to 2 or more"
        )


def validate_export(train: "TrainSettings", export: "ExportSettings") -> None:
    """Check that the adapter can be had alone where that is asked for: llama.cpp takes low-rank products alone."""
    unfit = {
        "train.method=full": train.method == "full",
        "train.lora.dora=true": train.lora.dora,
        "train.lora.modules_to_save": bool(train.lora.modules_to_save),
    }
    if export.adapter and any(unfit.values()):
        reason = next(key for key, holds in unfit.items() if holds)
        raise UserError(f"export.adapter is true, and {reason} leaves no adapter that llama.cpp takes; set it to false")
