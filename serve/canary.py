"""Which model answers a conversation while a candidate is tried in the place of the champion, the one picked first."""

import hashlib
import logging

from common.errors import UserError
from serve.engine import Engine
from serve.models.sources import REGISTRY
from serve.settings import Settings

logger = logging.getLogger(__name__)


class Canary:
    """The candidate of SERVE_CANARY, for as long as there is one; whoever asks for it by its name gets it, too."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        """Try a candidate among an engine's models on the share of conversations that the settings say.

        Raises UserError for a name that no model has.
        """
        self._engine, self._share = engine, settings.canary_share
        self._wanted = settings.canary.removeprefix(REGISTRY)
        if self._wanted == settings.canary != "" and self._wanted not in engine.models:
            raise UserError(f"SERVE_CANARY={self._wanted}: no such model answers here: {', '.join(engine.models)}")
        if self._wanted and settings.max_loaded_models == 1:
            logger.warning("champion and candidate take turns in memory: SERVE_MAX_LOADED_MODELS=2 keeps both there")

    @property
    def candidate(self) -> str | None:
        """The name of the model that is tried; None while there is none."""
        named = (name for name in self._engine.models if name == self._wanted or name.startswith(f"{self._wanted}/"))
        name = next(named, None) if self._wanted else None
        return None if name == self._engine.default else name

    def answers(self, model: str, conversation: str, by: str) -> tuple[str, str]:
        """Return the model that answers, and what the page calls it where it is not to say so.

        Args:
            model: that the page asks for.
            conversation: by whose id it is drawn; nothing is drawn without.
            by: that gave the conversation's last answer, which gives the next one, too; empty in a new one.
        """
        champion, candidate = self._engine.catalogue.get(self._engine.default), self.candidate
        if candidate is None or champion is None or self._engine.catalogue.get(model) is not champion:
            return model, ""
        if by in (champion.name, candidate):
            is_drawn = by == candidate
        else:
            is_drawn = bool(conversation) and self._is_drawn(conversation, candidate)
        return (candidate, champion.title) if is_drawn else (model, "")

    def _is_drawn(self, conversation: str, candidate: str) -> bool:
        """Return whether a conversation is one of the share; of another candidate's share are others."""
        version = self._engine.models[candidate].pinned
        digest = hashlib.sha256(f"{candidate} {version} {conversation}".encode()).digest()
        return int.from_bytes(digest[:8]) < self._share * 2**64
