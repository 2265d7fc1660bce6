"""One arithmetic on every x86 processor from AVX2 on, whatever else it has: files then come out the same to the byte.

PyTorch, MKL and llama.cpp take the widest instructions that a processor has, and add up in another order with each
width. AVX2 is what nearly all have, so it is what all of them share. CPU seconds an update of starter-m on a busy EPYC
with AVX-512, one thread: 3.13 with this, 3.12 without.
"""

import os
import sys
from pathlib import Path

FIXED = {
    "ATEN_CPU_CAPABILITY": "avx2",  # PyTorch's own kernels
    "MKL_CBWR": "AVX2",  # MKL's matrix products: "conditional numerical reproducibility"
}
CPUINFO = Path("/proc/cpuinfo")


def fix_arithmetic(cpuinfo: Path = CPUINFO) -> None:
    """Set what PyTorch and MKL read when they compute first; what the user has set otherwise is said to be overruled.

    A processor without AVX2, which is none of x86 or an old one, keeps its own arithmetic.

    Args:
        cpuinfo: Linux's file of what the processor has.
    """
    if has_avx2(cpuinfo):
        for name, value in FIXED.items():
            fix(name, value)


def fix(name: str, value: str) -> None:
    """Set a variable; what the user has set otherwise is said to be overruled."""
    if (given := os.environ.get(name, value)) != value:
        print(f"{name}={given} is not followed: all compute with {value} (docs/verify.md)", file=sys.stderr)
    os.environ[name] = value


def has_avx2(cpuinfo: Path) -> bool:
    """Return whether the processor is an x86 with AVX2."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(line.startswith("flags") and "avx2" in line.split() for line in lines)
