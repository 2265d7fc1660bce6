"""The models that are served at one moment: by name, and what one of them takes with it into memory.

A catalogue never changes. The engine has one (`Engine.catalogue`), and takes another in its place (`Engine.change`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from serve.limits import unknown_model
from serve.models.registry import Model, in_place


class Stack(NamedTuple):
    """What is in memory together: a model, the adapters over it, and the model that drafts for it."""

    base: Model
    adapters: tuple[Model, ...] = ()
    draft: Model | None = None


@dataclass(frozen=True)
class Catalogue:
    """Models by name, and by the names that they are asked for under besides."""

    models: Mapping[str, Model]
    heirs: Mapping[str, str] = field(
        default_factory=dict
    )  # by the name of one that is gone, the name of what is in its place
    draft: str = ""  # the name of the model that drafts for others
    drafted: frozenset[str] = frozenset()  # their names

    @cached_property
    def answering(self) -> dict[str, Model]:
        """Those that answer."""
        return {name: model for name, model in self.models.items() if not model.embeds}

    @cached_property
    def embedders(self) -> dict[str, Model]:
        """Those that make vectors."""
        return {name: model for name, model in self.models.items() if model.embeds}

    @cached_property
    def by_every_name(self) -> dict[str, Model]:
        """All, by each name that stands for one; what a name of an alias may go on with is left out."""
        names = [*self.models, *self.heirs, *(name.partition("/")[0] for name in self.models)]
        return {name: model for name in names if (model := self.get(name))}

    def get(self, name: str) -> Model | None:
        """Return the model that a name stands for: its own, or the one in the place of what had the name."""
        return self.models.get(name) or self.models.get(self.heirs.get(name, "")) or in_place(name, self.models)

    def find(self, name: object) -> Model:
        """Return the same of any name. Raises RequestError for one that stands for no model."""
        model = self.get(name) if isinstance(name, str) else None
        if model is None:
            raise unknown_model(name, self.models)
        return model

    def stack(self, model: Model) -> Stack:
        """Return what is in memory with a model."""
        base = self.models[model.base] if model.base else model
        over = tuple(other for other in self.models.values() if other.base == base.name)
        return Stack(base, over, self.models[self.draft] if base.name in self.drafted else None)
