"""All GGUF files of one model: from one unquantized file, each held against the model that it was made of."""

import math
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.files import sha256
from pipeline.gguf.context import CHUNK
from pipeline.gguf.convert import OUT_TYPES, convert
from pipeline.gguf.far import far_tokens, require_far_likeness
from pipeline.gguf.importance import importance
from pipeline.gguf.positions import end_at_window, rounds_ramp
from pipeline.gguf.quantize import quantize
from pipeline.gguf.reference import trained_model, write_logits
from pipeline.gguf.verify import (
    EXACT,
    ROUNDED,
    Likeness,
    Messages,
    Original,
    compare,
    read_original,
    require_likeness,
    sampled,
    verify,
)

# Types that others can be made of. BF16 is none: it rounds weights to a part in 250, and what was learnt is about that.
KEPT = ("F16", "F32")
ROW_TOKENS = CHUNK  # that count of a conversation: logits of 16 rows take a gigabyte at a vocabulary of 128k


@dataclass(frozen=True)
class Bench:
    """Where files are made, and what they are tried on."""

    folder: Path  # of the files
    work: Path  # of what goes again
    device: str  # `cpu` or `cuda`, on which Transformers computes
    chats: Sequence[Messages]  # held-out conversations
    rows: Sequence[Sequence[int]]  # the same as token ids, ROW_TOKENS at most
    weighing: Sequence[Sequence[int]]  # training rows for the importance matrix; empty for none


@dataclass(frozen=True)
class Family:
    """A model of which files are made."""

    of: str  # `tuned` or `base`, as the manifest has it
    name: str  # of the files, before their type
    weights: tuple[str, str | None, Path | None]  # what it is held against: path, revision and adapter
    types: Sequence[str]


def make_family(family: Family, source: Path, bench: Bench) -> list[dict[str, Any]]:
    """Writes the wanted files of a model, and describes each as the manifest does.

    Args:
        family: the model.
        source: its folder, named as the model is; it is removed once it has been converted.
        bench: where, and on what it is tried.

    Raises:
        UserError: llama.cpp or the disk refuses, or a file fails a check.
    """
    wanted = list(dict.fromkeys(family.types))
    first = unquantized(family, bench)
    paths = {kind: bench.folder / f"{family.name}-{kind}.gguf" for kind in wanted}
    kept = {kind: path for kind, path in paths.items() if kind in KEPT} or {KEPT[0]: first}
    paths |= kept
    exact = [*reversed(kept), *(["BF16"] if "BF16" in wanted else [])]
    trained, figures = trained_logits(family, bench), {}
    with ThreadPoolExecutor(1) as converter:  # a process of its own: texts are read meanwhile
        made = converter.submit(convert, source, paths[exact[0]], exact[0])
        original = read_original(source, bench.chats)
        made.result()
    for kind in exact:
        if kind != exact[0]:
            convert(source, paths[kind], kind)
        figures[kind] = check_exact(family, paths[kind], kind, original, bench, trained)
    shutil.rmtree(source)
    quantized = [kind for kind in wanted if kind not in OUT_TYPES]
    matrix = importance(first, bench.weighing) if bench.weighing and quantized else None
    few = sampled(original)
    for kind in quantized:
        quantize(first, paths[kind], kind, matrix)
        verify(paths[kind], few)
        figures[kind] = compare(paths[kind], bench.rows, trained[0], within=trained[1])
    return [described(paths[kind], kind, family.of, figures[kind]) for kind in wanted]


def check_exact(
    family: Family, path: Path, kind: str, original: Original, bench: Bench, trained: tuple[np.ndarray, bool]
) -> Likeness:
    """How near an unquantized file is to the trained model.

    Args:
        family: the file's.
        path: of it.
        kind: its type.
        original: what it must say of itself.
        bench: what it is tried on.
        trained: of `trained_logits`. The file that the quantized ones are made of puts its own in their place: what
            quantization loses is measured from it.

    Raises:
        UserError: it fails a check.
    """
    (logits, within), first = trained, path == unquantized(family, bench)
    if first and not rounds_ramp(original.config):
        print(f"{path.name} is held against its model with yarn's ramp rounded to whole dimensions, as in llama.cpp")
    context = end_at_window(path, original.config)
    verify(path, original)
    likeness = compare(path, bench.rows, logits, keep=first, within=within)
    require_likeness(path, likeness, EXACT if kind in KEPT else ROUNDED)
    if first and within and (length := far_tokens(original.config, context)):
        require_far_likeness(path, length, trained_model(*family.weights, bench.device), bench.rows, bench.device)
    return likeness


def unquantized(family: Family, bench: Bench) -> Path:
    """The file that the quantized ones are made of: the first such that is wanted, else one that goes again."""
    wanted = [kind for kind in family.types if kind in KEPT]
    return (bench.folder if wanted else bench.work) / f"{family.name}-{(wanted or KEPT)[0]}.gguf"


def trained_logits(family: Family, bench: Bench) -> tuple[np.memmap, bool]:
    """What the model itself says on the bench's rows, float32 [tokens less one a row, vocabulary], on disk.

    With it, whether 16 bits hold what it computes on the way.
    """
    model = trained_model(*family.weights, bench.device)
    path = bench.work / "logits"
    shape = (sum(len(row) - 1 for row in bench.rows), model.config.get_text_config().vocab_size)
    with path.open("wb") as file:  # a full disk shows here, and not when a page is written
        os.posix_fallocate(file.fileno(), 0, 4 * shape[0] * shape[1])
    logits = np.memmap(path, np.float32, "r+", shape=shape)
    within = write_logits(model, bench.rows, bench.device, logits)
    if not within:
        print(f"{family.name} computes numbers that 16 bits do not hold; a training that diverged does", flush=True)
    return logits, within


def described(path: Path, kind: str, of: str, figures: Likeness | None = None) -> dict[str, Any]:
    """A file's entry in the manifest; its figures to three or more digits, null for what is no number."""
    entry = {"file": path.name, "type": kind, "of": of, "bytes": path.stat().st_size, "sha256": sha256(path)}
    print(f"checked {path.name}", flush=True)
    known = asdict(figures) if figures else {}
    return entry | {key: float(f"{value:.5g}") if math.isfinite(value) else None for key, value in known.items()}
