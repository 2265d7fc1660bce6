"""How models come into memory, and whether there is room for them."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

from common.errors import UserError
from llama.adapters import Adapters
from llama.batch import Batch
from llama.draft import DraftModel, vocabulary
from llama.embedding import Embedder
from llama.huge_pages import use_huge_pages
from llama.memory import check_memory
from llama.model import LlamaModel
from llama.speculation import Speculation
from serve.models.catalogue import Catalogue, Stack
from serve.models.registry import Model
from serve.settings import Settings


def load_stack(stack: Stack, settings: Settings) -> Batch | Embedder:
    """Load a model with all that goes with it.

    Its file is read for its digest meanwhile, by which its answers are known when the file is gone.

    Raises UserError where it does not fit into memory, or cannot be loaded.
    """
    left = check_room(stack, settings)
    with ThreadPoolExecutor(1, "digest") as beside:
        beside.submit(lambda: stack.base.digest)
        return _load(stack, settings, left)


def check_room(stack: Stack, settings: Settings, before: Stack | None = None) -> int:
    """Return bytes of memory that a model leaves free, one `before` having made way. Raises UserError without room."""
    weights, cache, how = _sizes(stack, settings)
    freed = sum(_sizes(before, settings)[:2]) if before else 0
    left = check_memory(stack.base.name, weights, cache, how, freed=freed)
    return max(left - sum(adapter.size for adapter in stack.adapters), 0)


def find_drafted(catalogue: Catalogue) -> frozenset[str]:
    """Return the names of those that the draft model drafts for. Raises UserError for one that can for none."""
    name, models = catalogue.draft, catalogue.answering
    if name not in models:
        raise UserError(f"SERVE_DRAFT={name} is no model here: it may be {', '.join(models)}")
    tokens, drafted = vocabulary(models[name].path), set()
    others = [other for other in models.values() if other.name != name]
    for other in others:
        with suppress(UserError):  # such a file is spoken of when it is to be loaded
            drafted |= {other.name} if vocabulary(other.path) == tokens else set()
    if not drafted:
        told = ", ".join(other.name for other in others) or "there is no other"
        raise UserError(f"SERVE_DRAFT={name} can draft for no model here, its vocabulary is not theirs: {told}")
    return frozenset(drafted)


def _sizes(stack: Stack, settings: Settings) -> tuple[int, int, str]:
    """Return bytes of weights and of the KV cache, and what that is for."""
    model, draft = stack.base, stack.draft
    context, slots = _context(model, settings), 1 if model.embeds else settings.slots
    weights, token_bytes = model.size, model.token_bytes
    if draft:
        weights, token_bytes = weights + draft.size, token_bytes + draft.token_bytes
    return weights, slots * context * token_bytes, f"{slots} x {context:,} tokens"


def _context(model: Model, settings: Settings) -> int:
    return min(settings.context, model.context)


def _load(stack: Stack, settings: Settings, left: int) -> Batch | Embedder:
    model, context = stack.base, _context(stack.base, settings)
    if model.embeds:
        return Embedder(model.path, context, settings.threads)
    adapters = Adapters({adapter.name: adapter.path for adapter in stack.adapters}) if stack.adapters else None
    with ExitStack() as opened:
        loaded = LlamaModel(model.path, context, settings.threads, settings.slots, adapters=adapters)
        opened.enter_context(loaded)
        batch = Batch(loaded, min(settings.prompt_cache_mb << 20, left), _speculation(loaded, stack.draft, settings))
        use_huge_pages()
        opened.pop_all()
    return batch


def _speculation(model: LlamaModel, draft: Model | None, settings: Settings) -> Speculation | None:
    """Return how a model's tokens are drafted; None where they are not. Raises UserError for the draft model."""
    if settings.speculation == "off" or not model.can_cut:
        return None
    if draft is None:
        return Speculation(model)
    smaller = LlamaModel(draft.path, model.context, settings.threads, model.slots, chats=False)
    return Speculation(model, DraftModel(smaller))
