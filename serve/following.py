"""The server follows what SERVE_MODELS names by something that moves: an alias of the registry, a linked folder.

    with Follower(sources, engine, settings) as follower:  # looks every SERVE_FOLLOW_SECONDS,
        follower.look_soon()                               # and when it is asked to

What a source leads to now is fetched, looked at and loaded before anything is taken from it. Whatever goes wrong there
is one line in the log: the model before goes on.
"""

import logging
import queue
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from common.errors import UserError
from serve.engine import Engine
from serve.errors import Stopping
from serve.models.catalogue import Catalogue
from serve.models.files import ModelFile
from serve.models.registry import Model, file_of, no_model, read_models
from serve.models.sources import NOWHERE, REGISTRY, REGISTRY_REFERENCE, find_files, leads_to, listed
from serve.settings import Settings

LONGEST_PAUSE = 3600.0  # seconds before what failed is tried again: a disk or a network may have been mended

logger = logging.getLogger(__name__)


@dataclass
class Source:
    """One of SERVE_MODELS, or SERVE_CANARY, and how it went."""

    named: str  # as SERVE_MODELS has it
    leads_to: str  # where it led when its models were found; nothing where it never moves
    since: str  # when that was
    may_lack: bool = False  # whether it may lead nowhere, as a candidate's alias
    tried: str = ""  # where it leads and was not followed to
    why: str = ""  # it was not
    pause: float = 0.0  # seconds until that is tried again
    again: float = 0.0  # monotonic clock: when


def sources_of(models: str) -> list[Source]:
    """Return the sources of SERVE_MODELS, before they are read: what moves meanwhile is then seen by the first look.

    Raises UserError for an alias that cannot be looked up.
    """
    return [Source(named, leads_to(named), _now()) for named in listed(models)]


def candidate_of(canary: str) -> list[Source]:
    """Return the source of SERVE_CANARY, which leads nowhere yet; none where that names a model of SERVE_MODELS.

    Raises UserError for one that is no alias.
    """
    if not canary.startswith(REGISTRY):
        return []
    if not (found := REGISTRY_REFERENCE.fullmatch(canary)) or not found["alias"]:
        raise UserError(f"SERVE_CANARY={canary}: must be models:/name@alias, or the name of a model of SERVE_MODELS")
    return [Source(canary, NOWHERE, _now(), may_lack=True)]


class Follower:
    """Has an engine serve what the sources lead to."""

    def __init__(self, sources: Iterable[Source], engine: Engine, settings: Settings) -> None:
        """Follow sources whose models the engine has; by itself from `__enter__` on."""
        self.sources, self.engine = list(sources), engine
        self.swaps = self.failures = 0
        self._base, self._every = settings.base, settings.follow_seconds
        self._looking = threading.Lock()
        self._asked: queue.SimpleQueue[Future[bool] | None] = queue.SimpleQueue()  # None: look no more

    def __enter__(self) -> Self:
        """Look from time to time, where that is set, and when asked."""
        threading.Thread(target=self._follow, name="follow", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Look no more; a look that is under way goes on until the engine is closed."""
        self._asked.put(None)

    def look_soon(self) -> Future[bool]:
        """Look in the thread that does so from time to time; see `look`."""
        asked: Future[bool] = Future()
        self._asked.put(asked)
        return asked

    def look(self, patiently: bool = False) -> bool:
        """See where the sources lead, and have the engine serve what is there. From any thread.

        Args:
            patiently: leave what could not be followed alone until it moves on, or a while is over.

        Returns whether each source is followed.
        """
        with self._looking:
            for source in self.sources:
                self._look_at(source, patiently)
        return not any(source.why for source in self.sources)

    def _follow(self) -> None:
        while True:
            try:
                asked = self._asked.get(timeout=self._every or None)
            except queue.Empty:
                self.look(patiently=True)
                continue
            if asked is None:
                return
            if asked.set_running_or_notify_cancel():  # else whoever asked has left
                asked.set_result(self.look())

    def _look_at(self, source: Source, patiently: bool) -> None:
        leads = ""
        try:
            leads = leads_to(source.named, source.may_lack)
            if leads == source.leads_to:
                source.tried = source.why = ""
                return
            if patiently and leads == source.tried and time.monotonic() < source.again:
                return
            gone = leads == NOWHERE
            self.engine.change(self._without(source) if gone else self._moved(source, list(find_files(source.named))))
        except Stopping:
            return
        except Exception as error:  # each of MLflow's stores brings some of its own; the thread must go on
            self._note(
                source, leads, str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            )
            return
        logger.warning("%s leads to %s now, and no more to %s", source.named, leads, source.leads_to)
        self.swaps += 1
        source.leads_to, source.since = leads, _now()
        source.tried = source.why = ""

    def _note(self, source: Source, leads: str, why: str) -> None:
        """Keep why a source was not followed; a line in the log unless it is the one before."""
        if (leads, why) != (source.tried, source.why):
            source.pause = 0.0
            logger.warning("%s stays at %s: %s", source.named, source.leads_to, why)
        self.failures += 1
        source.tried, source.why = leads, why
        source.pause = min(2 * (source.pause or self._every), LONGEST_PAUSE)
        source.again = time.monotonic() + source.pause

    def _without(self, source: Source) -> Catalogue:
        """Return the models as they are without those of a source; who asks for them gets the one picked first."""
        before, default = self.engine.catalogue, self.engine.default
        own = {name for name, model in before.models.items() if model.source == source.named}
        models = {name: model for name, model in before.models.items() if not {name, model.base} & own}
        gone = before.models.keys() - models.keys()
        heirs = {name: default if heir in gone else heir for name, heir in before.heirs.items()}
        return Catalogue(models, heirs | dict.fromkeys(gone, default))

    def _moved(self, source: Source, files: list[ModelFile]) -> Catalogue:
        """Return the models as they are with other files of one source.

        Raises UserError where one of them is damaged, or there is none in the place of one that is served.
        """
        before = self.engine.catalogue
        own = {name: model for name, model in before.models.items() if model.source == source.named}
        over = {name: model for name, model in before.models.items() if name not in own and model.base in own}
        others = {name: model for name, model in before.models.items() if name not in own and name not in over}
        models, left_out = read_models([*files, *map(file_of, over.values())], others, self._base)
        arrived = [model for model in models.values() if model.source == source.named]
        damaged = [reason for name, reason in left_out.items() if name in before.models or not arrived]
        if damaged:
            raise UserError(no_model(source.named, damaged) if not arrived else damaged[0])
        for reason in left_out.values():
            logger.warning("left out: %s", reason)
        passed = {name: _heir(model, arrived).name for name, model in own.items() if name not in models}
        kept = {name: passed.get(heir, heir) for name, heir in before.heirs.items()}
        heirs = {name: heir for name, heir in (kept | passed).items() if name not in models}
        return Catalogue(_in_order(models | others, self.sources), heirs)


def _heir(gone: Model, arrived: Iterable[Model]) -> Model:
    """Return what comes in the place of a model: of the same quantization, if there is one. Raises UserError."""
    alike = [model for model in arrived if model.embeds == gone.embeds]
    if not alike:
        kind = "makes vectors" if gone.embeds else "answers"
        raise UserError(f"there is no model that {kind} in the place of {gone.name}")
    return min(alike, key=lambda model: (model.quantization != gone.quantization, bool(model.base)))


def _in_order(models: Mapping[str, Model], sources: Iterable[Source]) -> dict[str, Model]:
    """Return models in the order of their sources."""
    places = [source.named for source in sources]
    return dict(sorted(models.items(), key=lambda named: places.index(named[1].source)))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
