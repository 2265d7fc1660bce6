"""What every stage runs in: the configuration checked, outputs in the right folder, errors in one line."""

import functools
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from common.errors import Interrupted, UserError
from common.imports import end_of_imports
from common.logs import configure_logs
from pipeline.core.composition import DEFAULTS
from pipeline.core.config import Config, load
from pipeline.workers.last_words import TRY_AGAIN, reported
from pipeline.workers.ranks import rank


def stage(run: Callable[[Config, Path], object]) -> Callable[[], None]:
    """Make a command line of a stage's `run(config, out)`: Hydra composes conf/ with its overrides.

    `out` is where outputs go: the workspace under DVC, the job's own folder in a sweep. Inputs are always relative to
    the working folder. A `UserError` ends in its one line and status 1; in a sweep it only ends its job. `Interrupted`
    ends in its line and status 75, a sweep too. Of several processes that train together the first one prints.
    """

    @functools.wraps(run)  # Hydra names the job, and finds conf/, by the file that the stage stands in
    def task(composed: DictConfig) -> object:
        end_of_imports()
        logging.captureWarnings(True)
        job = HydraConfig.get()
        name = Path(run.__code__.co_filename).stem
        configure_logs(rank())
        if rank():
            silence()
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # set by `tie_to_parent`
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with reported():
                return run(load(composed), Path(job.runtime.output_dir))
        except Interrupted as error:
            if rank() == 0:
                print(f"{name}: {error}", file=sys.stderr)
            sys.exit(TRY_AGAIN)
        except KeyboardInterrupt:
            print(f"{name}: interrupted", file=sys.stderr)
            sys.exit(128 + signal.SIGINT)
        except UserError as error:
            if job.mode == RunMode.MULTIRUN:
                raise
            sys.exit(f"{name}: {error}{recovery_hint(name)}")

    return hydra.main(config_path="../../conf", config_name="config", **DEFAULTS)(task)


def silence() -> None:
    """End what goes to stdout, also from libraries; errors and tracebacks go to stderr."""
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)


def recovery_hint(name: str) -> str:
    """Return the command that brings back what DVC removed before the stage `name` ran, if it has recorded anything."""
    lock = Path("dvc.lock")
    if "DVC_ROOT" not in os.environ or not lock.is_file() or f"\n  {name}:\n" not in lock.read_text(encoding="utf-8"):
        return ""
    return " (the last recorded results come back with: git restore reports && dvc checkout -f)"
