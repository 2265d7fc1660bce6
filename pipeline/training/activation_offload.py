"""Activations in main memory while the GPU does not need them."""

import torch
from torch.autograd.graph import saved_tensors_hooks


class ActivationOffloading(saved_tensors_hooks):
    """Keeps what is saved for the backward pass in main memory, but for a model's weights.

    With activations recomputed, that is each layer's input. Copies are queued in order with the computation: the
    processor does not wait for them, and no tensor is freed too early.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        """For a model that is where it will be trained."""
        self.weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        super().__init__(self.put_away, fetched)

    def put_away(self, tensor: torch.Tensor) -> torch.Tensor | tuple[torch.device, torch.Tensor]:
        """Return its copy in main memory, and where it was; a weight stays."""
        if tensor.untyped_storage().data_ptr() in self.weights:
            return tensor
        copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        return tensor.device, copy.copy_(tensor, non_blocking=True)


def fetched(saved: torch.Tensor | tuple[torch.device, torch.Tensor]) -> torch.Tensor:
    """Return the tensor where it was."""
    if isinstance(saved, torch.Tensor):
        return saved
    device, copy = saved
    return copy.to(device, non_blocking=True)
