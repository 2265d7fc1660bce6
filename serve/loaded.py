"""The models in memory, and how others come in their place while answers are given.

All of it is for the engine's worker, but for `change`: that is for another thread, which loads there what is to come,
and has the worker take it between two steps.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from common.errors import UserError
from llama.batch import Batch
from llama.embedding import Embedder
from llama.turn import Turn
from serve.loading import check_room, find_drafted, load_stack
from serve.models.catalogue import Catalogue, Stack
from serve.models.registry import Model
from serve.settings import Settings

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Worker(Protocol):
    """Whoever owns the models."""

    def __call__(self, job: Callable[[], T], /) -> T:
        """Do something between two steps, and return what comes of it. Raises Stopping when there is no worker."""


@dataclass(eq=False)
class Leaving:
    """A model that takes no more answers and gives those that it has begun; then it goes."""

    batch: Batch | Embedder
    since: float | None = None  # monotonic clock: from when on two are in memory
    gone: threading.Event = field(default_factory=threading.Event)


class LoadedModels:
    """Those in memory, of a catalogue that may change."""

    def __init__(self, catalogue: Catalogue, settings: Settings) -> None:
        """Load the model to begin with.

        Raises UserError if the model that is set, or any, cannot be loaded.
        """
        self._settings = settings
        # By the name of the base: what the catalogue has there. The one used last stands last.
        self.by_name: OrderedDict[str, Batch | Embedder] = OrderedDict()
        self.leaving: list[Leaving] = []
        self.changing = threading.Event()  # while it is set, whoever changes the catalogue is the one who loads
        self._seconds_with_two = 0.0
        self.catalogue = self._with_drafts(catalogue)  # the worker alone sets it from here on
        self.default = self._load_first(settings.model)

    @property
    def batches(self) -> list[Batch | Embedder]:
        """All of them, those on their way out, too."""
        return [*self.by_name.values(), *(leaving.batch for leaving in list(self.leaving))]

    @property
    def names(self) -> list[str]:
        """Their names, but for those on their way out; an adapter is with its base."""
        catalogue, loaded = self.catalogue, list(self.by_name)
        return [name for name, model in catalogue.models.items() if (model.base or name) in loaded]

    @property
    def seconds_with_two(self) -> float:
        """Seconds in which a model was in memory beside the one in its place, all swaps together."""
        since = min((leaving.since for leaving in list(self.leaving) if leaving.since), default=None)
        return self._seconds_with_two + (time.monotonic() - since if since else 0)

    def batch(self, model: Model) -> Batch | Embedder | None:
        """Return the model, loaded if it is not; None while another one must stay for the answers that it is giving.

        An adapter's is its base's. Beyond the number kept, the one unused for longest goes first.
        """
        stack = self.catalogue.stack(model)
        name = stack.base.name
        if name not in self.by_name:
            if self.changing.is_set():
                return None
            while len(self.by_name) >= self._settings.max_loaded_models:
                unused = next(
                    (name for name, batch in self.by_name.items() if not (batch.active or batch.reading)), None
                )
                if unused is None:
                    return None
                self.by_name.pop(unused).close()
            self.by_name[name] = load_stack(stack, self._settings)
        self.by_name.move_to_end(name)
        return self.by_name[name]

    def let_go(self) -> None:
        """Free the models that are on their way out and have ended their answers."""
        for leaving in list(self.leaving):
            if not (leaving.batch.active or leaving.batch.reading):
                leaving.batch.close()
                self.drop(leaving.batch)

    def drop(self, batch: Batch | Embedder) -> None:
        """Know a model no more, with whatever state it is in."""
        for name in [name for name, loaded in self.by_name.items() if loaded is batch]:
            del self.by_name[name]
        for leaving in [leaving for leaving in self.leaving if leaving.batch is batch]:
            self.leaving.remove(leaving)
            self._seconds_with_two += time.monotonic() - leaving.since if leaving.since else 0
            leaving.gone.set()

    def close(self) -> list[Turn]:
        """Free all of them; return the turns that were under way."""
        batches = self.batches
        turns = [turn for batch in batches for turn in batch.close()]
        for batch in batches:
            self.drop(batch)
        return turns

    def change(self, after: Catalogue, do: Worker) -> None:
        """Take another catalogue, as `Engine.change` has it; `do` has the worker do something."""
        for leaving in list(self.leaving):  # two of a kind at most are in memory
            leaving.gone.wait()
        after = self._with_drafts(after, strictly=False)
        fresh: dict[str, Batch | Embedder] = {}
        began = time.monotonic()
        self.changing.set()
        try:
            for old, new in do(lambda: self._moved(after)):
                fresh[new.base.name] = self._load_in_place(old, new, do)
            do(lambda: self._install(after, fresh, began))
        except BaseException:
            for batch in fresh.values():
                batch.close()
            raise
        finally:
            self.changing.clear()

    def _load_first(self, configured_name: str) -> str:
        """Load the model to begin with, and return its name.

        It is the one that is set, else the smallest that can be loaded, one that chats if there is any.

        Raises UserError where there is none.
        """
        if configured_name:
            first = self.catalogue.find(configured_name)
            self.batch(first)
            return first.name
        faults: list[UserError] = []
        draft = self.catalogue.get(self._settings.draft)

        def order(model: Model) -> tuple[object, ...]:
            return not model.chats, bool(model.base), model == draft, model.size

        for model in sorted(self.catalogue.answering.values(), key=order):
            if model.name not in self.catalogue.answering:
                continue
            try:
                self.batch(model)
            except UserError as error:
                faults.append(error)
                self._leave_out(model.name)
                continue
            for fault in faults:
                logger.warning("left out: %s", fault)
            return model.name
        raise faults[0]

    def _leave_out(self, name: str) -> None:
        """Forget a model that cannot be loaded, and the adapters over it."""
        kept = {key: model for key, model in self.catalogue.models.items() if name not in (key, model.base)}
        self.catalogue = replace(self.catalogue, models=kept)

    def _with_drafts(self, catalogue: Catalogue, strictly: bool = True) -> Catalogue:
        """Return a catalogue that says what SERVE_DRAFT drafts for. Raises UserError where it can for none."""
        name = self._settings.draft
        if not name or self._settings.speculation == "off":
            return catalogue
        draft = catalogue.get(name)
        catalogue = replace(catalogue, draft=draft.name if draft else name)
        try:
            return replace(catalogue, drafted=find_drafted(catalogue))
        except UserError as error:
            if strictly:
                raise
            logger.warning("%s", error)
            return catalogue

    def _moved(self, after: Catalogue) -> list[tuple[Stack, Stack]]:
        """Return what is in memory and gets another in its place, with that one."""
        moved: dict[str, tuple[Stack, Stack]] = {}
        for name in self.by_name:
            old, model = self.catalogue.stack(self.catalogue.models[name]), after.get(name)
            new = after.stack(model) if model else old
            if new != old and not (new.base.name in self.by_name and new == self._known(new.base.name)):
                moved[new.base.name] = old, new
        return list(moved.values())

    def _known(self, name: str) -> Stack | None:
        """Return what the catalogue has under a base's name."""
        model = self.catalogue.models.get(name)
        return self.catalogue.stack(model) if model else None

    def _load_in_place(self, old: Stack, new: Stack, do: Worker) -> Batch | Embedder:
        """Return a model loaded beside the one in whose place it comes, or without room when that one is gone."""
        try:
            check_room(new, self._settings)
        except UserError:
            check_room(new, self._settings, before=old)
            return self._load_after(old, new, do)
        return load_stack(new, self._settings)

    def _load_after(self, old: Stack, new: Stack, do: Worker) -> Batch | Embedder:
        """Return a model loaded when the other one's answers have ended; that one is back where this does not load."""
        name = old.base.name
        if leaving := do(lambda: self._leave(name)):
            leaving.gone.wait()
        try:
            return load_stack(new, self._settings)
        except BaseException:
            with suppress(UserError):  # it is loaded when it is asked for
                batch = load_stack(old, self._settings)
                do(lambda: self.by_name.update({name: batch}))
            raise

    def _install(self, after: Catalogue, fresh: Mapping[str, Batch | Embedder], began: float) -> None:
        """Take another catalogue, and the models that were loaded for it."""
        for name in list(self.by_name):
            model = after.models.get(name)
            if model is None or after.stack(model) != self._known(name):
                self._leave(name, began)
        self.by_name.update(fresh)
        default = after.get(self.default) or next(iter(after.answering.values()))
        self.catalogue, self.default = after, default.name

    def _leave(self, name: str, since: float | None = None) -> Leaving | None:
        """Let a model begin no more answers, and go when it has given those under way."""
        if name not in self.by_name:
            return None
        leaving = Leaving(self.by_name.pop(name), since)
        self.leaving.append(leaving)
        return leaving
