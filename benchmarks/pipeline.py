"""How much the pipeline costs beside the plainest way to do the same, on this machine, in this run.

    make bench            writes benchmarks/results/pipeline.json and prints the table; needs a finished `make repro`

- train: updates a second of the train stage's trainer (logging and sampling included) against a bare loop of
  Transformers and PEFT over as many rows in as many micro-batches, drawn at random, with the same optimizer.
- evaluate: rows a second of the batched loss against one row at a time.
- serve: greedy tokens a second of the serving engine against llama-cpp-python's `Llama`.
"""

import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow.parquet as pq
import torch
from llama_cpp import Llama
from peft import LoraConfig, get_peft_model
from rich.console import Console
from rich.table import Table

from common.files import write_json
from llama.cpus import usable_cpus
from pipeline.core.config import Config, load
from pipeline.evaluation.batches import padded
from pipeline.evaluation.gguf_scores import answer_alone
from pipeline.evaluation.inputs import read_conversations
from pipeline.evaluation.loss import measure_loss
from pipeline.models.chat import encode, load_tokenizer
from pipeline.models.loading import head_size, load_base
from pipeline.stages.compose import PARAMS, read_params
from pipeline.training.micro_batch import CPU_ROWS, cpu_rows
from pipeline.training.plan import choose
from pipeline.training.session import Session
from pipeline.training.trainer import Trainer
from pipeline.training.updates import IGNORED

RESULT = Path("benchmarks/results/pipeline.json")
STEPS = 30
REPEATS = 3


def main() -> None:
    """Measure all three and write the result."""
    config = load(read_params(PARAMS))
    rows = [
        ("train, updates/s", trainer_speed(config), bare_loop_speed(config)),
        ("evaluate, rows/s", *loss_speeds(config)),
        ("serve, tokens/s", *serve_speeds(config)),
    ]
    measured = [
        {"what": what, "ours": round(ours, 2), "peer": round(peer, 2), "ratio": round(ours / peer, 3)}
        for what, ours, peer in rows
    ]
    write_json(RESULT, {**facts(), "measured": measured})
    table = Table("", "ours", "peer", "ratio", title="pipeline benchmark")
    for row in measured:
        table.add_row(str(row["what"]), f"{row['ours']:,.2f}", f"{row['peer']:,.2f}", f"{row['ratio']:.3f}")
    Console().print(table)


def facts() -> dict[str, Any]:
    """Return when, on what and with what a benchmark ran."""
    packages = {name: version(name) for name in ("torch", "transformers", "trl", "peft", "llama-cpp-python")}
    machine = {"processor": platform.processor() or platform.machine(), "cpus": usable_cpus()}
    return {"date": time.strftime("%Y-%m-%d"), "machine": machine, "packages": packages}


def trainer_speed(config: Config) -> float:
    """Update a second of the train stage's trainer, without checkpoints and validation."""
    train = replace(config.train, max_steps=STEPS, save_steps=10 * STEPS, eval_steps=10 * STEPS)
    with tempfile.TemporaryDirectory() as folder:
        return STEPS / cpu_trainer(replace(config, train=train), Path(folder)).train().metrics["train_runtime"]


def cpu_trainer(config: Config, folder: Path) -> Trainer:
    """Return the train stage's trainer, as it trains on a CPU."""
    plan = choose(config.train, config.model, None, head_size(config.model))
    trainer = Session(config, load_tokenizer(config.model), plan, "cpu", folder).trainer()
    trainer.use(cpu_rows(trainer), checkpointing=False, compiled=False)
    return trainer


def bare_loop_speed(config: Config) -> float:
    """Update a second of forward, backward and AdamW over batches of the same rows."""
    tokenizer = load_tokenizer(config.model)
    base = load_base(config.model.path, config.model.revision, "cpu", torch.float32)
    lora = config.train.lora
    adapter = LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules=lora.target_modules)
    model = get_peft_model(base, adapter).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=config.train.lr, fused=True)
    messages = pq.read_table("data/prepared/train.parquet")["messages"].to_pylist()
    order = torch.randperm(len(messages), generator=torch.Generator().manual_seed(config.train.seed)).tolist()
    size = min(config.train.update_size, CPU_ROWS)
    parts = config.train.update_size // size
    rows = [encode(tokenizer, messages[i], config.train.max_length)[0] for i in order[: STEPS * size * parts]]
    start = time.perf_counter()
    for step in range(STEPS):
        for part in range(step * parts, (step + 1) * parts):
            batch = rows[part * size : (part + 1) * size]
            (model(**_batch(batch, tokenizer.pad_token_id)).loss / parts).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.train.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
    return STEPS / (time.perf_counter() - start)


def loss_speeds(config: Config) -> tuple[float, float]:
    """Return rows a second, batched and one at a time."""
    tokenizer = load_tokenizer(config.model)
    rows = [row for one in read_conversations(tokenizer, config.evaluate, "all") for row in one.rows]
    model = load_base(config.model.path, config.model.revision, "cpu", torch.float32)
    pad = tokenizer.pad_token_id
    batched = _median(lambda: measure_loss(model, rows, config.evaluate.batch_size, pad)[1])
    return batched, _median(lambda: measure_loss(model, rows, 1, pad)[1])


def serve_speeds(config: Config) -> tuple[float, float]:
    """Return tokens a second of the engine's model and of the plain binding, on the same prompts and threads."""
    file = sorted(Path("models/gguf").glob("*Q8_0.gguf"))[0]
    prompts, most = config.evaluate.prompts, config.evaluate.max_new_tokens
    plain = Llama(str(file), n_ctx=0, n_threads=usable_cpus(), n_threads_batch=usable_cpus(), verbose=False)

    def plain_speed() -> float:
        tokens, seconds = 0, 0.0
        for prompt in prompts:
            stream = plain.create_chat_completion([{"role": "user", "content": prompt}], stream=True, temperature=0)
            next(iter(stream))  # the role comes first, without a token
            start = time.perf_counter()
            tokens += sum(1 for _ in zip(stream, range(most), strict=False))
            seconds += time.perf_counter() - start
        return tokens / seconds

    def our_speed() -> float:
        answers = answer_alone(file, prompts, most)
        tokens = sum(max(answer["tokens"] - 1, 0) for answer in answers)
        return tokens / sum(answer["seconds"] - answer["first_token_seconds"] for answer in answers)

    return _median(our_speed), _median(plain_speed)


def _median(measure: Callable[[], float]) -> float:
    return median(measure() for _ in range(REPEATS))


def _batch(rows: list[tuple[list[int], list[int]]], pad: int) -> dict[str, torch.Tensor]:
    ids, attention = padded([ids for ids, _ in rows], pad, "cpu")
    labels = [[i if is_learnt else IGNORED for i, is_learnt in zip(*row, strict=True)] for row in rows]
    return {"input_ids": ids, "attention_mask": attention, "labels": padded(labels, IGNORED, "cpu")[0]}


if __name__ == "__main__":
    main()
