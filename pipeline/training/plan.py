"""How a training is carried out: engine, attention, packing, compilation, each as the card has it best or as asked."""

import re
from dataclasses import dataclass

import torch

from common.errors import UserError
from pipeline.core.config import OPTIMIZERS, ModelSettings, TrainSettings
from pipeline.models.attention import FLASH, FLASH_HEAD
from pipeline.training.cudnn import CUDNN, CUDNN_HEAD
from pipeline.training.engines import DEFAULT, Engine, choose_engine, engine, is_installed

LARGE_UPDATE = 32  # conversations
# Seconds of nothing but arithmetic at the card's peak from which compilation pays: on an H200 it takes 15 to 50 s and
# makes a training half again as fast, which itself takes about twice those seconds.
WORTH_COMPILING = 40.0
# Dense matrix products in bf16 (fp16 on the two oldest), TFLOP/s, as the makers' data sheets have them. A name that
# another one begins with comes first.
PEAK_TFLOPS = {
    "B200": 2250, "H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "L40S": 362, "L40": 181, "L4": 121,
    "A10G": 70, "A10": 125, "RTX 4090": 165, "RTX 3090": 71, "A6000": 155, "V100": 125, "T4": 65,
}  # fmt: skip


@dataclass(frozen=True)
class Card:
    """A GPU, as far as choices depend on it."""

    name: str
    memory: int  # bytes
    capability: tuple[int, int]  # CUDA's, as (8, 0)

    @property
    def peak(self) -> float | None:
        """Dense matrix products in bf16, operations a second, by its data sheet."""
        peaks = (peak for name, peak in PEAK_TFLOPS.items() if re.search(rf"\b{name}\b", self.name))
        return next((1e12 * peak for peak in peaks), None)


@dataclass(frozen=True)
class Plan:
    """How a training is carried out; nothing of what it learns depends on it but the last digits."""

    engine: str  # its name in pipeline/training/engines
    attention: str  # sdpa, packed_varlen, packed_cudnn, eager for the base's own, or the engine's
    packing: bool
    reasons: tuple[str, ...]

    @property
    def few_counts(self) -> bool:
        """Whether kernels are planned for each number of conversations in a packed row."""
        return self.attention == CUDNN

    def __str__(self) -> str:
        return "\n  ".join(("plan:", *self.reasons))


def require_installed(optimizer: str) -> None:
    """Check that the package of an optimizer is there.

    Raises:
        UserError: it is not.
    """
    package = OPTIMIZERS[optimizer]
    if package and not is_installed(package):
        install = "-e .[gpu]" if package == "bitsandbytes" else package
        need = f"train.optimizer={optimizer} needs {package}"
        raise UserError(f"{need}; pip install {install}, or take adamw_torch_fused")


def require_four_bits(model: ModelSettings) -> None:
    """Check that a base can be had in 4 bit where it is asked for.

    Raises:
        UserError: it cannot.
    """
    if model.load_in_4bit and not is_installed("bitsandbytes"):
        raise UserError(
            "model.load_in_4bit=true needs bitsandbytes, and a GPU; pip install -e .[gpu], or take train=lora with a "
            "model in 16 bit"
        )


def this_card(device: str) -> Card | None:
    """Return the GPU that trains, or None on a CPU."""
    if device == "cpu":
        return None
    found = torch.cuda.get_device_properties(torch.cuda.current_device())
    return Card(found.name, found.total_memory, (found.major, found.minor))


def choose(
    train: TrainSettings, model: ModelSettings, card: Card | None, head_size: int, own_attention: bool = False
) -> Plan:
    """Return the engine, attention and packing, which do not depend on the data.

    Args:
        train: what is asked for.
        model: the base.
        card: None on a CPU.
        head_size: of the base's attention.
        own_attention: whether the base takes no attention but its own.

    Raises:
        UserError: something is asked for that the card, the engine or the base cannot do.
    """
    require_installed(train.optimizer)
    require_four_bits(model)
    chosen, why = choose_engine(train, model, card)
    reasons = [f"engine {chosen.name}: {why}"]
    if train.frozen_dtype == "fp8":
        require_fp8(train, chosen, card)
        reasons.append("frozen base fp8: asked for")
    chosen.refuse(train)
    if chosen.attention:
        return Plan(chosen.name, chosen.attention, False, (*reasons, "attention, loss and kernels: the engine's own"))
    attention, why = require_own_attention(train, model) if own_attention else choose_attention(train, card, head_size)
    reasons.append(f"attention {attention}: {why}")
    packs = attention in (FLASH, CUDNN)
    if packs and train.packing is False:
        raise UserError(
            f"train.attention={train.attention} is for packed conversations; take sdpa, or train.packing=auto"
        )
    packing = packs if train.packing == "auto" else bool(train.packing)
    reasons.append(f"packing {'on' if packing else 'off'}: {why_packing(train, packs)}")
    reasons += slow_parts(train)
    return Plan(chosen.name, attention, packing, tuple(reasons))


def slow_parts(train: TrainSettings) -> list[str]:
    """Return what is asked for of the adapter that is left to PEFT and Transformers, and what it costs."""
    if train.method == "full":
        return []
    parts = []
    if train.lora.dora:
        parts.append("adapter by PEFT, slow: DoRA needs the length of each row of the sum, and so the sum")
    elif train.lora.dropout:
        parts.append("adapter by PEFT, slow: its dropout is drawn for each projection anew")
    if "lm_head" in train.lora.target_modules:
        parts.append("loss by Transformers, slow: a head with an adapter gives logits of all positions")
    return parts


def require_fp8(train: TrainSettings, chosen: Engine, card: Card | None) -> None:
    """Check that a base in FP8 can be trained on.

    Raises:
        UserError: method, engine, adapter or card do not allow it.
    """
    if card is None or card.capability < (8, 9):
        raise UserError("train.frozen_dtype=fp8 needs a GPU that multiplies FP8 (Ada, Hopper or newer); take bf16")
    if not chosen.fp8 or train.method != "lora" or train.lora.dropout or train.lora.dora:
        raise UserError(
            f"train.frozen_dtype=fp8 needs train.engine={DEFAULT}, train.method=lora, train.lora.dropout=0 and no DoRA"
        )


def require_own_attention(train: TrainSettings, model: ModelSettings) -> tuple[str, str]:
    """Return the base's own attention, and why: others would leave out what it has, such as gpt-oss's sinks.

    Raises:
        UserError: another one is asked for.
    """
    if train.attention != "auto":
        raise UserError(
            f"train.attention={train.attention} would not compute what {model.name} does, whose attention is its own;"
            " take auto"
        )
    return "eager", f"{model.name}'s own, slow: no other computes what it does"


def choose_attention(train: TrainSettings, card: Card | None, head_size: int) -> tuple[str, str]:
    """Return the attention implementation's name in Transformers, and why.

    cuDNN plans its kernels for each number of conversations, which takes 40 ms and more: small updates do not earn that
    back.

    Raises:
        UserError: the card, the base or what is installed does not allow the one asked for.
    """
    attention, large = train.attention, train.update_size >= LARGE_UPDATE
    if attention == "sdpa":
        return "sdpa", "asked for"
    if card is None or card.capability < (8, 0):
        if attention != "auto":
            raise UserError(
                f"train.attention={attention} needs a GPU of compute capability 8.0 or more; take auto or sdpa"
            )
        return "sdpa", "there is no GPU" if card is None else "the card is older than FlashAttention"
    if attention == "cudnn" and not is_installed("cudnn"):
        raise UserError("train.attention=cudnn needs nvidia-cudnn-frontend; pip install -e .[gpu], or take flash")
    largest = {"cudnn": CUDNN_HEAD, "flash": FLASH_HEAD}.get(attention)
    if largest and head_size > largest:
        raise UserError(
            f"train.attention={attention} is for heads of at most {largest}, this model's have {head_size}; take auto"
        )
    if attention == "cudnn":
        return CUDNN, "asked for"
    fits = card.capability >= (9, 0) and head_size <= CUDNN_HEAD and is_installed("cudnn")
    if attention == "auto" and large and fits:
        return CUDNN, "the fastest for large updates on Hopper and newer"
    if head_size > FLASH_HEAD:
        return "sdpa", f"heads of {head_size} are too large for FlashAttention"
    return FLASH, "asked for" if attention == "flash" else "conversations of any length without padding"


def why_packing(train: TrainSettings, packs: bool) -> str:
    """Return the reason that goes with it."""
    if train.packing != "auto":
        return "asked for"
    return "no padding, each conversation attends to itself alone" if packs else "this attention would be slow at it"


def choose_compile(train: TrainSettings, plan: Plan, card: Card | None, operations: float) -> tuple[bool, str]:
    """Return whether the layers are compiled, for a training of so many operations on each GPU, and why."""
    if train.compile != "auto":
        return bool(train.compile), "compilation as asked for"
    if not engine(plan.engine).compiles or card is None:
        return False, "compilation is for TRL on a GPU"
    if card.peak is None:
        return False, f"{card.name} is not known here; train.compile=true tries it"
    seconds = operations / card.peak
    return (
        seconds >= WORTH_COMPILING,
        f"compilation pays from {WORTH_COMPILING:.0f} s of arithmetic on, here {seconds:.0f} s",
    )
