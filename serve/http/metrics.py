"""What the server has done, for Prometheus. Page and API are counted alike: the engine tells of each answer."""

from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from llama.errors import ModelError, RequestError
from llama.turn import Piece, Turn
from serve.engine import Engine
from serve.errors import Busy

FIRST_TOKEN_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)


class Metrics:
    """Counts and times, in a registry of their own."""

    def __init__(self, models: Collection[str]) -> None:
        """For models of these names; what else is asked for is counted as `unknown`, lest anyone make labels."""
        self._models = frozenset(models)
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "tunesmith_requests",
            "Requests by outcome: stop, length, cancelled, refused, busy, error",
            ["model", "outcome"],
            registry=registry,
        )
        self._prompt, self._cached, self._generated, self._drafted, self._accepted = (
            Counter(f"tunesmith_{name}_tokens", about, ["model"], registry=registry)
            for name, about in (
                ("prompt", "Tokens of prompts"),
                ("cached_prompt", "Tokens of prompts that were known from before"),
                ("generated", "Tokens of answers"),
                ("drafted", "Tokens that were drafted"),
                ("accepted_draft", "Tokens of answers that were drafted"),
            )
        )
        self._first_token = Histogram(
            "tunesmith_first_token_seconds",
            "From the question to the first token of its answer, waiting included",
            ["model"],
            registry=registry,
            buckets=FIRST_TOKEN_SECONDS,
        )
        self._token = Histogram(
            "tunesmith_token_seconds",
            "For each token after the first, one answer's mean",
            ["model"],
            registry=registry,
            buckets=TOKEN_SECONDS,
        )

    def watch(self, engine: Engine) -> None:
        """Show how busy the engine is whenever the metrics are read."""
        answering = Gauge("tunesmith_answering", "Answers under way", registry=self._registry)
        answering.set_function(lambda: engine.load().answering)
        waiting = Gauge("tunesmith_waiting", "Requests that wait for their turn", registry=self._registry)
        waiting.set_function(lambda: engine.load().waiting)

    def observe(self, turn: Turn, event: Piece | Exception | None) -> None:
        """Count an answer's first or last piece, or what it ended with instead (see Engine)."""
        model = turn.model if isinstance(turn.model, str) and turn.model in self._models else "unknown"
        if isinstance(event, Piece) and not event.finish:
            self._first_token.labels(model).observe(event.seconds)
            return
        self._requests.labels(model, _outcome(event)).inc()
        self._prompt.labels(model).inc(len(turn.prompt) if turn.began else 0)
        self._cached.labels(model).inc(turn.cached)
        self._generated.labels(model).inc(turn.tokens)
        self._drafted.labels(model).inc(turn.drafted)
        self._accepted.labels(model).inc(turn.accepted)
        if isinstance(event, Piece) and event.tokens > 1:
            self._token.labels(model).observe(event.generating / (event.tokens - 1))

    def text(self) -> bytes:
        """Return all figures in Prometheus's text format."""
        return generate_latest(self._registry)


def _outcome(event: Piece | Exception | None) -> str:
    match event:
        case Piece(finish=finish):
            return str(finish)
        case Busy():
            return "busy"
        case ModelError():
            return "error"
        case RequestError():
            return "refused"
        case None:
            return "cancelled"
    return "error"
