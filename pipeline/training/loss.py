"""The loss on what the assistant says, without the logits of everything else."""

import importlib.util
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from peft.utils import ModulesToSaveWrapper
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from pipeline.models.heads import CHUNK, is_known_to_do_more
from pipeline.training.autograd import Context
from pipeline.training.lora import ADAPTER

NEAREST = 16  # parameters, of the last layer mostly: the way back to them takes little time and memory
DENSE = {"gate_proj", "up_proj", "down_proj"}  # what an MLP is made of, unless it routes tokens to experts


def learn_from_supervised(model: Any) -> None:
    """Have a causal language model compute its loss from the hidden states of supervised positions alone.

    Its head then multiplies fewer rows, and never has all of their logits at once; so does the MLP of its last layer,
    whose outputs no other position attends to. Its `forward` takes `positions` and `targets` as `Conversations` gives
    them, and `counts` as `Comparisons` does: the loss is then that of each answer. A model whose head does more than
    multiply keeps its own.
    """
    head, config = model.get_output_embeddings(), model.config
    if isinstance(head, ModulesToSaveWrapper):  # PEFT's, around the one that learns
        head = head.modules_to_save[ADAPTER]
    plain = type(head) is torch.nn.Linear and head.bias is None
    inner = isinstance(model.base_model, torch.nn.Module) and model.base_model is not model
    if not plain or not inner or is_known_to_do_more(config):
        return
    last = last_mlp(model)
    if last is not None:
        compute_at_positions(last)

    def forward(
        self: PreTrainedModel,
        positions: torch.Tensor,
        targets: torch.Tensor,
        num_items_in_batch: int = 1,
        counts: torch.Tensor | None = None,
        **inputs: torch.Tensor,
    ) -> CausalLMOutput:
        if last is not None:
            last.positions = positions if len(positions) else positions.new_zeros(1)  # kernels want a row
        hidden = self.base_model(use_cache=False, **inputs).last_hidden_state.flatten(0, 1)
        supervised: Any = Rows.apply(hidden, positions)
        if hit_rate := getattr(self, "hit_rate", None):
            hit_rate.count(supervised, head.weight, targets)
        nats: Any
        if counts is None:
            nats = linear_cross_entropy(supervised, head.weight, targets) / num_items_in_batch
        else:
            nats = by_answer(token_nats(supervised, head.weight, targets), counts)
        return CausalLMOutput(loss=nats)

    model.forward = MethodType(forward, model)
    model.learns_from_supervised = True


class HitRate:
    """The share of the supervised tokens that the model would have chosen: its `hit_rate`, while it is measured."""

    def __init__(self, device: torch.device) -> None:
        """Begin with none."""
        self.counts = torch.zeros(2, device=device)  # hits, and all

    def count(self, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> None:
        """Add positions; arguments are those of `linear_cross_entropy`."""
        for part, ids in zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True):
            chosen = torch.nn.functional.linear(part.to(weight.dtype), weight).argmax(-1)
            self.counts += torch.stack(((chosen == ids).sum(), torch.full_like(ids.sum(), len(ids))))


def learn_as_made(model: Any) -> None:
    """Take back what `learn_from_supervised` has done to a model."""
    del model.forward, model.learns_from_supervised
    last = last_mlp(model)
    if last is not None:
        del last.forward


def check_loss(model: PreTrainedModel, compute: Callable[[], torch.Tensor], tolerance: float) -> bool:
    """Leave a model its own loss where ours is another one: its head may do more than its configuration shows.

    Nothing remains of the comparison in weights, gradients and the random state.

    Args:
        model: a causal language model after `learn_from_supervised`.
        compute: the loss of some conversation in nats, a scalar, as the model computes it when this is called.
        tolerance: of the loss to the model's own, and of each gradient's norm to the largest.

    Returns:
        Whether ours is the model's own, and stays.
    """
    try:
        loss, norms = loss_and_norms(model, compute)
    except (AttributeError, IndexError, TypeError, ValueError):  # it takes other inputs, or gives other outputs
        loss, norms = torch.tensor(torch.nan), torch.zeros(())
    learn_as_made(model)
    own_loss, own_norms = loss_and_norms(model, compute)
    if not torch.allclose(loss, own_loss, rtol=tolerance, atol=0.0):
        return False
    if not torch.allclose(norms, own_norms, rtol=0.0, atol=tolerance * own_norms.max().item()):
        return False
    learn_from_supervised(model)
    return True


def loss_and_norms(model: PreTrainedModel, compute: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss without dropout, and the gradients' norms of the NEAREST parameters that learn, on the CPU."""
    training = model.training
    model.eval()
    with torch.random.fork_rng():
        loss = compute()
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad][-NEAREST:]
    gradients = torch.autograd.grad(loss, learning, allow_unused=True)
    model.train(training)
    norms = [torch.zeros(()) if gradient is None else gradient.float().norm().cpu() for gradient in gradients]
    return loss.detach().float().cpu(), torch.stack(norms)


def last_mlp(model: PreTrainedModel) -> Any:
    """Return the MLP of a model's last decoder layer, or None where it is another kind of thing."""
    layers = getattr(model.base_model, "layers", None)
    mlp = getattr(layers[-1], "mlp", None) if layers else None
    return mlp if mlp is not None and {name for name, _ in mlp.named_children()} >= DENSE else None


def compute_at_positions(mlp: Any) -> None:
    """Have an MLP compute the rows at its attribute `positions` alone, each there once.

    The others come out as zeros.
    """
    whole = mlp.forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        rows = x.flatten(0, -2)
        computed = whole(Rows.apply(rows, mlp.positions)[None])[0]
        return torch.zeros_like(rows).index_copy(0, mlp.positions, computed.to(rows.dtype)).view_as(x)

    mlp.forward = forward


class RowsContext(Context):
    """What is kept for the way back."""

    rows: int  # of the matrix


class Rows(torch.autograd.Function):
    """Rows of a matrix, each once at most: so a gradient is copied to its place, where indexing would add it there."""

    @staticmethod
    def forward(ctx: RowsContext, matrix: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Take rows out of a matrix of shape (rows, columns)."""
        ctx.save_for_backward(positions)
        ctx.rows = len(matrix)
        return matrix.index_select(0, positions)

    @staticmethod
    def backward(ctx: RowsContext, *grown: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return gradients in the order of `forward`'s arguments."""
        (positions,) = ctx.saved_tensors
        return grown[0].new_zeros(ctx.rows, grown[0].shape[1]).index_copy_(0, positions, grown[0]), None


def linear_cross_entropy(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the negative log-likelihood of `targets`, summed over positions, in nats.

    Args:
        hidden: of shape (positions, hidden size).
        weight: the head's, frozen or not, of shape (vocabulary, hidden size).
        targets: token ids of shape (positions).

    By Liger's fused kernel on a GPU where it is installed (Hsu et al. 2024), else chunk by chunk, recomputed backward.
    """
    if not len(targets):  # no loss, and yet a gradient of all that learns: others wait for it
        return (hidden.sum() + weight.sum()) * 0.0 if weight.requires_grad else hidden.sum() * 0.0
    if hidden.is_cuda and importlib.util.find_spec("liger_kernel"):
        from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

        return liger_fused_linear_cross_entropy(hidden.to(weight.dtype), weight, targets, reduction="sum")
    parts = zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True)
    return torch.stack([checkpoint(_nats, part, weight, ids, use_reentrant=False) for part, ids in parts]).sum()


def _nats(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, reduction: str = "sum") -> torch.Tensor:
    logits = torch.nn.functional.linear(hidden.to(weight.dtype), weight)
    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction=reduction)


def by_answer(nats: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Return the sum over each answer of what its tokens have, which stand one after another, so many of each."""
    return torch.segment_reduce(nats, "sum", lengths=counts, initial=0, unsafe=True)  # in one order, to the bit


def answer_nats(
    logits: torch.Tensor, positions: torch.Tensor, targets: torch.Tensor, counts: torch.Tensor
) -> torch.Tensor:
    """Return what `forward` above gives for `counts`, from the logits of a model that keeps its own."""
    supervised = logits.flatten(0, 1).index_select(0, positions)
    return by_answer(torch.nn.functional.cross_entropy(supervised.float(), targets, reduction="none"), counts)


class TokenNatsContext(Context):
    """What is kept for the way back."""


class TokenNats(torch.autograd.Function):
    """The negative log-likelihood of each token, under a frozen head.

    Each one's gradient is made while its logits are there, as if nothing followed, and multiplied by what comes back:
    logits are computed once, as in Liger's kernel (Hsu et al. 2024), which is for a sum alone.
    """

    @staticmethod
    def forward(
        ctx: TokenNatsContext, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """Compute it chunk by chunk; arguments are those of `token_nats`."""
        nats, gradients = [hidden.new_empty(0, dtype=torch.float32)], [hidden.new_empty(0, hidden.shape[1])]
        for part, ids in zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True):
            logits = torch.nn.functional.linear(part.to(weight.dtype), weight).float()
            likely = logits.log_softmax(1)
            nats.append(-likely.gather(1, ids[:, None])[:, 0])
            if ctx.needs_input_grad[0]:
                change = likely.exp_().scatter_add_(1, ids[:, None], likely.new_full((len(ids), 1), -1.0))
                gradients.append((change.to(weight.dtype) @ weight).to(hidden.dtype))
        ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(nats)

    @staticmethod
    def backward(ctx: TokenNatsContext, *grown: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Return gradients in the order of `forward`'s arguments."""
        (gradients,) = ctx.saved_tensors
        return gradients * grown[0][:, None].to(gradients.dtype), None, None


def token_nats(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the negative log-likelihood of each of `targets`, in nats, of shape (positions).

    Args:
        hidden: of shape (positions, hidden size).
        weight: the head's, frozen or not, of shape (vocabulary, hidden size).
        targets: token ids of shape (positions).
    """
    if not weight.requires_grad:
        nats: torch.Tensor = TokenNats.apply(hidden, weight, targets)
        return nats
    parts = zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True)
    found = [checkpoint(_nats, part, weight, ids, "none", use_reentrant=False) for part, ids in parts if len(ids)]
    return torch.cat([hidden.sum(1)[:0] + weight.sum() * 0.0, *found])
