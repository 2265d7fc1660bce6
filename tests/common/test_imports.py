"""Imports without a search for garbage, and without scikit-learn."""

import gc
import subprocess
import sys
from pathlib import Path

from common.imports import importing

REPO = Path(__file__).parents[2]


def printed(code: str) -> str:
    """What a process of its own prints."""
    ran = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    return ran.stdout


def test_garbage_of_a_block_that_imports_is_collected_after_it_again() -> None:
    with importing():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_collection_stays_off_where_it_was() -> None:
    gc.disable()
    try:
        with importing():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_is_imported_is_not_looked_through_again_and_what_a_block_without_imports_makes_is() -> None:
    assert printed(
        "import gc\nfrom common.imports import importing\n"
        "with importing(): import email\n"
        "first = gc.get_freeze_count()\n"
        "with importing(): made = [[] for _ in range(1000)]\n"
        "print(first > 1000, gc.get_freeze_count() <= first, gc.isenabled())"
    ).split() == ["True", "True", "True"]


def test_a_stage_trains_without_scikit_learn_and_what_needs_it_gets_it() -> None:
    assert printed(
        "import gc, sys\nfrom pipeline.workers.process import prepare_process\nprepare_process()\n"
        "from transformers import Trainer\n"
        "from common.imports import end_of_imports, let_sklearn_in\n"
        "end_of_imports()\n"
        "print(sys.modules['sklearn'], gc.isenabled(), gc.get_freeze_count() > 100_000)\n"
        "let_sklearn_in()\n"
        "import sklearn.metrics\nprint(sklearn.__name__)"
    ).split() == ["None", "True", "True", "sklearn"]
