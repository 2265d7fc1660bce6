"""What every stage's `main` stands in: the configuration checked, outputs in the right folder, errors in one line."""

import functools
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from pipeline.config import Config, load
from pipeline.errors import Interrupted, UserError
from pipeline.launch import TRY_AGAIN, rank, reported


def stage(main: Callable[[Config, Path], Any]) -> Callable[[DictConfig], Any]:
    """Makes `main(config, out)` a Hydra task function.

    `out` is where outputs go: the workspace under DVC, the job's own folder in a sweep. Inputs are always relative to
    the working folder. A `UserError` ends in its one line and status 1; in a sweep it only ends its job. `Interrupted`
    ends in its line and status 75, a sweep too. Of several processes that train together the first one prints.
    """

    @functools.wraps(main)
    def run(composed: DictConfig) -> Any:
        logging.captureWarnings(True)
        hydra = HydraConfig.get()
        name = Path(main.__code__.co_filename).stem
        if rank():
            silence()
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # set by `tie_to_parent`
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with reported():
                return main(load(composed), Path(hydra.runtime.output_dir))
        except Interrupted as error:
            if rank() == 0:
                print(f"{name}: {error}", file=sys.stderr)
            sys.exit(TRY_AGAIN)
        except KeyboardInterrupt:
            print(f"{name}: interrupted", file=sys.stderr)
            sys.exit(128 + signal.SIGINT)
        except UserError as error:
            if hydra.mode == RunMode.MULTIRUN:
                raise
            sys.exit(f"{name}: {error}{recovery_hint(name)}")

    # Hydra finds conf/ from the module that the task function stands in.
    run.__module__ = main.__module__
    return run


def silence() -> None:
    """Ends what goes to stdout, also from libraries; errors and tracebacks go to stderr."""
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)


def root() -> Path:
    """The repository: DVC names it, also when it runs a stage in a temporary copy; else the working folder."""
    return Path(os.environ.get("DVC_ROOT", "."))


def recovery_hint(name: str) -> str:
    """The command that brings back what DVC removed before the stage `name` ran, if it has recorded anything."""
    lock = Path("dvc.lock")
    if "DVC_ROOT" not in os.environ or not lock.is_file() or f"\n  {name}:\n" not in lock.read_text(encoding="utf-8"):
        return ""
    return " (the last recorded results come back with: git restore reports && dvc checkout -f)"
