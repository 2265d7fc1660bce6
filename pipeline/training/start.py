"""The adapter that a training goes on from: of the same base and kind as its own, which takes its weights."""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from common.errors import UserError
from common.files import sha256
from pipeline.core.config import LoraSettings
from pipeline.core.paths import LINEAGE
from pipeline.core.records import Lineage, TunedBase
from pipeline.models.loading import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from pipeline.training.lora import Model

# What PEFT's file calls what the shapes of weights do not show, and the settings.
SCALE = {"r": "r", "lora_alpha": "alpha", "use_rslora": "rslora", "use_dora": "dora"}


class Start(NamedTuple):
    """What is known of an adapter that a training goes on from, before its weights are read."""

    folder: Path
    digest: str  # of its weights
    settings: dict[str, object]  # PEFT's
    shapes: dict[str, list[int]]  # of its weights, by name
    base: TunedBase | None  # that it was made for; None where it does not say
    trainings: tuple[str, ...]  # that it comes from, by fingerprint, the latest first


def digest_of(folder: Path) -> str:
    """Return the digest of an adapter's weights.

    Raises:
        UserError: they are not there.
    """
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise UserError(f"train.start_adapter names {folder}, which has no {ADAPTER_WEIGHTS}; name an adapter's folder")
    return sha256(folder / ADAPTER_WEIGHTS)


def read_start(folder: Path) -> Start:
    """Return what a folder's adapter says of itself.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    digest = digest_of(folder)
    lineage = Lineage.read(folder / LINEAGE) if (folder / LINEAGE).is_file() else None
    try:
        with (folder / ADAPTER_CONFIG).open(encoding="utf-8") as file:
            settings = json.load(file)
        with safe_open(folder / ADAPTER_WEIGHTS, "pt") as weights:
            shapes = {name: list(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118 -- it is no mapping
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"train.start_adapter {folder} cannot be read ({error}); it needs {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}"
        ) from error
    base, trainings = (lineage.base, lineage.trainings) if lineage else (None, ())
    return Start(folder, digest, settings, shapes, base, trainings)


def require_fit(start: Start, lora: LoraSettings, model: Model, base: str) -> None:
    """Refuse an adapter to go on from that is another kind of one, or was made for another base.

    Args:
        start: what it says of itself.
        lora: the one that is asked for.
        model: the base with that, with or without weights.
        base: the digest of the base's files.

    Raises:
        UserError: it does not fit; the message says what differs.
    """
    place, made_for = f"train.start_adapter {start.folder}", start.base
    if made_for and made_for.digest is not None and made_for.digest != base:
        raise UserError(f"{place} was made for another base, {made_for.path}; take that as model, or another adapter")
    for name, key in SCALE.items():
        if (value := start.settings.get(name)) is not None and value != (asked := getattr(lora, key)):
            raise UserError(f"{place} has {key} {value}, and train.lora.{key} is {asked}; set it to that")
    ours = {name: list(weight.shape) for name, weight in get_peft_model_state_dict(model).items()}
    theirs = start.shapes
    if other := sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)):
        raise UserError(
            f"{place} does not fit {other[0]}: it has {theirs.get(other[0], 'none')}, and train.lora makes "
            f"{ours.get(other[0], 'none')}; set target_modules and modules_to_save to what it was trained with"
        )


def go_on_from(model: Model, folder: Path) -> None:
    """Give a model's adapter the weights of one in a folder, which fits."""
    with torch.no_grad():
        set_peft_model_state_dict(model, load_file(folder / ADAPTER_WEIGHTS))
