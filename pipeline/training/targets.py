"""What an adapter sits on: modules found by name in a model, which needs no weights for it."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from common.errors import UserError
from pipeline.core.config import LoraSettings, TrainSettings

ALL = "all-linear"
Matrix = torch.nn.Linear | Conv1D  # the latter is GPT-2's
Adaptable = Matrix | torch.nn.Embedding
Module = TypeVar("Module", bound=torch.nn.Module)
# What configurations call the number of experts that a gate chooses among.
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


def target_names(model: PreTrainedModel, lora: LoraSettings) -> list[str]:
    """Return the modules with an adapter beside them, by names under which PEFT finds these and no others.

    Args:
        model: a causal language model without an adapter.
        lora: what is asked for: all-linear, or names as `q_proj` or `self_attn.q_proj`.

    Raises:
        UserError: it has no module of one of the names.
    """
    return shortened(model, targets(model, lora))


def spelt_out(train: TrainSettings, model: PreTrainedModel) -> TrainSettings:
    """Return the settings with the names that all-linear stands for, which are the same training."""
    if train.lora.target_modules != ALL:
        return train
    return replace(train, lora=replace(train.lora, target_modules=target_names(model, train.lora)))


def coverage(model: PreTrainedModel, train: TrainSettings) -> list[str]:
    """Return what learns by an adapter, what learns whole, and which of the decoder's matrices stay as they are.

    In one line.

    Raises:
        UserError: the model has no module of a name.
    """
    if train.method == "full":
        return []
    on, whole = targets(model, train.lora), saved(model, train.lora)
    share = sum(size(module) for module in on.values()) / size(model)
    line = f"adapter on {len(on)} modules ({', '.join(short_names(on))}) with {share:.1%} of the weights"
    line += f"; whole: {', '.join(short_names(whole))}" if whole else ""
    left = [name for name in matrices(model.get_decoder()) if not any(has_name(full, name) for full in {**on, **whole})]
    return [line + (f"; as they are: {', '.join(short_names(left))}" if left else "")]


def matrices(decoder: torch.nn.Module) -> list[str]:
    """Return names of a decoder's weights of two dimensions and more but its embeddings'; experts' have no module."""
    vocabulary = {id(module.weight) for module in decoder.modules() if isinstance(module, torch.nn.Embedding)}
    return [
        name.removesuffix(".weight")
        for name, weight in decoder.named_parameters()
        if weight.dim() > 1 and id(weight) not in vocabulary and not name.endswith("bias")
    ]


def size(module: torch.nn.Module) -> int:
    """Return numbers that its weights have."""
    return sum(weight.numel() for weight in module.parameters())


def targets(model: PreTrainedModel, lora: LoraSettings) -> Mapping[str, Adaptable]:
    """Return the same modules by their full names, in the model's order.

    Raises:
        UserError: it has no module of one of the names.
    """
    if lora.target_modules == ALL:
        return projections(model)
    return named("target_modules", model, lora.target_modules, adaptable(model), f"{ALL}, or a list of ")


def saved(model: PreTrainedModel, lora: LoraSettings) -> dict[str, torch.nn.Module]:
    """Return the modules that learn whole beside the adapter, by full names.

    PEFT takes `norm` for `input_layernorm`, too.

    Raises:
        UserError: it has no module of one of the names.
    """
    weighted = {name: module for name, module in own_modules(model).items() if [*module.parameters(recurse=False)]}
    return named("modules_to_save", model, lora.modules_to_save, weighted, "a list of ")


def named(
    key: str, model: PreTrainedModel, names: Iterable[str], there: dict[str, Module], may_be: str
) -> dict[str, Module]:
    """Return those of the modules `there` that have one of the names, each of which must be one's.

    Raises:
        UserError: a name is none's.
    """
    missing = [name for name in names if not any(has_name(full, name) for full in there)]
    if missing:
        raise UserError(
            f"train.lora.{key} names {', '.join(missing)}, which {type(model).__name__} does not have; "
            f"it may be {may_be}{', '.join(short_names(there))}"
        )
    return {full: module for full, module in there.items() if any(has_name(full, name) for name in names)}


def projections(model: PreTrainedModel) -> dict[str, Matrix]:
    """Return the decoder's matrices but those that choose among experts: what all-linear stands for."""
    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in own_modules(model).items()
        if isinstance(module, Matrix) and module is not head and not is_gate(name, module, model.config)
    }


def adaptable(model: PreTrainedModel) -> dict[str, Adaptable]:
    """Return the modules that PEFT has an adapter for: matrices, the head's among them, and embeddings."""
    return {name: module for name, module in own_modules(model).items() if isinstance(module, Adaptable)}


def own_modules(model: PreTrainedModel) -> dict[str, torch.nn.Module]:
    """Return the modules of a model's decoder and its head by full names.

    What reads images or sound is not among them.
    """
    own = {*model.get_decoder().modules(), model.get_output_embeddings()}
    return {name: module for name, module in model.named_modules() if module in own}


def is_gate(name: str, module: Matrix, config: PreTrainedConfig) -> bool:
    """Return whether a matrix weighs experts, a number a token and expert, and does nothing else."""
    experts = {getattr(config.get_text_config(), key, None) for key in EXPERTS}
    return any(word in last_part(name) for word in ("gate", "router")) and width(module)[1] in {1, *experts}


def width(module: Adaptable) -> tuple[int, int]:
    """Return numbers that a matrix takes a token, and that it gives; an embedding takes one of so many ids."""
    if isinstance(module, torch.nn.Embedding):
        return module.num_embeddings, module.embedding_dim
    return (module.nx, module.nf) if isinstance(module, Conv1D) else (module.in_features, module.out_features)


def tied(model: PreTrainedModel) -> bool:
    """Return whether embedding and head are one matrix."""
    return bool(model.config.get_text_config().tie_word_embeddings)


def shortened(model: PreTrainedModel, modules: Iterable[str]) -> list[str]:
    """Return full names cut to their last parts where all modules of that name are among them."""
    full_names = dict.fromkeys(modules)
    others = {last_part(name) for name, _ in model.named_modules() if name not in full_names}
    return list(dict.fromkeys(name if last_part(name) in others else last_part(name) for name in full_names))


def short_names(modules: Iterable[str]) -> list[str]:
    """Return the last parts of their names, each once."""
    return list(dict.fromkeys(map(last_part, modules)))


def has_name(full: str, name: str) -> bool:
    """Return whether a module is called so: by its full name or the last parts of it."""
    return full == name or full.endswith(f".{name}")


def last_part(full: str) -> str:
    """Return the last part of a module's name."""
    return full.rpartition(".")[2]
