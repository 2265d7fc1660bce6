"""Full fine-tuning over several GPUs: weights, gradients and optimizer in shards (FSDP2), checkpoints whole.

On disk there is what one process writes, so that any number of processes goes on from it.
"""

from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    ValueType,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.lr_scheduler import LRScheduler

from pipeline.workers.ranks import rank, world

# As Transformers names them.
OPTIMIZER = "optimizer.pt"
SCHEDULER = "scheduler.pt"
T = TypeVar("T")


def shard(model: Any, bf16: bool) -> None:
    """Leave each process a part of every weight; a decoder layer is gathered when it is computed.

    Gathered in bf16 where that is computed in; gradients add up in float32, as they do on one GPU. (Accelerate would do
    the same, but on GPUs alone: this way the tests, on a CPU, go through it.)
    """
    device = next(model.parameters()).device.type
    mesh = init_device_mesh(device, (world(),))
    policy = MixedPrecisionPolicy(torch.bfloat16 if bf16 else None, torch.float32)
    for part in (*model.model.layers, model):
        fully_shard(part, mesh=mesh, mp_policy=policy)
    model._is_accelerate_prepared = True  # or it would copy the model to each process, as an adapter's


def whole_weights(model: torch.nn.Module) -> dict[str, ValueType]:
    """Return the weights gathered in the first process's memory, tied ones once; all take part."""
    whole = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    every, once = (dict(model.named_parameters(remove_duplicate=only_once)) for only_once in (False, True))
    return {name: weight for name, weight in whole.items() if name in once or name not in every}


def save(optimizer: torch.optim.Optimizer, scheduler: LRScheduler, folder: Path) -> None:
    """Write both states into a checkpoint; all processes take part, the first one writes."""
    whole = optimizer.state_dict()
    whole["state"] = {index: {name: gathered(v) for name, v in of.items()} for index, of in whole["state"].items()}
    if rank() == 0:
        torch.save(whole, folder / OPTIMIZER)
        torch.save(scheduler.state_dict(), folder / SCHEDULER)


def load(optimizer: torch.optim.Optimizer, scheduler: LRScheduler, folder: Path) -> None:
    """Read both states, of the optimizer each process its shards."""
    whole = torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True, mmap=True)
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    whole["state"] = {
        index: {name: sharded(v, weights[index]) for name, v in of.items()} for index, of in whole["state"].items()
    }
    optimizer.load_state_dict(whole)
    scheduler.load_state_dict(torch.load(folder / SCHEDULER, weights_only=True))


def load_weights(model: torch.nn.Module, folder: Path) -> None:
    """Read the weights of a checkpoint."""
    whole: dict[str, ValueType] = {}
    for path in sorted(folder.glob("model*.safetensors")) if rank() == 0 else ():
        whole |= load_file(path)
    # Not strict: tied weights are there once.
    set_model_state_dict(
        model, whole, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=False)
    )


def gathered(value: T) -> T | torch.Tensor | None:
    """Return a tensor whole, in the first process's memory; anything else as it is."""
    if not isinstance(value, DTensor):
        return value
    whole = value.full_tensor()
    return whole.cpu() if rank() == 0 else None


def plain(value: T) -> T | torch.Tensor:
    """Return a tensor whole, in each process; anything else as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def sharded(value: T, like: torch.Tensor) -> T | torch.Tensor:
    """Return a whole tensor in the shards of the weight that it belongs to; anything else as it is."""
    if not isinstance(like, DTensor) or not isinstance(value, torch.Tensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
