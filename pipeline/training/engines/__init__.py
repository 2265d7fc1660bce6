"""The engines that can train a model: a file each, whose name is what `train.engine` takes.

A file has a class with what its engine can do, and one of it as ENGINE. All that is asked of an engine stands in
`Engine`; no other module asks which one it is.
"""

import importlib.util
from abc import ABC, abstractmethod
from importlib import import_module
from typing import TYPE_CHECKING

from common.errors import UserError
from pipeline.core.config import ENGINES, ModelSettings, TrainSettings

if TYPE_CHECKING:
    from pipeline.training.lora import Model
    from pipeline.training.plan import Card, Plan

DEFAULT = "trl"  # that `auto` takes where none is better; needs nothing but what all need, and refuses no setting


class Engine(ABC):
    """What loads a model to be trained, and what it can do with it."""

    package: str | None = None  # in Python, of one that not everybody has
    libraries: tuple[str, ...] = ()  # packages whose versions a checkpoint names beside those that all have
    attention: str | None = None  # what its own is called in reports; None for one that is chosen by the card
    compiles = True  # whether its layers may be compiled
    fp8 = True  # whether a frozen base may be in FP8
    offloads = True  # whether activations may wait in main memory
    recomputes = False  # whether it is told when it loads that activations are recomputed, and does that its own way
    shards = True  # whether GPUs may share the weights; else each has all of them

    @property
    def name(self) -> str:
        """That of its file."""
        return type(self).__module__.rpartition(".")[2]

    def best_for(self, model: ModelSettings, card: "Card | None") -> str | None:
        """Return why `auto` takes it for a base on a card, or on a CPU (None); None where it does not."""
        return None

    def left_out(self, train: TrainSettings) -> str | None:
        """Return a setting that it would leave out without a word, or do otherwise; None where it does all of them."""
        return None

    def refuse(self, train: TrainSettings) -> None:
        """Refuse what it would leave out.

        Raises:
            UserError: some of that is asked for.
        """
        if setting := self.left_out(train):
            raise UserError(
                f"{setting} is for train.engine={DEFAULT}; {self.name.capitalize()} would ignore or change it."
                f" Take {DEFAULT}, or auto"
            )

    @abstractmethod
    def load(
        self, plan: "Plan", model: ModelSettings, train: TrainSettings, device: str, digest: str | None = None
    ) -> "Model":
        """Return the base, ready to train on `device`: with its adapter, or whole under `train.method: full`.

        Args:
            plan: how it is trained.
            model: the base.
            train: what is asked for.
            device: `cpu` or `cuda`.
            digest: of the base's files, by which an engine that can keeps its weights for the next training.

        Raises:
            UserError: the weights cannot be loaded, or are of no use to it.
        """


def engine(name: str) -> Engine:
    """Return an engine by its name."""
    found: Engine = import_module(f"{__name__}.{name}").ENGINE
    return found


def is_installed(package: str) -> bool:
    """Return whether an optional package, by its name in Python, is there."""
    return importlib.util.find_spec(package) is not None


def choose_engine(train: TrainSettings, model: ModelSettings, card: "Card | None") -> tuple[Engine, str]:
    """Return the engine that is asked for or, for `auto`, the best that does all that is asked for, and why.

    Raises:
        UserError: one is asked for that is not installed.
    """
    if train.engine != "auto":
        return require_package(engine(train.engine)), "asked for"
    suited = {other: why for other in map(engine, ENGINES) if (why := other.best_for(model, card))}
    for other, why in suited.items():
        if has_package(other) and not other.left_out(train):
            return other, why
    if suited:
        why = ", ".join(why_not(other, train) for other in suited)
    elif card is None:
        why = "there is no GPU"
    else:
        why = f"the fastest where memory is not scarce ({card.memory / 2**30:.0f} GiB)"
    return engine(DEFAULT), why


def why_not(candidate: Engine, train: TrainSettings) -> str:
    """Return why `auto` does not take an engine that suits base and card."""
    setting = candidate.left_out(train)
    return f"{candidate.name} would ignore {setting}" if setting else f"{candidate.name} is not installed"


def has_package(candidate: Engine) -> bool:
    """Return whether what an engine needs is there."""
    return candidate.package is None or is_installed(candidate.package)


def require_package(candidate: Engine) -> Engine:
    """Return an engine whose package is there.

    Raises:
        UserError: it is not.
    """
    if not has_package(candidate):
        install = f"pip install -e .[{candidate.package}], or take {DEFAULT}"
        raise UserError(f"train.engine is {candidate.name}, which is not installed; {install}")
    return candidate
