"""What the server has done, for Prometheus. Page and API are counted alike: the engine tells of each answer."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from llama.errors import ModelError, RequestError
from llama.turn import Piece, Turn
from serve.engine import Engine
from serve.errors import Busy
from serve.following import Follower

FIRST_TOKEN_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)


class Metrics:
    """Counts and times, in a registry of their own."""

    def __init__(self) -> None:
        """Begin with nothing."""
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

    def watch_swaps(self, follower: Follower) -> None:
        """Show which models are served, and how often others have come in their place, whenever these are read."""
        self._registry.register(Swaps(follower))

    def observe(self, turn: Turn, event: Piece | Exception | None) -> None:
        """Count an answer's first or last piece, or what it ended with instead (see Engine)."""
        model = turn.model if turn.origin else "unknown"  # what no model is called must make no labels
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


class Swaps(Collector):
    """What a follower has done."""

    def __init__(self, follower: Follower) -> None:
        """Of this one."""
        self._follower = follower

    def collect(self) -> Iterator[Metric]:
        """Yield the figures of this moment."""
        follower, engine = self._follower, self._follower.engine
        swaps, failures = follower.swaps, follower.failures
        yield CounterMetricFamily("tunesmith_swaps", "Sources that moved and were followed", swaps)
        yield CounterMetricFamily("tunesmith_swap_failures", "Tries to follow one that came to nothing", failures)
        about = "Seconds with a model in memory beside the one in its place"
        yield CounterMetricFamily("tunesmith_two_models_seconds", about, engine.seconds_with_two)
        served = InfoMetricFamily("tunesmith_model", "The models that are served", labels=["model"])
        for model in engine.all_models.values():
            served.add_metric([model.name], {"revision": model.fingerprint or "", "file": model.path.name})
        yield served


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
