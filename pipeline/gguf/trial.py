"""A model's export, tried with tiny weights: the same tokenizer, template and kind of layers, converted and checked.

python -m pipeline.gguf.trial MODEL PROCESS        says the outcome for a model, its settings in JSON, in a line

PROCESS is the id of the training that has begun it (preflight.py): it ends with that, however that ends.
"""

import gc

from common.imports import leave_out_sklearn

if __name__ == "__main__":  # before libraries are loaded
    gc.disable()  # all that is made stays until the end, and a vocabulary is hundreds of thousands of objects
    leave_out_sklearn()

import json
import os
import shutil
import signal
import sys
import tempfile
from itertools import chain, islice
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedTokenizerBase

from common.errors import UserError
from llama.context import CHUNK
from llama.source import llama_cpp_tree
from pipeline.core.config import ModelSettings
from pipeline.gguf.export_set import ExportContext, ExportSet, make_export_set
from pipeline.gguf.merge import link
from pipeline.gguf.preflight import OUTCOME
from pipeline.gguf.texts import AWKWARD
from pipeline.models.chat import load_tokenizer
from pipeline.models.vocabulary import VOCABULARIES, copy_vocabulary, model_folder
from pipeline.workers.parent import ORPHANED, hear_of_parents_end

WIDTH = 64  # of what can be of any width
EXPERTS = 4
# What a configuration may call a size that changes nothing of how a model is converted, and what it is made.
SMALL = {
    "intermediate_size": WIDTH, "moe_intermediate_size": WIDTH, "shared_expert_intermediate_size": WIDTH,
    "num_local_experts": EXPERTS, "num_experts": EXPERTS, "n_routed_experts": EXPERTS, "num_experts_per_tok": 2,
    "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "hidden_size_per_layer_input": 16,
    "num_kv_shared_layers": 0,
}  # fmt: skip
HEADS = 2
SPREAD = 2.0  # of queries' and keys' weights, so that some tokens are looked at more than others


def main(model: ModelSettings, training: int) -> None:
    """Try a model in a folder that goes again, and say what came of it."""
    end_with(training)
    with tempfile.TemporaryDirectory(prefix="tunesmith-preflight-") as folder:
        outcome = tried(model, Path(folder))
    print(f"\n{OUTCOME}{json.dumps(outcome)}", flush=True)
    gc.freeze()  # Python's end would look through all of it


def end_with(training: int) -> None:
    """End this process, and take its folder away, when it is asked to or the training has ended without a word."""
    for number in (signal.SIGINT, signal.SIGTERM, ORPHANED):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    hear_of_parents_end()
    if os.getppid() != training:  # it ended during the imports
        sys.exit()


def tried(model: ModelSettings, folder: Path) -> dict[str, str]:
    """Return what came of it: `passed`, `refused` or `unknown`, with the model's name or the reason."""
    try:
        llama_cpp_tree()
    except UserError as error:
        return {"unknown": str(error)}
    tokenizer = load_tokenizer(model)
    base = model_folder(*model.merge_base, ["*.json", *VOCABULARIES])
    write_tiny(base, folder / "tiny")
    try:
        export(model, tokenizer, folder)
    except UserError as error:
        reason = str(error).replace(str(folder / model.name), model.path).removesuffix("; none of this export is kept")
        return {"refused": reason}
    return {"passed": model.name}


def export(model: ModelSettings, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Export the tiny weights as the base's are, with the tokenizer that training uses.

    Raises:
        UserError: the converter or a check refuses.
    """
    tokenizer.save_pretrained(folder / "tokenizer")
    link(folder / "tiny", folder / "tokenizer", folder / model.name)
    work = folder / "work"
    work.mkdir()
    texts = tokenizer(list(AWKWARD.values()))["input_ids"]
    row = list(islice(chain.from_iterable(texts), CHUNK))
    export_set = ExportSet("base", model.name, (str(folder / "tiny"), None, None), ["F16"])
    make_export_set(export_set, folder / model.name, ExportContext(folder, work, "cpu", [], [row], []))


def write_tiny(base: Path, folder: Path) -> None:
    """Write a model of random weights that is small and otherwise of the kind of `base`, with its vocabulary."""
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(str(base), trust_remote_code=False).get_text_config()
    tiny = AutoModelForCausalLM.from_config(shrunk(config), trust_remote_code=False)
    with torch.no_grad():
        for name, weight in tiny.named_parameters():
            if weight.dim() > 1:
                spread = SPREAD if "q_proj" in name or "k_proj" in name or "qkv_proj" in name else 1.0
                weight.normal_(std=spread * weight.shape[-1] ** -0.5)
    tiny.to(torch.bfloat16).save_pretrained(folder)
    if (base / "generation_config.json").is_file():
        shutil.copyfile(base / "generation_config.json", folder / "generation_config.json")
    copy_vocabulary(base, folder)


def shrunk(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return a configuration of fewer and smaller layers.

    Each kind of layer, the heads' size and the vocabulary stay.
    """
    settings = config.to_dict()
    heads, layers = config.num_attention_heads, config.num_hidden_layers
    shared = (settings.get("num_key_value_heads") or heads) < heads
    size = settings.get("head_dim") or config.hidden_size // heads
    by_layer = {key: value for key, value in settings.items() if isinstance(value, list) and len(value) == layers}
    fewest = max([2, *(value.index(kind) + 1 for value in by_layer.values() for kind in value)])
    changes = {
        **{key: min(value, settings[key]) for key, value in SMALL.items() if settings.get(key)},
        **{key: value[:fewest] for key, value in by_layer.items()},
        "num_hidden_layers": min(fewest, layers),
        "num_attention_heads": HEADS,
        "num_key_value_heads": 1 if shared else HEADS,
        "hidden_size": WIDTH if "head_dim" in settings else HEADS * size,
    }
    if own := settings.get("per_layer_config"):
        changes["per_layer_config"] = {layer: sizes for layer, sizes in own.items() if int(layer) < fewest}
    if "query_pre_attn_scalar" in settings:  # llama.cpp knows by a Gemma's size whether it is another
        changes["query_pre_attn_scalar"] = size
    return AutoConfig.for_model(**{**settings, **changes})


if __name__ == "__main__":
    main(ModelSettings(**json.loads(sys.argv[1])), int(sys.argv[2]))
