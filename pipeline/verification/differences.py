"""In what two GGUF files differ: metadata by their keys, the lineage by its own, tensors by their names."""

import json
from pathlib import Path

import numpy as np
from gguf import GGUFReader, ReaderField, ReaderTensor

from pipeline.core.mappings import changed_keys, flatten
from pipeline.gguf.lineage_key import LINEAGE_KEY
from pipeline.verification.read import read_gguf

CHUNK = 2**24  # bytes compared at once


def differences(one: Path, other: Path) -> list[str]:
    """Return in what `other` is not `one`, a line each; empty where they are the same to the byte.

    Raises:
        UserError: one of them is no GGUF.
    """
    first = first_difference(one, other)
    if first is None:
        return []
    files = read_gguf(one), read_gguf(other)
    found = [*metadata_differences(*files), *tensor_differences(*files)]
    return found or [f"byte {first:,} and maybe others, in no tensor's or metadata's content"]


def metadata_differences(one: GGUFReader, other: GGUFReader) -> list[str]:
    """Return a line for each key whose values differ; for the lineage, one for each of its own keys."""
    found = []
    for key in sorted({*one.fields, *other.fields}):
        mine, theirs = one.get_field(key), other.get_field(key)
        if mine is not None and theirs is not None and stored(mine) == stored(theirs):
            continue
        lines = lineage_differences(mine, theirs) if key == LINEAGE_KEY else []
        found += lines or [f"metadata {key}: {shown(mine)} -> {shown(theirs)}"]
    return found


def stored(field: ReaderField) -> tuple[list[int], bytes]:
    """Return a field's types and the bytes of all its parts."""
    return [int(kind) for kind in field.types], b"".join(part.tobytes() for part in field.parts)


def shown(field: ReaderField | None) -> str:
    """Return a value in short."""
    if field is None:
        return "none"
    try:
        text = repr(field.contents())
    except UnicodeDecodeError:
        text = "damaged text"
    return text if len(text) <= 60 else f"{text[:60]}…"


def lineage_differences(one: ReaderField | None, other: ReaderField | None) -> list[str]:
    """Return a line for each key of two lineages that differs; none where one cannot be read."""
    try:
        before, after = (flatten(json.loads(str(field.contents()))) for field in (one, other) if field is not None)
    except ValueError:  # one is none, or damaged
        return []
    return [f"lineage {key}: {before.get(key)} -> {after.get(key)}" for key in changed_keys(before, after)]


def tensor_differences(one: GGUFReader, other: GGUFReader) -> list[str]:
    """Return a line for each tensor that is in one file alone, or other there."""
    mine, theirs = ({tensor.name: tensor for tensor in file.tensors} for file in (one, other))
    found = []
    for name in sorted({*mine, *theirs}):
        if name not in theirs or name not in mine:
            found.append(f"tensor {name}: in one file alone")
        elif line := tensor_difference(mine[name], theirs[name]):
            found.append(f"tensor {name}: {line}")
    return found


def tensor_difference(one: ReaderTensor, other: ReaderTensor) -> str:
    """Return what differs between two tensors of a name; nothing where nothing does."""
    kinds = [f"{tensor.tensor_type.name} {[int(size) for size in tensor.shape]}" for tensor in (one, other)]
    if kinds[0] != kinds[1]:
        return f"{kinds[0]} -> {kinds[1]}"
    mine, theirs = (tensor.data.reshape(-1).view(np.uint8) for tensor in (one, other))
    count = sum(int((mine[at : at + CHUNK] != theirs[at : at + CHUNK]).sum()) for at in range(0, len(mine), CHUNK))
    return f"{count:,} of {len(mine):,} bytes" if count else ""


def first_difference(one: Path, other: Path) -> int | None:
    """Return the first byte that two files do not share; None where they are the same."""
    done = 0
    with one.open("rb") as mine, other.open("rb") as theirs:
        while True:
            left, right = mine.read(CHUNK), theirs.read(CHUNK)
            if left != right:
                pairs = zip(left, right, strict=False)
                return done + next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))
            if not left:
                return None
            done += len(left)
