"""What a process of the pipeline is told before libraries are loaded."""

import gc
import os
import sys

from common.imports import leave_out_sklearn
from common.telemetry import send_nothing
from pipeline.workers.arithmetic import fix_arithmetic
from pipeline.workers.parent import tie_to_parent


def prepare_process() -> None:
    """Set what libraries read when they are loaded, and tie a stage to who has started it: as early as can be.

    Garbage is collected from `common.imports.end_of_imports` on.
    """
    set_environment()
    tie_to_parent()
    leave_out_sklearn()
    gc.disable()


def set_environment() -> None:
    """Set what libraries read when they are loaded; what the user has set stays, but for the arithmetic."""
    fix_arithmetic()

    # OpenMP's threads spin while they wait for one another. Seconds a training step of starter-m on two cores, idle and
    # beside one busy process: 0.50 and 1.55 with the default's long spin, 0.53 and 0.98 with this, 0.68 and 0.90 with
    # none.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

    # PyTorch: GPU memory that grows in place, without holes between rows of all lengths, and a compiled layer that is
    # kept for the next training although an operation of our own is in it (training/lora.py).
    if "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:  # the older name, which the newer would silence
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    os.environ.setdefault("TORCHINDUCTOR_AUTOGRAD_CACHE_ALLOW_CUSTOM_AUTOGRAD", "1")

    send_nothing()
    os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")

    # Libraries draw bars on a terminal, and none into a log.
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
