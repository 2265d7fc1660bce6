"""The tables of a sweep's page; a figure is named by its place in report.json."""

from collections.abc import Sequence
from dataclasses import dataclass

from common.harmless import harmless
from pipeline.report.formats import NOTHING, Figure
from pipeline.report.tables import Cell, Table
from pipeline.sweep_report.dimensions import Setting
from pipeline.sweep_report.record import Importance, SweepReport, TrialFigures
from pipeline.sweeps.names import duration

BEST = 10  # trials in the short table


@dataclass(frozen=True)
class Number(Figure):
    """A figure with the way that it is rounded."""

    form: str = "{:.4f}"

    @property
    def text(self) -> str:
        """The value, rounded."""
        return NOTHING if self.value is None else self.form.format(self.value)


def tables(report: SweepReport, settings: Sequence[Setting]) -> dict[str, Table]:
    """Return the tables that there are figures for."""
    made = {
        "best": ranking(report, settings, report.trials[:BEST]),
        "ranking": ranking(report, settings, report.trials if len(report.trials) > BEST else ()),
        "decisions": decisions(report),
        "importance": importance(report.importance, settings),
        "spent": spent(report),
    }
    return {name: table for name, table in made.items() if table.rows}


def ranking(report: SweepReport, settings: Sequence[Setting], trials: Sequence[TrialFigures]) -> Table:
    """Return trials, the best first, with what they had at each rung."""
    steps = report.rungs[0] or (None,)
    scores = [f"step {step:,}" for step in steps if step is not None] or [report.measure]
    states = any(trial.reason or trial.same_as is not None for trial in trials)
    head = ["trial", "rank", *(each.name for each in settings), *scores, "updates", "state", *(["why"] * states)]
    rows: list[list[Cell]] = []
    for at, trial in enumerate(trials):
        begun = {
            stop.step: Number(f"trials.{at}.stops.{place}.score", stop.score) for place, stop in enumerate(trial.stops)
        }
        rows.append(
            [
                f"trial {trial.number}",
                Number(f"trials.{at}.place", trial.place, form="{}"),
                *(harmless(trial.values.get(each.key, NOTHING)) for each in settings),
                *(begun.get(step, NOTHING) for step in steps),
                Number(f"trials.{at}.updates", trial.updates, form="{:,}"),
                state(trial, report),
                *([why(trial)] * states),
            ]
        )
    title = "The best" if len(trials) == BEST < len(report.trials) else "All trials"
    note = f"By {report.measure}; less is better. Who came to a later rung is ranked above who did not."
    return Table(title, head, rows, note)


def state(trial: TrialFigures, report: SweepReport) -> str:
    """Return a trial's state, with the rung at which it was dropped."""
    is_early = trial.state in ("dropped", "ended", "failed") and len(report.rungs[0]) > 1
    return f"{trial.state} at rung {trial.rung}" if is_early else trial.state


def why(trial: TrialFigures) -> str:
    """Return why a trial came to nothing, or whose training its own is."""
    twin = "" if trial.same_as is None else f"the same training as trial {trial.same_as}"
    return harmless(": ".join(filter(None, (twin, trial.reason or ""))))


def decisions(report: SweepReport) -> Table:
    """Return what was decided at each rung."""
    several = len(report.rungs) > 1
    rows: list[list[Cell]] = []
    for at, each in enumerate(report.decisions):
        place = f"decisions.{at}"
        best = next(trial for trial in report.trials if trial.number == each.kept[0])
        rows.append(
            [
                f"rung {each.rung}, step {each.step:,}" + (f", bracket {each.bracket + 1}" if several else ""),
                Number(f"{place}.entered", each.entered, form="{:,}"),
                Number(f"{place}.kept", len(each.kept), form="{:,}"),
                Number(f"{place}.best", each.best),
                Number(f"{place}.cut", each.cut),
                Number(f"{place}.best_dropped", each.best_dropped),
                f"trial {best.number}",
                trials_text(each.kept),
            ]
        )
    head = ["rung", "entered", "went on", "best", "worst that went on", "best dropped", "best trial", "who went on"]
    return Table("Decisions", head, rows, f"By {report.measure} at the rung's end.")


def trials_text(numbers: Sequence[int], most: int = 12) -> str:
    """Return numbers of trials, the first ones where they are many."""
    more = f" and {len(numbers) - most} more" if len(numbers) > most else ""
    return ", ".join(map(str, numbers[:most])) + more


def importance(found: Sequence[Importance], settings: Sequence[Setting]) -> Table:
    """Return how much settings matter at each rung with enough trials."""
    names = {each.key: each.name for each in settings}
    told = [(at, each) for at, each in enumerate(found) if each.influences]
    places = [{one.key: (at, place, one) for place, one in enumerate(each.influences)} for at, each in told]
    keys = list(places[0]) if places else []
    rows: list[list[Cell]] = []
    for key in keys:
        cells = [shares(*where[key]) if key in where else NOTHING for where in places]
        rows.append([names[key], *cells])
    head = ["setting", *(f"{at_step(each)} ({each.trials} trials)" for _, each in told)]
    return Table("Share of the ranks' variance that rests on a setting", head, rows)


def shares(at: int, place: int, one: object) -> Figure:
    """Return a setting's share with its interval."""
    name = f"importance.{at}.influences.{place}"
    share, low, high = (Number(f"{name}.{key}", getattr(one, key), form="{:z.2f}") for key in ("share", "low", "high"))
    return Number(share.name, share.value, (low, high), form="{:z.2f}")


def at_step(found: Importance) -> str:
    """Return where ranks were compared."""
    return "at the end" if found.step is None else f"at step {found.step:,}"


def spent(report: SweepReport) -> Table:
    """Return what the sweep cost beside its grid."""
    cost = report.spent
    rows: list[list[Cell]] = [
        ["updates made", Number("spent.updates", cost.updates, form="{:,}"), ""],
        ["updates of the grid", Number("spent.grid_updates", cost.grid_updates, form="{:,}"), share(cost.share)],
    ]
    if cost.whole_grid_updates != cost.grid_updates:
        whole = Number("spent.whole_grid_updates", cost.whole_grid_updates, form="{:,}")
        rows.append(["updates of the grid, twins trained again", whole, share(cost.whole_share)])
    rows.append(["training, all trials together", Number("spent.seconds", cost.seconds, form="{:,.0f} s"), ""])
    if cost.wall_seconds is not None:
        wall = Number("spent.wall_seconds", cost.wall_seconds, form="{:,.0f} s")
        rows.append(["from the first job to the last", wall, duration(cost.wall_seconds)])
    note = (
        "The grid: each of these trials trained to the last rung. An update that was made again after a kill counts "
        "once; times count all."
    )
    return Table("What it cost", ["", "", "share"], rows, note)


def share(part: float | None) -> str:
    """Return what the sweep took of a grid."""
    return "" if part is None else f"{part:.2%}"
