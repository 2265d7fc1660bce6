"""Huge pages: which blocks get them, and that nothing of what stands there is lost."""

import ctypes
import os
import re
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from pathlib import Path

import numpy as np
import pytest

from llama import huge_pages as pages
from llama.huge_pages import HUGE, LEAST, blocks, use_huge_pages

MAPS = """\
00400000-00452000 r-xp 00000000 08:02 173521      /usr/bin/dbus-daemon
564e3c8fd000-564e4f43c000 rw-p 00000000 00:00 0                          [heap]
7fb6bc800000-7fb6c0800000 rw-p 00000000 00:00 0
7fb701000000-7fb701200000 rw-p 00000000 00:00 0
7fb702000000-7fb712000000 r--s 00776000 fe:00 5539979                    /models/1b.gguf
7fb720000000-7fb730000000 ---p 00000000 00:00 0
"""


def test_large_anonymous_blocks_that_are_written_are_meant() -> None:
    assert list(blocks(MAPS)) == [(0x7FB6BC800000, 64 << 20)]


def huge_kilobytes(address: int) -> int:
    """Of the block that an address lies in, as the kernel counts them."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if head := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(head[1], 16) <= address < int(head[2], 16)
        elif inside and line.startswith("AnonHugePages:"):
            found = int(line.split()[1])
    return found


@pytest.fixture
def can_collapse() -> None:
    """Linux 6.1 and later, with huge pages."""
    release, given = re.findall(r"\d+", os.uname().release), Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if (int(release[0]), int(release[1])) < (6, 1) or not given.exists() or "[never]" in given.read_text():
        pytest.skip("this kernel cannot move a block to huge pages at once")


@pytest.mark.usefixtures("can_collapse")
def test_what_is_written_moves_to_huge_pages_and_stays_what_it_is() -> None:
    size = 2 * LEAST
    memory = mmap(-1, size, flags=MAP_PRIVATE | MAP_ANONYMOUS)
    values = np.frombuffer(memory, np.uint8)
    values[: size // 2] = np.arange(size // 2, dtype=np.uint64).astype(np.uint8)
    before = np.array(values[: size // 2])
    use_huge_pages()
    assert huge_kilobytes(values.ctypes.data) * 1024 >= size // 2 - 2 * HUGE
    libc = ctypes.CDLL(None)
    assert sum(length for _, length in pages._written(libc, values.ctypes.data, size)) <= size // 2
    assert (values[: size // 2] == before).all()
    assert not values[size // 2 :].any()
