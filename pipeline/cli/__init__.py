"""The command `tunesmith`: a verb for each stage, for each of pipeline/commands, and for what serves the results.

Nothing is imported here that a verb alone needs, so that help and completion answer at once.
"""

# Each adds its verbs, in the order in which help lists them.
# isort: off
from pipeline.cli import data, stages, sweeps, results, canary, deploy, services  # noqa: F401

# isort: on
from pipeline.cli.app import app, run

__all__ = ["app", "run"]
