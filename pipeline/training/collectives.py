"""What processes that train together tell one another; alone, each of these is nothing."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from accelerate import PartialState
from transformers import logging

from pipeline.workers.ranks import local_rank, rank, world

LONGEST = timedelta(hours=1)  # that one of them works while the others wait, as the first one does on the data

Value = TypeVar("Value")


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """Meet the others, and part from them when the block ends well; each takes a GPU of its own."""
    if rank():  # the first one warns for all
        logging.set_verbosity_error()
    if device == "cuda":
        torch.cuda.set_device(local_rank())
    if world() > 1:
        PartialState(cpu=device == "cpu", timeout=LONGEST)
    yield
    if world() > 1:
        dist.destroy_process_group()


def first_value(value: Value | None) -> Value | None:
    """Return the value of the first process that has one."""
    if world() == 1:
        return value
    if not any_rank(value is not None):
        return None
    values: list[Value | None] = [None] * world()
    dist.all_gather_object(values, value, group=_line())
    return next(value for value in values if value is not None)


def any_rank(flag: bool) -> bool:
    """Return whether it is so in any process; all have come so far then."""
    if world() == 1:
        return flag
    shared_flag = torch.tensor([int(flag)])
    dist.all_reduce(shared_flag, dist.ReduceOp.MAX, group=_line())
    return bool(shared_flag.item())


def barrier() -> None:
    """Return once all processes have come so far."""
    any_rank(False)


def broadcast(make: Callable[[], Value]) -> Value:
    """Return what the first process makes, which alone does; it is handed to the others."""
    if world() == 1:
        return make()
    values = [make() if rank() == 0 else None]
    dist.broadcast_object_list(values, src=0, group=_line())
    return cast(Value, values[0])


@contextmanager
def main_process_first() -> Iterator[None]:
    """Let one process of a machine run the block before the others, who find in the cache what it has made."""
    if local_rank():
        barrier()
    yield
    if not local_rank():
        barrier()


@functools.cache
def _line() -> dist.ProcessGroup | None:
    """Return the backend that processes talk over.

    Not NCCL, for which each word would wait until the GPUs have done all that is before it.
    """
    return dist.new_group(backend="gloo", timeout=LONGEST) if dist.get_backend() == "nccl" else None
