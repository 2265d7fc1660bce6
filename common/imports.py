"""Imports of large libraries in less time.

PyTorch, Transformers, TRL and PEFT take 7.1 s of a processor, the end of the process included: 2.9 of them go into
looking for garbage among what has been imported, of which there is none, and into scikit-learn.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def leave_out_sklearn() -> None:
    """Keep scikit-learn from being imported: Transformers does so where it is there, for what nothing here asks."""
    sys.modules.setdefault("sklearn", None)  # type: ignore[arg-type]


def let_sklearn_in() -> None:
    """Undo `leave_out_sklearn`, for a library that needs it."""
    if sys.modules.get("sklearn", sys) is None:
        del sys.modules["sklearn"]


@contextmanager
def importing() -> Iterator[None]:
    """Collect no garbage within the block, which imports, and never look for any in what it has imported."""
    collects, imported = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > imported:
            gc.freeze()
        if collects:
            gc.enable()


def end_of_imports() -> None:
    """Collect garbage again, but never among what there is by now; nothing where it was collected all along."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
