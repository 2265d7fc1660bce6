"""What every stage runs in: the configuration checked, outputs in the right folder, errors in one line."""

import functools
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import hydra
import yaml
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from common.errors import Interrupted, UserError
from common.imports import end_of_imports, importing
from common.logs import configure_logs
from pipeline.core import dvc_files
from pipeline.core.composition import DEFAULTS, reason
from pipeline.core.config import Config, load
from pipeline.sweeps.job import is_trial, run_trial
from pipeline.workers.last_words import TRY_AGAIN, reported, status_left
from pipeline.workers.parent import IN_IMAGE
from pipeline.workers.ranks import rank

FULL_ERROR = "HYDRA_FULL_ERROR"


def stage(run: Callable[[Config, Path], object]) -> Callable[[], None]:
    """Make a command line of a stage's `run(config, out)`: Hydra composes conf/ with its overrides.

    `out` is where outputs go: the workspace under DVC, the job's own folder in a sweep. Inputs are always relative to
    the working folder. A `UserError` ends in its one line and status 1; in a sweep it only ends its job. `Interrupted`
    ends in its line and status 75, a sweep too. What Hydra cannot use ends in one line, too. Of several processes that
    train together the first one prints. What `runtime.docker.stages` names runs in a container, and ends as that does.
    """
    name = Path(run.__code__.co_filename).stem
    begun: list[HydraConf] = []  # jobs
    printed: list[UserError] = []  # of a sweep

    def begin(config: Config, out: Path) -> object:
        if name not in config.runtime.docker.stages or IN_IMAGE in os.environ:
            return run(config, out)
        if begun[-1].mode == RunMode.MULTIRUN:
            raise UserError("the jobs of a sweep run in no containers of their own; take another runtime for them")
        with importing():
            from pipeline.containers.run import run_in_container

        run_in_container(name, config, out)
        return None

    @functools.wraps(run)  # Hydra names the job, and finds conf/, by the file that the stage stands in
    def task(composed: DictConfig) -> object:
        end_of_imports()
        logging.captureWarnings(True)
        job = HydraConfig.get()
        begun.append(job)
        configure_logs(rank())
        if rank():
            silence()
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # set by `tie_to_parent`
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            out = Path(job.runtime.output_dir)
            if job.mode == RunMode.MULTIRUN and is_trial(out):
                return run_trial(lambda: begin(load(composed), out), out)
            with reported():
                return begin(load(composed), out)
        except Interrupted as error:
            if rank() == 0:
                print(f"{name}: {error}", file=sys.stderr)
            sys.exit(TRY_AGAIN)
        except KeyboardInterrupt:
            print(f"{name}: interrupted", file=sys.stderr)
            sys.exit(128 + signal.SIGINT)
        except UserError as error:
            if job.mode == RunMode.MULTIRUN:
                print(f"{name}: {' '.join(job.overrides.task)}: {error}", file=sys.stderr)
                printed.append(error)
                raise
            sys.exit(f"{name}: {error}{recovery_hint(name)}")

    under_hydra = hydra.main(config_path="../../conf", config_name="config", **DEFAULTS)(task)

    @functools.wraps(run)
    @status_left()
    def main() -> None:
        try:
            if rank() == 0 and IN_IMAGE not in os.environ:
                dvc_files.keep()
            with whole_errors():
                under_hydra()
        except (HydraException, OmegaConfBaseException) as error:
            sys.exit(f"{name}: {reason(error)}" if rank() == 0 else 1)
        except (yaml.YAMLError, ValueError) as error:
            if begun:  # a defect
                raise
            sys.exit(f"{name}: {reason(error)}")
        except Interrupted as error:  # a sweep, between its jobs or with jobs in other processes
            print(f"{name}: {error}", file=sys.stderr)
            sys.exit(TRY_AGAIN)
        except UserError as error:
            sys.exit(1 if error in printed else f"{name}: {error}")
        except KeyboardInterrupt:  # a second request, while the first one's is carried out
            print(f"{name}: interrupted", file=sys.stderr)
            swept = bool(begun) and begun[-1].mode == RunMode.MULTIRUN
            sys.exit(TRY_AGAIN if swept else 128 + signal.SIGINT)

    return main


@contextmanager
def whole_errors() -> Iterator[None]:
    """Let Hydra pass errors on, which it else prints itself, in several lines."""
    before = os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(FULL_ERROR, None)
        else:
            os.environ[FULL_ERROR] = before


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
