"""What the trained model says itself: logits by Transformers and PEFT, in float32, of base and adapter side by side.

Nothing here goes through the merge, so that a faulty merge cannot hide. Weights come from disk as each module needs
them and go again after it: memory holds the largest tensor and the activations, whatever the model's size.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import cpu_offload, init_empty_weights
from accelerate.utils import OffloadedWeightsLoader
from peft import LoraConfig, PeftMixedModel, PeftModel, get_peft_model
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from pipeline.gguf.merge import PREFIX, NotPlain, base_folder, plan_deltas, weight_files
from pipeline.gguf.positions import round_ramp
from pipeline.models.loading import ADAPTER_WEIGHTS, load_base, require_safetensors

logger = logging.getLogger(__name__)

TrainedModel = PreTrainedModel | PeftModel | PeftMixedModel
BATCH = 4  # rows in a forward pass; weights are read anew for each


def trained_model(path: str, revision: str | None, adapter: Path | None, device: str) -> TrainedModel:
    """Return a model in float32, with its adapter unmerged where it has one; its weights stay on disk where they can.

    Its positions are llama.cpp's, which rounds where some models do not: see `round_ramp`.

    Args:
        path: of the base or of a full fine-tune: a folder, or a name on the hub.
        revision: on the hub.
        adapter: in PEFT's layout; None for the model alone.
        device: `cpu` or `cuda`, which computes.

    Raises:
        UserError: the weights cannot be loaded.
    """
    try:
        return _streamed(base_folder(path, revision), adapter, device)
    except NotPlain as reason:
        logger.info(f"checking with the whole model in memory: {reason}")
        model = load_base(path, revision, device, torch.float32)
        round_ramp(model)
        if adapter:
            require_safetensors(adapter)
        return (PeftModel.from_pretrained(model, str(adapter)) if adapter else model).eval()


@torch.inference_mode()
def write_logits(model: torch.nn.Module, rows: Sequence[Sequence[int]], device: str, out: np.ndarray) -> bool:
    """Write the logits that follow each token of each row but its last, row after row, into float32 `out`.

    Args:
        model: a causal language model.
        rows: token ids.
        device: that the model computes on.
        out: [tokens less one a row, vocabulary].

    Returns:
        Whether 16 bits hold what the model computes on the way. llama.cpp has some of that in float16, and no numbers
        for what is beyond: a training that has diverged gets there.
    """
    done, reach = 0, torch.zeros(())
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        # Padding comes after all that is looked at, and a causal model never looks ahead: it needs no mask.
        ids = pad_sequence([torch.tensor(row) for row in batch], batch_first=True).to(device)
        found = model(input_ids=ids, use_cache=False, output_hidden_states=True)
        reach = torch.stack([reach, *(states.abs().max().cpu() for states in found.hidden_states)]).max()  # nan stays
        for row, logits in zip(batch, found.logits, strict=True):
            out[done : done + len(row) - 1] = logits[: len(row) - 1].float().cpu().numpy()
            done += len(row) - 1
    return bool(reach <= torch.finfo(torch.float16).max)


@torch.inference_mode()
def last_logits(model: torch.nn.Module, row: Sequence[int], count: int, device: str) -> np.ndarray:
    """Return the logits that follow the last tokens of a row but its very last one, float32 [count, vocabulary].

    Args:
        model: a causal language model.
        row: token ids, more than `count`; no others' logits are computed.
        count: of tokens.
        device: that the model computes on.
    """
    ids = torch.tensor([row[:-1]]).to(device)
    return model(input_ids=ids, use_cache=False, logits_to_keep=count).logits[0, -count:].float().cpu().numpy()


def _streamed(base: Path, adapter: Path | None, device: str) -> TrainedModel:
    """Return the model without weights, each module fetching its own from the safetensors when it is called.

    Raises:
        NotPlain: the files' tensors are not the modules' own.
    """
    files = weight_files(base)
    if adapter:
        plan_deltas(adapter, set(files))
    with init_empty_weights():
        whole: PreTrainedModel = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(str(base), trust_remote_code=False), dtype=torch.float32, trust_remote_code=False
        )
        round_ramp(whole)
        model: TrainedModel = whole
        tied: dict[str, str] = whole.all_tied_weights_keys  # which are stored once
        if adapter:
            lora = LoraConfig.from_pretrained(str(adapter))
            lora.base_model_name_or_path = None  # PEFT warns where the base comes from a cache's folder
            model = get_peft_model(whole, lora, low_cpu_mem_usage=True)
    places = {}
    for name in model.state_dict():
        stored = name.replace(".default.", ".")
        if adapter and ".lora_" in stored:
            file = adapter / ADAPTER_WEIGHTS
        else:
            stored = stored.removeprefix(PREFIX).replace(".base_layer.", ".")
            stored = stored if stored in files else tied.get(stored, stored)
            if stored not in files:
                raise NotPlain(f"{base} has no tensor {stored}")
            file = files[stored]
        places[name] = {"safetensors_file": str(file), "weight_name": stored}
    return cpu_offload(model.eval(), torch.device(device), state_dict=OffloadedWeightsLoader(index=places))
