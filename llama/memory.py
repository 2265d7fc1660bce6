"""Whether a model fits into memory: better said before it is loaded than by the kernel's killing the server."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from common.errors import UserError
from llama.cgroups import groups

WORK = 200 << 20  # bytes for what is computed with, beside weights and KV cache: generous for a small model
HALF = 2  # bytes of a number in the KV cache


def cache_bytes(metadata: Mapping[str, str]) -> int:
    """Return bytes that a token takes in the KV cache, by a GGUF's metadata; 0 where it does not say."""
    name = metadata.get("general.architecture", "")

    def figures(key: str) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", metadata.get(f"{name}.{key}", ""))]

    layers, heads = figures("block_count"), figures("attention.head_count")
    kv_heads = figures("attention.head_count_kv") or heads
    if not layers or not any(heads) or not kv_heads:  # a recurrent model says that it has 0 heads
        return 0
    usual = [figures("embedding_length")[0] // heads[0]]
    sizes = [(figures(f"attention.{part}_length") or usual)[0] for part in ("key", "value")]
    total = sum(kv_heads) if len(kv_heads) > 1 else layers[0] * kv_heads[0]
    return total * sum(sizes) * HALF


def work_bytes(metadata: Mapping[str, str], tokens: int) -> int:
    """Return bytes that so many tokens take when they are computed at once, by a GGUF's metadata.

    What each may look at is a number of two bytes, and of each llama.cpp keeps some rows of 32-bit numbers: measured by
    its own account, within a fifth.
    """
    name = metadata.get("general.architecture", "")
    found = (
        re.findall(r"\d+", metadata.get(f"{name}.{key}", "")) for key in ("embedding_length", "feed_forward_length")
    )
    width, hidden = (max(map(int, numbers), default=0) for numbers in found)
    return tokens**2 * HALF + tokens * (5 * width + 2 * hidden) * 4


def check_work(name: str, tokens: int, work: int, root: Path = Path("/")) -> None:
    """Raise UserError where there is no memory for what takes so many bytes of `work`, beside a model that is there."""
    free = free_bytes(root)
    if free is not None and work > free:
        raise UserError(
            f"{name} takes {_gb(work)} of memory to read {tokens:,} tokens at once, and {_gb(free)} are free: lower"
            " SERVE_CONTEXT, or take a smaller model"
        )


def check_memory(name: str, weights: int, cache: int, how: str, root: Path = Path("/"), *, freed: int = 0) -> int:
    """Return bytes of memory that a model leaves free. Raises UserError for one that does not fit.

    Args:
        name: of the model.
        weights: bytes.
        cache: bytes.
        how: what the cache is for, as "4 x 4,096 tokens".
        root: where /proc and /sys are looked up.
        freed: bytes that another one gives back before.
    """
    free = free_bytes(root)
    free = None if free is None else free + freed
    needed = weights + cache + WORK
    if free is not None and needed > free:
        raise UserError(
            f"{name} takes {_gb(needed)} of memory ({_gb(weights)} of weights, {_gb(cache)} for {how}) and {_gb(free)}"
            " are free: lower SERVE_SLOTS or SERVE_CONTEXT, or take a smaller model"
        )
    return sys.maxsize if free is None else free - needed


def check_free(name: str, size: int, root: Path = Path("/")) -> None:
    """Raise UserError for an adapter of so many bytes that does not fit into memory beside its base."""
    free = free_bytes(root)
    if free is not None and size > free:
        raise UserError(f"{name} takes {_gb(size)} of memory and {_gb(free)} are free: lower SERVE_PROMPT_CACHE_MB")


def free_bytes(root: Path = Path("/")) -> int | None:
    """Return memory that can still be taken: of the machine or of the strictest control group.

    None where neither tells.
    """
    found = [_of_machine(root), *(_of_group(version, folder) for version, folder in groups(root, "memory"))]
    return min((free for free in found if free is not None), default=None)


def _of_machine(root: Path) -> int | None:
    try:
        (kilobytes,) = re.findall(r"MemAvailable:\s+(\d+) kB", (root / "proc/meminfo").read_text())
    except (OSError, ValueError):
        return None
    return int(kilobytes) << 10


def _of_group(version: int, folder: Path) -> int | None:
    limit, used, pages = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache"),
        2: ("memory.max", "memory.current", "file"),
    }[version]
    try:
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        taken = int((folder / used).read_text()) - int(statistics[pages])  # cached files make way
        return int((folder / limit).read_text()) - taken
    except (OSError, ValueError, KeyError):  # no such file, or "max": no limit
        return None


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
