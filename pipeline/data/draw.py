"""Places in a seeded order, by which examples and rows are drawn whatever order they come in."""

import hashlib


def place(content: bytes, seed: int) -> bytes:
    """Return where something stands in the order of a seed, by what it says."""
    return hashlib.blake2b(content, key=str(seed).encode(), digest_size=8).digest()
