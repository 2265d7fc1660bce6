"""The report of a sweep as one self-contained page, with the look of the evaluation's."""

from collections import Counter
from pathlib import Path

from common.words import percent
from pipeline.report.page import templates
from pipeline.sweep_report.charts import curves, intervals, parallel, strips
from pipeline.sweep_report.dimensions import Setting
from pipeline.sweep_report.record import SweepReport
from pipeline.sweep_report.tables import at_step, tables
from pipeline.sweeps.names import duration, loss_text, settings_text


def page(report: SweepReport, settings: list[Setting]) -> str:
    """Return the page; sweep.html.jinja arranges it."""
    main = report.importance[0] if report.importance else None
    return (
        templates(Path(__file__).parent)
        .get_template("sweep.html.jinja")
        .render(
            report=report,
            settings=settings,
            tables=tables(report, settings),
            curves=curves(report, settings),
            parallel=parallel(report, settings),
            importance=main,
            intervals=intervals(main, settings) if main else None,
            strips=strips(report, settings, main.step) if main else [],
            states=states(report),
            at_step=at_step,
            duration=duration,
            loss_text=loss_text,
            percent=percent,
            settings_text=settings_text,
        )
    )


def states(report: SweepReport) -> Counter[str]:
    """Return how many trials are in which state; those that are another's training are left out."""
    return Counter(trial.state for trial in report.trials if trial.same_as is None)
