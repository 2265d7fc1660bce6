"""What records say of a canary at a moment, in figures and in words."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from common.words import counted
from pipeline.canary.decision import Decision, decide
from pipeline.canary.duels import Heard, Period, hear
from pipeline.canary.record import Action, CanaryRecord, Ending, Outcome, Won, outcome
from pipeline.canary.registry import Canary
from pipeline.core.config import CanarySettings
from pipeline.data.hub import FEEDBACK_FILES
from pipeline.learning.forgotten import Forgotten
from pipeline.learning.sources import Kept, of_dataset, of_folder
from pipeline.learning.statements import NO_MODEL, OTHER_SCHEMA, UNREADABLE
from serve.feedback.records import now

FINDINGS = {
    "better": "the candidate is better",
    "worse": "the candidate is worse",
    "undecided": "it ends undecided",
    "open": "cannot tell yet",
}


@dataclass(frozen=True)
class Source:
    """Where records are: a folder, or a dataset on the hub."""

    folder: Path
    dataset: str | None = None

    def kept(self) -> Kept:
        """Return the files as they are now; a folder may have none yet.

        Raises:
            UserError: there is no such folder, or the hub does not give the dataset.
        """
        if self.dataset:
            return of_dataset(self.dataset)
        is_empty = self.folder.is_dir() and not any(self.folder.glob(FEEDBACK_FILES))
        return Kept(str(self.folder), []) if is_empty else of_folder(self.folder)


@dataclass(frozen=True)
class View:
    """What was heard, and what follows."""

    heard: Heard
    decision: Decision
    outcome: Outcome


def look(canary: Canary, source: Source, settings: CanarySettings) -> View:
    """Return what records say of a canary now.

    Raises:
        UserError: they cannot be had.
    """
    last = last_day(canary, settings)
    heard = hear(
        source.kept().rows(),
        {canary.candidate.sha256: "candidate", canary.against.sha256: "champion"},
        Period(canary.started, last),
        settings.per_visitor,
        Forgotten.there(Path()).digests,
    )
    decision = decide(heard.duels, settings, is_over=now() > last)
    return View(heard, decision, outcome(heard, decision, settings))


def record_of(canary: Canary, view: View, found: Ending, action: Action, why: str) -> CanaryRecord:
    """Return what is kept of how a canary ends."""
    return CanaryRecord(
        schema_version=1,
        model=canary.version.name,
        candidate=canary.candidate,
        champion=canary.against,
        started=canary.started,
        decided=now(),
        found=found,
        action=action,
        why=why,
        outcome=view.outcome,
    )


def told(canary: Canary, view: View, settings: CanarySettings) -> Iterator[str]:
    """Yield how a canary stands, in lines; the last says what is found."""
    left_out = view.heard.statements
    for why, count in sorted(left_out.left_out.items()):
        yield f"left out: {counted(count, 'record')} {why} (the first: {left_out.first[why]})"
    yield f"version {canary.candidate.version} against version {canary.against.version} of {canary.version.name}"
    figures = view.outcome
    for side, judged in figures.judged.items():
        if judged.good or judged.bad:
            yield f"conversations of the {side}: {judged.good:,} good, {judged.bad:,} bad"
    yield why_of(view)
    yield standing(canary, view, settings)


def why_of(view: View) -> str:
    """Return the figures that a finding rests on, in a line."""
    figures = view.outcome
    rate = figures.win_rate
    parts = [f"blind votes {_won(figures.votes)}"]
    if figures.conversations != Won(candidate=0, champion=0, neither=0):
        parts.append(f"conversations against the champion's {_won(figures.conversations)}")
    parts.append(f"of {counted(figures.visitors, 'visitor')}")
    return f"{', '.join(parts)}: win rate {rate.value:.1%} ({rate.low:.1%} to {rate.high:.1%})"


def standing(canary: Canary, view: View, settings: CanarySettings) -> str:
    """Return what is found, and what it would take where that is nothing yet."""
    decision = view.decision
    if decision.found != "open":
        return FINDINGS[decision.found]
    left = settings.max_votes - decision.duels
    ends = f"it ends undecided after {settings.max_votes:,}, or on {last_day(canary, settings)[:10]}"
    if decision.more is None:
        return f"{FINDINGS['open']}, after {counted(decision.duels, 'vote')}, nor would more of them; {ends}"
    about = f"about {rounded(decision.more):,} more votes as these would"
    return f"{FINDINGS['open']}, {about}" + (f"; {ends}" if decision.more > left else "")


def not_understood(view: View) -> str:
    """Return how many records say nothing here, as those of another version's server; empty where there are none."""
    left_out = view.heard.statements.left_out
    found = [
        f"{counted(left_out[why], 'record')} {why}" for why in (OTHER_SCHEMA, NO_MODEL, UNREADABLE) if left_out[why]
    ]
    return f"; left out: {', '.join(found)}" if found else ""


def rounded(number: int) -> int:
    """Return a number with two digits that say something."""
    unit = 10 ** max(len(str(number)) - 2, 0)
    return -(-number // unit) * unit


def last_day(canary: Canary, settings: CanarySettings) -> str:
    """Return until when records count."""
    return (datetime.fromisoformat(canary.started) + timedelta(days=settings.max_days)).isoformat(
        timespec="microseconds"
    )


def _won(won: Won) -> str:
    return f"{won.candidate:,} won, {won.champion:,} lost, {won.neither:,} for neither"
