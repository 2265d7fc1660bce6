"""How much has to be replayed so that a model forgets no more than its gate allows: experiments, the least first."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.console import Console

from common.errors import UserError
from pipeline.core.composition import CONF, compose
from pipeline.core.config import Config, load
from pipeline.core.data_settings import sets_of
from pipeline.core.paths import EVALUATION
from pipeline.report.record import Check, Evaluation

SHARE = "data.replay.share"
LEVEL = "evaluate.gate.level"
FORGETTING = "forgetting "  # before the set, in the names of checks


class Tried(NamedTuple):
    """What came of a share."""

    share: float
    gain: float | None  # nats a token
    checks: list[Check]  # of forgetting

    @property
    def holds(self) -> bool:
        """Whether each set is known to be forgotten no more than is allowed."""
        return all(check.passed for check in self.checks)


def run(shares: Sequence[float], overrides: Sequence[str], experiment: Callable[[list[str]], int]) -> None:
    """Run the pipeline with each share, from the least on, until one holds the gate; print what came of each.

    The gate's level is shared out among the shares, so that one is wrongly found to hold as seldom as if it were alone
    (Bonferroni).

    Args:
        shares: of train's rows.
        overrides: of the configuration.
        experiment: runs one of DVC's with these arguments, and gives its status.

    Raises:
        UserError: there is nothing to replay or to judge by, an experiment failed, or no share held.
    """
    if not shares or not all(0 <= share < 1 for share in shares):
        raise UserError("shares are of the rows of train, at least 0 and below 1, such as 0.05")
    require_sources(load(compose(CONF, list(overrides))))
    gated = load(compose(CONF, [*overrides, f"{SHARE}={max(shares)}"]))
    require_gate(gated)
    level = gated.evaluate.gate.level / len(set(shares))
    console = Console(markup=False, emoji=False, highlight=False)
    for share in sorted(set(shares)):
        tried = try_out(share, [*overrides, f"{LEVEL}={level:g}"], experiment)
        console.print(in_words(tried), soft_wrap=True)
        if tried.holds:
            last = f"`tunesmith adopt {SHARE}={share:g}` makes it last"
            console.print(f"the least share that holds: {share:g}; {last}", soft_wrap=True)
            return
    raise UserError(f"no share up to {max(shares):g} is known to hold evaluate.gate.max_forgetting; try larger ones")


def require_sources(config: Config) -> None:
    """Refuse a configuration that names nothing to replay.

    Raises:
        UserError: it says what to set.
    """
    if config.data.replay is None:
        raise UserError(
            "data.replay is null, so that there is nothing to replay; name its sources in conf/data, as "
            "conf/data/starter-replay.yaml does"
        )


def require_gate(config: Config) -> None:
    """Refuse a configuration by which no share would hold or fail.

    Raises:
        UserError: it says what to set.
    """
    if config.evaluate.gate.max_forgetting is None:
        raise UserError("evaluate.gate.max_forgetting is null, so that no share would be too small; set it, to 0.1 say")
    if not sets_of(config.evaluate.general):
        raise UserError("evaluate.general names no set of texts that could be forgotten; conf/evaluate has some")


def try_out(share: float, overrides: Sequence[str], experiment: Callable[[list[str]], int]) -> Tried:
    """Return what comes of the whole pipeline with a share.

    Raises:
        UserError: it ended with an error, or no set has texts enough to judge by.
    """
    settings = [argument for override in [*overrides, f"{SHARE}={share:g}"] for argument in ("-S", override)]
    if status := experiment(settings):
        raise UserError(f"the experiment with {SHARE}={share:g} ended with status {status}; see above")
    return judged(share, Evaluation.read(EVALUATION))


def judged(share: float, evaluation: Evaluation) -> Tried:
    """Return what an evaluation says of a share.

    Raises:
        UserError: it has no check of forgetting.
    """
    checks = [check for check in evaluation.verdict.checks if check.name.startswith(FORGETTING)]
    if not checks:
        raise UserError("no set of evaluate.general has the evaluate.gate.min_rows texts that it takes to tell")
    return Tried(share, evaluation.gain.loss, checks)


def in_words(tried: Tried) -> str:
    """Return a line that says what came of a share."""
    results = {True: "holds", False: "forgets too much", None: "cannot tell"}
    sets = [
        f"{check.name.removeprefix(FORGETTING)} {results[check.passed]}"
        + (f" ({check.figure:+.4f} nats)" if check.figure is not None else "")
        for check in tried.checks
    ]
    gain = "unknown" if tried.gain is None else f"{tried.gain:.4f} nats"
    return f"share {tried.share:g}: gain {gain}; {', '.join(sets)}"
