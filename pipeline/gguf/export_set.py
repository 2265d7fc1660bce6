"""All GGUF files of one model: from one unquantized file, each held against the model that it was made of."""

import logging
import math
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
from transformers import PreTrainedConfig

from common.files import sha256
from llama.context import CHUNK
from pipeline.core.gguf_types import OUT_TYPES
from pipeline.core.records import ManifestFile, Of
from pipeline.gguf.convert import convert
from pipeline.gguf.far import check_far_divergence, far_tokens
from pipeline.gguf.importance import importance
from pipeline.gguf.positions import end_at_window, has_rounded_ramp
from pipeline.gguf.quantize import quantize
from pipeline.gguf.reference import trained_model, write_logits
from pipeline.gguf.verify import (
    EXACT,
    ROUNDED,
    Divergence,
    Messages,
    Original,
    check_divergence,
    check_file,
    compare,
    opened,
    read_original,
    sampled,
)

logger = logging.getLogger(__name__)

# Types that others can be made of. BF16 is none: it rounds weights to a part in 250, and what was learnt is about that.
KEPT = ("F16", "F32")
ROW_TOKENS = CHUNK  # that count of a conversation: logits of 16 rows take a gigabyte at a vocabulary of 128k


@dataclass(frozen=True)
class ExportContext:
    """Where files are made, and what they are tried on."""

    folder: Path  # of the files
    work: Path  # of what goes again
    device: str  # `cpu` or `cuda`, on which Transformers computes
    chats: Sequence[Messages]  # held-out conversations
    rows: Sequence[Sequence[int]]  # the same as token ids, ROW_TOKENS at most
    weighing: Sequence[Sequence[int]]  # training rows for the importance matrix; empty for none


@dataclass(frozen=True)
class ExportSet:
    """A model of which files are made."""

    of: Of  # `tuned` or `base`, as the manifest has it
    name: str  # of the files, before their type
    weights: tuple[str, str | None, Path | None]  # what it is held against: path, revision and adapter
    types: Sequence[str]
    lineage: str = ""  # that each file tells of itself


def make_export_set(export_set: ExportSet, source: Path, context: ExportContext) -> list[ManifestFile]:
    """Write the wanted files of a model, and describe each as the manifest does.

    Args:
        export_set: the model.
        source: its folder, named as the model is; it is removed once it has been converted.
        context: where, and on what it is tried.

    Raises:
        UserError: llama.cpp or the disk refuses, or a file fails a check.
    """
    types = list(dict.fromkeys(export_set.types))
    first = unquantized(export_set, context)
    paths = {kind: context.folder / f"{export_set.name}-{kind}.gguf" for kind in types}
    kept = {kind: path for kind, path in paths.items() if kind in KEPT} or {KEPT[0]: first}
    paths |= kept
    exact = [*reversed(kept), *(["BF16"] if "BF16" in types else [])]
    trained, figures = trained_logits(export_set, context), {}
    with ThreadPoolExecutor(1) as converter:  # a process of its own: texts are read meanwhile
        made = converter.submit(convert, source, paths[exact[0]], exact[0], export_set.lineage)
        original = read_original(source, context.chats)
        made.result()
    for kind in exact:
        if kind != exact[0]:
            convert(source, paths[kind], kind, export_set.lineage)
        figures[kind] = check_exact(export_set, paths[kind], kind, original, context, trained)
    shutil.rmtree(source)
    quantized = [kind for kind in types if kind not in OUT_TYPES]
    matrix = importance(first, context.weighing) if context.weighing and quantized else None
    few = sampled(original)
    for kind in quantized:
        quantize(first, paths[kind], kind, matrix)
        with opened(paths[kind]) as file:
            check_file(file, few)
            figures[kind] = compare(file.weights, context.rows, trained[0], within=trained[1])
    return [described(paths[kind], kind, export_set.of, figures[kind]) for kind in types]


def check_exact(
    export_set: ExportSet,
    path: Path,
    kind: str,
    original: Original,
    context: ExportContext,
    trained: tuple[np.ndarray, bool],
) -> Divergence:
    """Return how near an unquantized file is to the trained model.

    Args:
        export_set: the file's.
        path: of it.
        kind: its type.
        original: what it must say of itself.
        context: what it is tried on.
        trained: of `trained_logits`. The file that the quantized ones are made of puts its own in their place: what
            quantization loses is measured from it.

    Raises:
        UserError: it fails a check.
    """
    (logits, within), first = trained, path == unquantized(export_set, context)
    if first and not has_rounded_ramp(original.config):
        logger.info(
            f"{path.name} is held against its model with yarn's ramp rounded to whole dimensions, as in llama.cpp"
        )
    longest = end_at_window(path, original.config)
    with opened(path) as file:
        check_file(file, original)
        divergence = compare(file.weights, context.rows, logits, keep=first, within=within)
        check_divergence(path, divergence, EXACT if kind in KEPT else ROUNDED)
        if first and within and (length := far_tokens(original.config, longest)):
            model = trained_model(*export_set.weights, context.device)
            check_far_divergence(file.weights, length, model, context.rows, context.device)
    return divergence


def unquantized(export_set: ExportSet, context: ExportContext) -> Path:
    """Return the file that the quantized ones are made of: the first such that is wanted, else one that goes again."""
    kind = unquantized_type(export_set.types)
    folder = context.folder if kind in export_set.types else context.work
    return folder / f"{export_set.name}-{kind}.gguf"


def unquantized_type(types: Sequence[str]) -> str:
    """Return the type that files of these types are quantized from."""
    return next((kind for kind in types if kind in KEPT), KEPT[0])


def trained_logits(export_set: ExportSet, context: ExportContext) -> tuple[np.memmap, bool]:
    """Return what the model itself says on the bench's rows, float32 [tokens less one a row, vocabulary], on disk.

    With it, whether 16 bits hold what it computes on the way.
    """
    model = trained_model(*export_set.weights, context.device)
    path = context.work / "logits"
    config = cast(PreTrainedConfig, model.config)  # PEFT's has a dictionary where the model has none
    shape = (sum(len(row) - 1 for row in context.rows), config.get_text_config().vocab_size)
    with path.open("wb") as file:  # a full disk shows here, and not when a page is written
        os.posix_fallocate(file.fileno(), 0, 4 * shape[0] * shape[1])
    logits = np.memmap(path, np.float32, "r+", shape=shape)
    within = write_logits(model, context.rows, context.device, logits)
    if not within:
        logger.info(f"{export_set.name} computes numbers that 16 bits do not hold; a training that diverged does")
    return logits, within


def described(path: Path, kind: str, of: Of, divergence: Divergence | None = None) -> ManifestFile:
    """Return a file's entry in the manifest; its figures to three or more digits, null for what is no number."""
    logger.info(f"checked {path.name}")
    figures = asdict(divergence) if divergence else {}
    return ManifestFile(
        file=path.name,
        type=kind,
        of=of,
        bytes=path.stat().st_size,
        sha256=sha256(path),
        **{key: float(f"{value:.5g}") if math.isfinite(value) else None for key, value in figures.items()},
    )
