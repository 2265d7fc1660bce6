"""What every test stands in: quiet threads, and no setting of the surrounding shell."""

import gc
import os

import pytest

from common.imports import end_of_imports
from common.logs import configure_logs
from pipeline.workers.process import set_environment

LONGEST = ("tests/images/", "tests/families/", "tests/pipeline/test_interrupted_runs.py")

gc.disable()  # until the last test is imported: looking through all that they import takes half of the tests' time
set_environment()  # before PyTorch or llama.cpp is loaded
configure_logs()  # what modules say is captured with the rest of standard output
for name in ("DVC_ROOT", "DVC_EXP_NAME", "MLFLOW_TRACKING_URI"):
    os.environ.pop(name, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, beside which all others find their place."""
    items.sort(key=lambda item: next((at for at, name in enumerate(LONGEST) if name in item.nodeid), len(LONGEST)))


def pytest_collection_finish() -> None:
    """Collect garbage from now on, but never look for any in what the tests import."""
    end_of_imports()
