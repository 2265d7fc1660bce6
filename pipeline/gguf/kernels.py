"""llama.cpp's kernels in a process that makes files: those for AVX2, so that files come out the same to the byte."""

from pathlib import Path

from llama import variants
from pipeline.workers.arithmetic import CPUINFO, fix, has_avx2

KERNELS = "haswell"  # with AVX2


def fix_kernels(cpuinfo: Path = CPUINFO) -> None:
    """Set what llama.cpp reads when it computes first, as `fix_arithmetic` does for others.

    Elsewhere than in an export it may be as fast as it can be.

    Args:
        cpuinfo: Linux's file of what the processor has.
    """
    if has_avx2(cpuinfo) and KERNELS in variants.installed():
        fix(variants.CHOICE, KERNELS)
