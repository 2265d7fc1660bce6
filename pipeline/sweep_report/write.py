"""report.html and report.json in a sweep's folder."""

from common.files import write_text
from pipeline.sweep_report.dimensions import settings_of
from pipeline.sweep_report.figures import read_figures
from pipeline.sweep_report.page import page
from pipeline.sweep_report.record import SweepReport
from pipeline.sweeps.record import Folder

PAGE, FIGURES = "report.html", "report.json"


def write_report(folder: Folder) -> SweepReport:
    """Write what there is to know of a sweep, whether it is over or not, and return it.

    Raises:
        UserError: the sweep's files cannot be read.
    """
    report = read_figures(folder)
    report.write(folder.path / FIGURES)
    write_text(folder.path / PAGE, page(report, settings_of(folder.read())))
    return report
