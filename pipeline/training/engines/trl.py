"""Transformers' models with PEFT's adapters, for TRL's trainer: the engine that does all that can be asked for."""

from typing import TYPE_CHECKING

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedConfig, PreTrainedModel

from common.errors import UserError
from pipeline.core.config import LoraSettings, ModelSettings, TrainSettings
from pipeline.models.attention import FLASH, register
from pipeline.models.loading import load_base
from pipeline.training.cudnn import CUDNN, register_cudnn
from pipeline.training.engines import Engine
from pipeline.training.lora import Model, fuse
from pipeline.training.loss import learn_from_supervised
from pipeline.training.noise import Noise
from pipeline.training.shared import shared_base
from pipeline.training.targets import saved, target_names, tied

if TYPE_CHECKING:
    from pipeline.training.plan import Plan


class Trl(Engine):
    """TRL with PEFT, and what lora.py, loss.py and attention.py make faster of it."""

    def load(
        self, plan: "Plan", model: ModelSettings, train: TrainSettings, device: str, digest: str | None = None
    ) -> Model:
        """Return the base with its adapter, which is float32; compute is bf16 on a GPU.

        Raises:
            UserError: the weights cannot be loaded, have none of the projections that the adapter is for, or want an
                attention that there is not.
        """
        if plan.attention == FLASH:
            register(FLASH)
        if plan.attention == CUDNN:
            register_cudnn()
        dtype = torch.bfloat16 if device == "cuda" and train.method != "full" else torch.float32
        place = (model.path, model.revision, device, dtype, model.load_in_4bit, plan.attention)
        key = (digest, *place) if digest and weights_stay(model, train) else None
        base = shared_base(key, lambda: load_base(*place))
        require_plain_attention(base.config, model, train, plan.attention in (FLASH, CUDNN))
        base.config.use_cache = False  # with which Transformers would not keep packed conversations apart
        adapted = base if train.method == "full" else with_adapter(base, train.lora)
        learn_from_supervised(base)  # not if its head has an adapter of its own
        if train.neftune_alpha is not None:
            Noise(base, train.neftune_alpha)
        if train.method == "lora" and not train.lora.dropout:  # which PEFT applies to each projection's input anew
            fuse(adapted, fp8=train.frozen_dtype == "fp8")
        return adapted


def weights_stay(model: ModelSettings, train: TrainSettings) -> bool:
    """Return whether a training leaves a base's weights as they were loaded.

    Those of modules that learn whole it does not; those in FP8 take the place of others, and so would take more memory
    beside them; those in 4 bit are more than their numbers.
    """
    return (
        train.method == "lora"
        and train.frozen_dtype != "fp8"
        and not train.lora.modules_to_save
        and not model.load_in_4bit
    )


def require_plain_attention(config: PreTrainedConfig, model: ModelSettings, train: TrainSettings, packed: bool) -> None:
    """Check that a base's attention has nothing that the one which is planned leaves out.

    Raises:
        UserError: it has.
    """
    if getattr(config, "attn_logit_softcapping", None):
        raise UserError(f"{model.path} caps its attention scores, which no train.attention does; take another model")
    if packed and getattr(config, "attention_dropout", None):
        raise UserError(
            f"{model.path} has dropout in its attention, which {train.attention} leaves out; set train.attention=sdpa"
        )


def with_adapter(base: PreTrainedModel, lora: LoraSettings) -> PeftModel:
    """Return the base with PEFT's adapter, as yet without effect.

    Raises:
        UserError: it lacks a module that the adapter is for.
    """
    whole = saved(base, lora)
    ends = (base.get_input_embeddings(), base.get_output_embeddings())
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        lora_dropout=lora.dropout,
        target_modules=target_names(base, lora),
        modules_to_save=list(whole) or None,
        ensure_weight_tying=tied(base) and any(module in ends for module in whole.values()),
        task_type="CAUSAL_LM",
    )
    # Pure bf16 adapters would lose small updates: PEFT keeps them in float32 here.
    try:
        adapted = get_peft_model(
            base, config, autocast_adapter_dtype=True, low_cpu_mem_usage=base.device.type == "meta"
        )
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"train.lora.target_modules does not fit {base.name_or_path}: {reason}") from error
    if config.target_parameters:  # PEFT 0.21 reads names of dense layers as those that experts had before
        taken = ", ".join(sorted(config.target_parameters))
        raise UserError(
            f"train.lora.target_modules does not fit {base.name_or_path}: PEFT would put some of it on its experts' "
            f"{taken}; name others than gate_proj, up_proj and down_proj"
        )
    return adapted


ENGINE = Trl()
