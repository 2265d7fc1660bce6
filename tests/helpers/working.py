"""A folder that tests of the stages work in."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def working_in(folder: Path) -> Iterator[Path]:
    """Enter a folder, with data sets' cache in it and one thread for what is small; then leave all as it was."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HF_DATASETS_CACHE", str(folder / "datasets"))
        yield folder
    torch.set_num_threads(threads)
