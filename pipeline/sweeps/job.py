"""A stage as a trial of a sweep: its output goes into a file, and how it ended into another."""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import Hopeless, Interrupted, MachineError, UserError
from common.files import disk_full, unwritable
from pipeline.core.paths import ADAPTER, TRAIN_REPORT
from pipeline.core.records import TrainReport
from pipeline.core.trials import LOG, OUTCOME, TASK, Outcome, Task
from pipeline.sweeps.leash import holds, one_at_a_time, raise_if_let_go, runs_here
from pipeline.sweeps.record import JobFolder
from pipeline.sweeps.requeue import saved_before_requeue
from pipeline.tracking.run import PARENT

MEGABYTE = 1e6


def is_trial(out: Path) -> bool:
    """Return whether the output folder is a job's that a sweep has launched."""
    return (out / TASK).is_file()


def run_trial(run: Callable[[], object], out: Path) -> float | None:
    """Run a job to its outcome, and return its validation loss.

    What goes wrong with the trial is its outcome, and ends no sweep. Nor does a request to stop where the sweep runs in
    another process, which reads of it.

    Raises:
        Interrupted: it was asked to stop.
        MachineError: what went wrong is no fault of the trial's.
    """
    task = Task.read(out / TASK)
    sweep = Path(task.sweep)
    if task.mlflow_parent:
        os.environ[PARENT] = task.mlflow_parent

    def run_while_it_lasts() -> None:
        raise_if_let_go(sweep)
        run()

    with saved_before_requeue(), one_at_a_time(sweep, out):
        outcome = JobFolder(out).outcome()
        if outcome is None or not outcome.is_final:  # else the process that this one has waited for has done it
            with output_in(out / LOG):
                outcome = ended(run_while_it_lasts, out)
            if outcome.status == "stopped":
                outcome = outcome.model_copy(update={"preempted": by_signal(outcome) and holds(sweep)})
            outcome.write(out / OUTCOME)
    return outcome.validation_loss


def by_signal(outcome: Outcome) -> bool:
    """Return whether a signal has stopped a job."""
    return (outcome.reason or "").partition(":")[0] in signal.Signals.__members__


def ended(run: Callable[[], object], out: Path) -> Outcome:
    """Return how a job ends, as `run_trial`; a traceback goes to its output."""
    try:
        with told_from_the_machines(out):
            run()
    except (Interrupted, MachineError) as error:
        print(f"stopped: {error}")
        outcome = Outcome(status="stopped", reason=str(error))
        outcome.write(out / OUTCOME)
        if runs_here():
            raise
        return outcome
    except Hopeless as error:
        return Outcome(status="ended", reason=str(error))
    except UserError as error:
        print(error)
        return Outcome(status="failed", reason=str(error))
    except Exception as error:
        traceback.print_exc()
        return Outcome(status="failed", reason=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    return finished(out)


@contextmanager
def told_from_the_machines(out: Path) -> Iterator[None]:
    """Tell an error of the disk, however a library says it, from one that is the trial's.

    Raises:
        MachineError: the disk refuses to be written.
    """
    try:
        yield
    except Exception as error:
        reason = unwritable(error) or disk_full(out)
        if reason is None or isinstance(error, UserError):
            raise
        traceback.print_exc()
        raise MachineError(f"cannot write: {reason}; make room or grant access") from error


def finished(out: Path) -> Outcome:
    """Return the outcome of a job that went to its end; of a training, with its figures."""
    if not (out / TRAIN_REPORT).is_file():
        return Outcome(status="finished")
    report = TrainReport.read(out / TRAIN_REPORT)
    return Outcome(
        status="finished",
        steps=report.steps,
        validation_loss=report.validation_loss,
        validation_accuracy=report.validation_accuracy,
        train_loss=report.train_loss,
        tokens_per_second=report.steady_tokens_per_second or report.tokens_per_second,
        adapter_mb=sum(path.stat().st_size for path in (out / ADAPTER).glob("*.safetensors")) / MEGABYTE,
        seconds=report.seconds,
        fingerprint=report.fingerprint,
    )


@contextmanager
def output_in(path: Path) -> Iterator[None]:
    """Have all output of this process, also that of libraries in other languages, appended to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with path.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in enumerate(kept, 1):
            os.dup2(descriptor, number)
            os.close(descriptor)
