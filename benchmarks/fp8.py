"""What a frozen base in FP8 costs in quality: adapters trained on it and on bf16, both scored on the base as it is.

    python -m benchmarks.fp8      on a GPU that multiplies FP8; writes benchmarks/results/fp8.json

Two models: starter-m, and one of 140 million parameters that is pretrained here, on a third of the starter's chats,
before it is tuned on the others.
"""

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from benchmarks.train import execute, facts, reason
from common.files import write_json
from pipeline.core.composition import compose
from pipeline.core.config import load
from pipeline.evaluation.loss import measure_loss
from pipeline.models.chat import load_tokenizer
from pipeline.models.loading import load_base, merge_adapter
from pipeline.stages.prepare import prepare
from pipeline.training.rows import supervised
from pipeline.training.updates import IGNORED

REPOSITORY = Path(__file__).parents[1]
STARTER = REPOSITORY / "starter/models/starter-m"
DATA = ["data.files=[chats.jsonl]", "data.questions=null", "data.validation=200", "data.test=20", "data.seed=0"]
SHAPE: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 16,
    "num_attention_heads": 12,
    "head_dim": 64,
}
SEEDS = (1, 2)


def main() -> None:
    """Pretrain, tunes on either base with several seeds, scores, print and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=REPOSITORY / ".cache/bench-fp8")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "benchmarks/results")
    parser.add_argument("--steps", type=int, default=200, help="updates of 32 conversations with an adapter")
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    lines = (REPOSITORY / "starter/chats.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    for name, chats in (("pretrain", lines[::3]), ("tune", lines[1::3] + lines[2::3])):
        (folder / name).mkdir(parents=True)
        (folder / name / "chats.jsonl").write_text("".join(chats), encoding="utf-8")
        prepare(load(compose(REPOSITORY / "conf", DATA)).data, folder / name, folder / name)
    bases = {"starter-m": STARTER, "pretrained": pretrained(folder)}
    report = {"date": time.strftime("%Y-%m-%d"), **facts(), "steps": arguments.steps, "models": {}}
    for name, base in bases.items():
        report["models"][name] = compared(folder, name, base, arguments.steps)
        print(name, json.dumps(report["models"][name]), flush=True)
    write_json(arguments.results / "fp8.json", report)


def pretrained(folder: Path) -> Path:
    """Return a model from nothing, every weight trained by the real stage."""
    path = folder / "random"
    torch.manual_seed(0)
    tokenizer = json.loads((STARTER / "config.json").read_text(encoding="utf-8"))
    ids = {key: tokenizer[key] for key in ("vocab_size", "bos_token_id", "eos_token_id", "max_position_embeddings")}
    config = LlamaConfig(**SHAPE, num_key_value_heads=4, tie_word_embeddings=True, **ids)
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    copy_tokenizer(path)
    settings = ["train=full", "train.lr=3e-4", "train.max_steps=400", "train.effective_batch=64"]
    stage(folder / "pretrain", "pretrained", path, *settings)
    trained = folder / "pretrain/pretrained/models/adapter"
    copy_tokenizer(trained)
    return trained


def copy_tokenizer(path: Path) -> None:
    """Put the starter's tokenizer beside weights of our own."""
    for file in STARTER.iterdir():
        if file.suffix != ".safetensors" and file.name not in ("config.json", "generation_config.json"):
            shutil.copy(file, path / file.name)


def compared(folder: Path, name: str, base: Path, steps: int) -> dict[str, Any]:
    """Return validation losses in nats on the base as it is, by seed, and how much more FP8 has in the mean."""
    losses: dict[str, list[float]] = {"bf16": [], "fp8": []}
    for dtype, found in losses.items():
        for seed in SEEDS:
            out = f"{name}-{dtype}-{seed}"
            settings = [f"train.frozen_dtype={dtype}", f"train.seed={seed}", f"train.max_steps={steps}"]
            stage(folder / "tune", out, base, *settings, "train.effective_batch=32", "train.lr=1e-3")
            found.append(scored(folder / "tune", base, folder / "tune" / out / "models/adapter"))
    mean = {dtype: sum(found) / len(found) for dtype, found in losses.items()}
    parameters = sum(p.numel() for p in load_base(str(base), None, "cpu", torch.bfloat16).parameters())
    return {"parameters": parameters, **losses, "fp8_over_bf16": mean["fp8"] / mean["bf16"] - 1}


def stage(working: Path, name: str, base: Path, *overrides: str) -> None:
    """Run the train stage in `working`, its results below `name`."""
    command = ["pipeline.stages.train", "tracking=none", "model=starter-m", f"model.path={base}", *DATA]
    command += ["train.engine=trl", "train.eval_steps=1000", "train.save_steps=1000", "train.logging_steps=50"]
    command += [f"hydra.run.dir={working / name}", f"runtime.checkpoint_root={working / name}-checkpoints"]
    log = working / f"{name}.log"
    if execute([*command, *overrides], working, log) != 0:
        sys.exit(f"{name} failed: {reason(log)}")


def scored(working: Path, base: Path, adapter: Path) -> float:
    """Return nats a supervised token of the validation split, by base and adapter in float32."""
    before = Path.cwd()
    os.chdir(working)
    try:
        config = load(compose(REPOSITORY / "conf", ["model=starter-m", f"model.path={base}"]))
        tokenizer = load_tokenizer(config.model)
        rows = supervised("validation", tokenizer, config.train.max_length)
    finally:
        os.chdir(before)
    model = merge_adapter(load_base(str(base), None, "cuda", torch.float32), adapter)
    marked = [(row["input_ids"], [int(label != IGNORED) for label in row["labels"]]) for row in rows]
    return measure_loss(model.eval(), marked, 64, tokenizer.pad_token_id)[0]


if __name__ == "__main__":
    main()
