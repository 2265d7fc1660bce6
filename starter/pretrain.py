"""Pretrains the starter base models from nothing on one GPU and writes them as bf16 safetensors.

    python -m starter.pretrain --out starter/models            # both, about 4 minutes on an H200

The loop is plain PyTorch: packed rows of 1024 tokens, float32 weights with bf16 arithmetic, AdamW, a warm-up and a
cosine. The figures of the run are written beside the weights as pretraining.json.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from starter import tokenizer as starter_tokenizer
from starter.statements import SEED, texts

ROW = 1024  # tokens
BATCH = 64  # rows a step
WARM_UP = 200  # steps
PEAK_LR = 2e-3


@dataclass(frozen=True)
class Shape:
    """What tells the starter models apart; both have a hidden size of 256, as K-quantized rows need."""

    layers: int
    steps: int


SHAPES = {"starter-s": Shape(layers=2, steps=450), "starter-m": Shape(layers=7, steps=4000)}


def config(name: str, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """Return the architecture of a starter model: Llama with grouped-query attention and tied embeddings."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=SHAPES[name].layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=ROW,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.convert_tokens_to_ids(["<|eot_id|>", "<|end_of_text|>"]),
        pad_token_id=tokenizer.pad_token_id,
    )


def corpus(tokenizer: PreTrainedTokenizerFast, chunks: int) -> np.ndarray:
    """Return all texts of `chunks` chunks as token ids in rows, int16 [rows, ROW]."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with ProcessPoolExecutor() as pool:
        encoded = pool.map(_encode, range(chunks), [tokenizer] * chunks, chunksize=8)
        ids = np.concatenate(list(encoded))
    return ids[: len(ids) // ROW * ROW].reshape(-1, ROW)


def pretrain(
    name: str, tokenizer: PreTrainedTokenizerFast, rows: np.ndarray, steps: int
) -> tuple[LlamaForCausalLM, dict]:
    """Train one model and return it with the figures of its run."""
    torch.manual_seed(SEED)
    with torch.device("cuda"):
        model = LlamaForCausalLM(config(name, tokenizer))
    compiled = torch.compile(model)
    optimizer = torch.optim.AdamW(_groups(model), lr=PEAK_LR, betas=(0.9, 0.95), fused=True)
    losses, start = [], time.perf_counter()
    for step, batch in enumerate(_batches(rows, steps)):
        for group in optimizer.param_groups:
            group["lr"] = PEAK_LR * _schedule(step, steps)
        with torch.autocast("cuda", torch.bfloat16):
            loss = compiled(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        if step % 500 == 0:
            print(f"{name} step {step}/{steps} loss {loss.item():.4f} {time.perf_counter() - start:.0f} s", flush=True)
    final = torch.stack(losses[-100:]).mean().item()
    seconds = time.perf_counter() - start
    return model, {
        "parameters": sum(p.numel() for p in model.parameters()),
        "seed": SEED,
        "texts": "starter.statements",
        "rows": len(rows),
        "tokens": steps * BATCH * ROW,
        "steps": steps,
        "peak_lr": PEAK_LR,
        "seconds": round(seconds, 1),
        "final_loss": round(final, 4),
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
    }


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, figures: dict, folder: Path) -> None:
    """Write bf16 weights, tokenizer with chat template, and the figures of the run."""
    model.bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "pretraining.json").write_text(json.dumps(figures, indent=2) + "\n")


def _encode(chunk: int, tokenizer: PreTrainedTokenizerFast) -> np.ndarray:
    encoded = tokenizer(list(texts(chunk)), add_special_tokens=False)["input_ids"]
    return np.fromiter((token for ids in encoded for token in ids), dtype=np.int16)


def _batches(rows: np.ndarray, steps: int) -> Iterator[torch.Tensor]:
    """Yield `steps` batches of BATCH rows each, every epoch in another order."""
    on_device = torch.from_numpy(rows).cuda()
    order = torch.empty(0, dtype=torch.long)
    generator = torch.Generator().manual_seed(SEED)
    for _ in range(steps):
        if len(order) < BATCH:
            order = torch.randperm(len(rows), generator=generator)
        yield on_device[order[:BATCH].cuda()].long()
        order = order[BATCH:]


def _groups(model: LlamaForCausalLM) -> list[dict]:
    """Return weight decay for matrices alone."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    return [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]


def _schedule(step: int, steps: int) -> float:
    """Return the share of the peak learning rate: linear warm-up, cosine to a twentieth."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    return 0.05 + 0.95 * (1 + math.cos(math.pi * (step - WARM_UP) / (steps - WARM_UP))) / 2


def main() -> None:
    """Train on the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--chunks", type=int, default=1500, help="a thousand texts each")
    arguments = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    tokenizer = starter_tokenizer.train()
    rows = corpus(tokenizer, arguments.chunks)
    print(f"{rows.size / 1e6:.0f} M tokens of text", flush=True)
    for name in arguments.models:
        model, figures = pretrain(name, tokenizer, rows, SHAPES[name].steps)
        save(model, tokenizer, figures, arguments.out / name)
        print(name, json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
