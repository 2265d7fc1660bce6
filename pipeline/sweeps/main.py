"""The order of a sweep: planned or found, run, ranked, its winner written."""

from pathlib import Path

from pipeline.sweeps.plan import Request, begin
from pipeline.sweeps.record import Folder
from pipeline.sweeps.run import Launch, Sweep
from pipeline.tracking.run import Run


def sweep(request: Request, path: Path, launch: Launch) -> None:
    """Run a sweep in a folder, from where it is.

    Raises:
        Interrupted: it was asked to stop.
        UserError: it cannot be begun, or none of its trials can be trained.
    """
    folder = Folder(path)
    record = begin(request, folder)
    parent = Run()
    Sweep(folder, record, request, launch, parent).run()
