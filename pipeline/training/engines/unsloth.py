"""Unsloth's patched models and kernels, for little memory."""

import os
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from common.errors import UserError
from pipeline.core.config import ModelSettings, TrainSettings
from pipeline.models.chat import unreadable
from pipeline.models.loading import too_large
from pipeline.models.packaged import located
from pipeline.training.engines import Engine
from pipeline.training.shared import WEIGHTS
from pipeline.training.targets import target_names

if TYPE_CHECKING:
    from pipeline.training.lora import Model
    from pipeline.training.plan import Card, Plan

SMALL_CARD = 20 * 2**30  # bytes


class Unsloth(Engine):
    """Unsloth, with attention, loss and kernels of its own."""

    package = "unsloth"
    libraries = ("unsloth",)
    attention = "unsloth"
    compiles = fp8 = offloads = shards = False
    recomputes = True

    def best_for(self, model: ModelSettings, card: "Card | None") -> str | None:
        """Return why it is taken: that memory is scarce, where it is."""
        if card is None or (card.memory >= SMALL_CARD and not model.load_in_4bit):
            return None
        small = "a base in 4 bit" if model.load_in_4bit else f"a card of {card.memory / 2**30:.0f} GiB"
        return f"{small} is what it is best for"

    def left_out(self, train: TrainSettings) -> str | None:
        """Return a setting that it would leave out without a word, or do otherwise."""
        lora = train.lora
        unsupported = {
            "packing": train.packing is True,
            "attention": train.attention != "auto",
            "compile": train.compile is True,
            "neftune_alpha": train.neftune_alpha is not None,
            "start_adapter": train.start_adapter is not None,
            "preference.loss": train.preference.loss is not None,
            "lora.dora": lora.dora,
            "lora.modules_to_save": bool(lora.modules_to_save),
            "lora.target_modules": bool({"lm_head", "embed_tokens"} & set(lora.target_modules)),
        }
        key = next((key for key, is_set in unsupported.items() if is_set), None)
        return key and f"train.{key}={str(attrgetter(key)(train)).lower()}"

    def load(
        self, plan: "Plan", model: ModelSettings, train: TrainSettings, device: str, digest: str | None = None
    ) -> "Model":
        """Return Unsloth's model with its adapter; it takes the GPU that there is.

        Raises:
            UserError: the weights cannot be loaded.
        """
        # Its compile cache would land in the working folder, among the user's files.
        os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(Path.home() / ".cache/tunesmith/unsloth"))
        from unsloth import FastLanguageModel  # patches Transformers when imported, so only when chosen

        WEIGHTS.drop()
        path, revision = located(model.path, model.revision)
        try:
            base, _ = FastLanguageModel.from_pretrained(
                model_name=path,
                revision=revision,
                max_seq_length=train.max_length,
                load_in_4bit=model.load_in_4bit,
                full_finetuning=train.method == "full",
            )
        except torch.OutOfMemoryError as error:
            raise UserError(too_large(model.path)) from error
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(unreadable(model.path, error)) from error
        if train.method == "full":
            return base
        return FastLanguageModel.get_peft_model(
            base,
            r=train.lora.r,
            lora_alpha=train.lora.alpha,
            use_rslora=train.lora.rslora,
            lora_dropout=train.lora.dropout,
            target_modules=target_names(base, train.lora),
            use_gradient_checkpointing=False if train.gradient_checkpointing is False else "unsloth",
            random_state=train.seed,
            max_seq_length=train.max_length,
        )


ENGINE = Unsloth()
