"""What a judge says of base and tuned, and how often it says what visitors do."""

from pathlib import Path
from typing import Literal

from pipeline.core.config import JudgeSettings
from pipeline.data.grading import as_chat
from pipeline.evaluation.inputs import Material
from pipeline.evaluation.measure import Measured
from pipeline.evaluation.measurement_cache import MeasurementCache
from pipeline.judging.endpoint import Endpoint
from pipeline.judging.pairs import Judged, Outcome, Pair, judged
from pipeline.judging.votes import kappa, read_votes
from pipeline.report.record import Agreement, Judgement
from pipeline.statistics.intervals import CONFIDENCE, share
from pipeline.statistics.sequences import share_bounds

DIGITS = 4
Winner = Literal["tuned", "base", "tie", "unclear"]
WON: dict[Outcome | None, Winner] = {"one": "tuned", "other": "base", "tie": "tie", None: "unclear"}


def judgement(
    judge: Endpoint, settings: JudgeSettings, found: dict[str, Measured], material: Material, cache: MeasurementCache
) -> Judgement:
    """Return what the judge says of the tuned model's replies beside the base's.

    Args:
        judge: who is asked.
        settings: how much.
        found: what base and tuned reply.
        material: to what.
        cache: what the judge said before.

    Raises:
        UserError: the endpoint fails; what it has said is kept. Or there is no vote where the settings name some.
    """
    votes = read_votes(Path(settings.votes), settings.max_pairs) if settings.votes else []
    outcomes = judged(pairs(found, material)[: settings.max_pairs], judge, cache, "judge")
    agreement = None
    if votes:
        said = judged([vote.pair for vote in votes], judge, cache, "judge-votes")
        agreement = agreed(said, [vote.won for vote in votes])
    return summary(judge.model, outcomes, agreement)


def pairs(found: dict[str, Measured], material: Material) -> list[Pair]:
    """Return the replies of tuned and base to the prompts, and to the questions that have no known answer."""
    open_ones = [place for place, question in enumerate(material.questions) if question["kind"] == "checks"]
    prompts = [[{"role": "user", "content": prompt}] for prompt in material.settings.prompts]
    asked = [*prompts, *(as_chat(material.questions[place]) for place in open_ones)]
    replies = [
        [answer["reply"] for answer in found[name]["answers"]]
        + [found[name]["replies"][place]["reply"] for place in open_ones]
        for name in ("tuned", "base")
    ]
    return [Pair(*each) for each in zip(asked, *replies, strict=True)]


def summary(model: str, outcomes: list[Judged], agreement: Agreement | None) -> Judgement:
    """Return how often tuned won, a tie as half, and between what that share lies however many pairs are judged."""
    told = [{"one": 1.0, "other": -1.0, "tie": 0.0}[one.outcome] for one in outcomes if one.outcome]
    bounds = share_bounds(told, 1 - CONFIDENCE)[-1] if told else None
    shares = [round((1 + figure) / 2, DIGITS) for figure in bounds] if bounds else [None] * 3
    return Judgement(
        model=model,
        outcomes=tuple(WON[one.outcome] for one in outcomes),
        by_place=sum(one.by_place for one in outcomes),
        won=shares[0],
        won_low=shares[1],
        won_high=shares[2],
        agreement=agreement,
    )


def agreed(said: list[Judged], voted: list[Outcome]) -> Agreement:
    """Return how often the judge says of a pair what a visitor did, among those of which it says something."""
    both = [(one.outcome, vote) for one, vote in zip(said, voted, strict=True) if one.outcome]
    if not both:
        return Agreement(votes=len(voted), unclear=len(voted), agreed=None)
    value, low, high = (round(figure, DIGITS) for figure in share([one == other for one, other in both]))
    beyond_chance = kappa(both)
    return Agreement(
        votes=len(voted),
        unclear=len(voted) - len(both),
        agreed=value,
        agreed_low=low,
        agreed_high=high,
        kappa=None if beyond_chance is None else round(beyond_chance, DIGITS),
    )
