"""What trainings of one process share: a sweep's next job begins at once, and yet gives what it gives alone.

Nothing is shared that a training writes to, and of each kind the newest alone is kept: a sweep's jobs mostly learn
from the same rows, on the same base.
"""

import copy
import gc
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipeline.training.interruption import process_began

Made = TypeVar("Made")


class Kept(Generic[Made]):
    """The newest of a kind, for the next that asks for the same."""

    def __init__(self) -> None:
        """Begin with none."""
        self.key: object = None
        self.made: Made | None = None

    def get(self, key: object, make: Callable[[], Made]) -> Made:
        """Return what was made under `key`, or make it; what is of another key goes first, as there may be no room."""
        if self.made is None or self.key != key:
            self.drop()
            self.made, self.key = make(), key
        return self.made

    def drop(self) -> None:
        """Keep none."""
        self.key = self.made = None


class Weights:
    """A base as it was loaded, whose weights trainings share: each has modules of its own around them."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Take a base that nothing has been done to."""
        self.model = model
        self.states = self.written()

    def written(self) -> list[int]:
        """Return how often each weight was written to, by PyTorch's count; views of a weight are counted with it."""
        return [weight._version for weight in self.model.parameters()]

    def untouched(self) -> bool:
        """Return whether no training has written to a weight."""
        return self.written() == self.states

    def wrapped(self) -> PreTrainedModel:
        """Return the base as new modules around the same weights; whether they learn is each training's own."""
        return copy.deepcopy(self.model, {id(weight): same_memory(weight) for weight in self.model.parameters()})


class Trainings:
    """The trainings of this process, one after another."""

    def __init__(self) -> None:
        """Begin with none."""
        self.count = 0
        self.latest = 0.0  # when it began, in seconds since the epoch
        self.compiled: object = None  # what layers were compiled for

    @property
    def began(self) -> float:
        """When the present one began: the first with its process, or with that which launched it."""
        return self.latest if self.count > 1 else process_began()

    def compile(self, key: object) -> None:
        """Drop what is compiled, unless that was for the same key.

        PyTorch keeps few graphs of a layer, and computes without one where they are all for others.
        """
        if key != self.compiled:
            torch.compiler.reset()
        self.compiled = key

    @contextmanager
    def one(self) -> Iterator[None]:
        """Begin one with all memory but what is shared; one that ends by an exception keeps no memory by that."""
        self.count, self.latest = self.count + 1, time.time()
        free_memory()
        if self.count == 1:
            gc.freeze()  # what is imported: or each look for garbage goes through all of it, a tenth of a second
        try:
            yield
        except BaseException as error:
            let_go(error)
            raise


TRAININGS = Trainings()
TOKENIZER: Kept[PreTrainedTokenizerBase] = Kept()
WEIGHTS: Kept[Weights] = Kept()


def shared_base(key: object, load: Callable[[], PreTrainedModel]) -> PreTrainedModel:
    """Return a base around weights that are kept for the next training, where that is sure to change nothing.

    Args:
        key: all that its weights depend on; None to keep none.
        load: the same base, out of its files.

    Raises:
        UserError: it cannot be loaded.
    """
    if WEIGHTS.made is not None and not WEIGHTS.made.untouched():
        WEIGHTS.drop()
    if WEIGHTS.made is not None and WEIGHTS.key == key:
        return WEIGHTS.made.wrapped()
    WEIGHTS.drop()
    before = random_states()
    base = load()
    # Where that drew random numbers, a training that finds it done would go on with others.
    if key is None or random_states() != before or not is_plain(base):
        return base
    return WEIGHTS.get(key, lambda: Weights(base)).wrapped()


def is_plain(model: PreTrainedModel) -> bool:
    """Return whether a copy of a model's modules around its weights is the same model.

    Quantized weights have more to them, and hooks and forward passes put into a module mean that very module.
    """
    plain = all(type(weight) is torch.nn.Parameter for weight in model.parameters())
    return plain and not any(
        "forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks for module in model.modules()
    )


def same_memory(weight: torch.nn.Parameter) -> torch.nn.Parameter:
    """Return another parameter over the numbers of one, with its marks."""
    twin = torch.nn.Parameter(weight.detach(), weight.requires_grad)
    vars(twin).update(vars(weight))
    return twin


def random_states() -> list[bytes]:
    """Return those of PyTorch, on the CPU and on the GPU in use."""
    states = [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else [])]
    return [state.numpy().tobytes() for state in states]


def let_go(error: BaseException | None) -> None:
    """Clear what the frames of an exception hold, and those of its causes: somebody may keep it."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def free_memory() -> None:
    """Give back what no tensor holds any more, and measure the peak anew."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
