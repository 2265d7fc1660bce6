"""What PyTorch hands to the two directions of an operation of our own; its stubs leave some of it out."""

import torch


class Context(torch.autograd.function.FunctionCtx):
    """Base of an operation's own class, which names what it keeps for the way back."""

    saved_tensors: tuple[torch.Tensor, ...]
    needs_input_grad: tuple[bool, ...]
