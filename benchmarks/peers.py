"""The peers that our training is compared with, each in a process of its own, and the card's own limit.

    python -m benchmarks.peers trl-best MODEL ROWS STEPS RESULT      what benchmarks/train.py runs, one after the other

A peer learns from the same tokenized and labelled rows as ours, with an adapter of the same rank on the same
projections. Tokens are those that are no padding. The first WARM_UP updates do not count, in which a peer compiles.
Time is taken as the train stage takes it: an update's from its begin, with its rows at hand, to its end on the GPU.
"""

import argparse
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.utils.benchmark import Timer

from common.files import write_json

# Unsloth has to be imported before Transformers, TRL and PEFT, which it patches: they are imported where they are used.

MAX_LENGTH = 2048  # tokens
RANK = 16
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TOKENIZED = "tokenized"  # the rows that peers learn from, in the rows' folder
WARM_UP = 8  # updates
LATE = 3  # times the median a token: an update that compiled once more
IGNORED = -100
GIB = 2**30

Update = tuple[float, float, int]  # when it began, in seconds of a clock; how many it took; its tokens


@dataclass(frozen=True)
class Peer:
    """A library and its settings: those of Unsloth's public notebooks, or the fastest that keep conversations apart."""

    what: str
    engine: str  # unsloth or trl
    needs: tuple[str, ...]
    best: bool = False
    load_in_4bit: bool = False


PEERS = {
    "unsloth-notebook": Peer(
        "Unsloth, its notebooks' settings: batch 2 x 4, its gradient checkpointing, 8-bit AdamW",
        "unsloth",
        ("GPU", "unsloth", "bitsandbytes"),
    ),
    "unsloth-notebook-4bit": Peer(
        "the same on a base in 4 bit", "unsloth", ("GPU", "unsloth", "bitsandbytes"), load_in_4bit=True
    ),
    "unsloth-best": Peer(
        "Unsloth, rows of 2048 tokens packed by best fit, batch 16, no gradient checkpointing",
        "unsloth",
        ("GPU", "unsloth"),
        best=True,
    ),
    "trl-notebook": Peer("TRL and PEFT, the notebooks' settings, with plain gradient checkpointing", "trl", ()),
    "trl-best": Peer(
        "TRL and PEFT, Liger, FlexAttention, rows of 2048 tokens packed by best fit, batch 16, no checkpointing",
        "trl",
        ("GPU", "liger-kernel"),
        best=True,
    ),
}


def main() -> None:
    """Run one peer, or `limit`, and write what it measured; what goes wrong is the last line of the log."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["limit", *PEERS])
    parser.add_argument("model", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("steps", type=int)
    parser.add_argument("result", type=Path)
    arguments = parser.parse_args()
    try:
        peer = PEERS.get(arguments.name)
        measured = run(peer, arguments.model, arguments.rows, arguments.steps) if peer else limit()
    except Exception as error:
        traceback.print_exc()
        reason = str(error).strip().splitlines() or [""]
        sys.exit(f"{type(error).__name__}: {reason[0]}")
    write_json(arguments.result, measured)


def limit() -> dict[str, Any]:
    """Return TFLOP/s of a square matrix product of random numbers, its median over two seconds: bf16 on a GPU."""
    device, dtype, size = ("cuda", torch.bfloat16, 8192) if torch.cuda.is_available() else ("cpu", torch.float32, 1024)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    timer = Timer("a @ b", globals={"a": a, "b": b}, num_threads=torch.get_num_threads())
    seconds = timer.blocked_autorange(min_run_time=2).median
    return {"tflops": 2 * size**3 / seconds / 1e12, "size": size, "dtype": str(dtype).removeprefix("torch.")}


def run(peer: Peer, model: Path, rows: Path, steps: int) -> dict[str, Any]:
    """Train for `steps` updates and return the figures, and of each update what Update says."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = build(peer, model, rows, steps, folder)
        updates, startup = timed(trainer)
    peak = torch.cuda.max_memory_reserved() / GIB if torch.cuda.is_available() else None
    return {
        "tokens_per_second": steady_rate(updates[WARM_UP:]),
        "outside_share": outside_share(updates),
        "peak_memory_gib": peak,
        "startup_seconds": startup,
        "loss": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry][-1],
        "note": remark(peer, trainer),
        "updates": updates,
    }


def build(peer: Peer, model: Path, rows: Path, steps: int, folder: str) -> Any:
    """Return the peer's trainer, ready to train."""
    load = load_unsloth if peer.engine == "unsloth" else load_trl
    adapted, tokenizer = load(peer, model)
    from datasets import load_from_disk
    from trl import SFTConfig, SFTTrainer, pack_dataset

    learnt, collator = load_from_disk(str(rows / TOKENIZED)), None
    if peer.engine == "trl" and peer.best:
        learnt, collator = pack_dataset(learnt, MAX_LENGTH, strategy="bfd"), packed_collator(tokenizer.pad_token_id)
    settings: dict[str, Any] = {
        "max_length": MAX_LENGTH,
        "max_steps": steps,
        "learning_rate": 2e-4,
        "warmup_steps": 5,
        "logging_steps": 5,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "bf16": torch.cuda.is_available(),
        "use_cpu": not torch.cuda.is_available(),
        "gradient_checkpointing": not peer.best,
    }
    if peer.best:
        settings |= {"per_device_train_batch_size": 16, "optim": "adamw_torch_fused"}
    else:
        optimizer = "adamw_8bit" if torch.cuda.is_available() else "adamw_torch"
        settings |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "optim": optimizer}
    if peer.engine == "trl":
        settings |= {"dataset_kwargs": {"skip_prepare_dataset": True}, "use_liger_kernel": peer.best}
    elif peer.best:
        settings |= {"packing": True}  # by itself
    # Unsloth is not told to skip the preparation, or it turns off the padding-free batches that it has by default.
    return SFTTrainer(
        model=adapted,
        args=SFTConfig(output_dir=folder, **settings),
        train_dataset=learnt,
        processing_class=tokenizer,
        data_collator=collator,
    )


def load_unsloth(peer: Peer, path: Path) -> tuple[Any, Any]:
    """Return Unsloth's model with its adapter, and the tokenizer."""
    from unsloth import FastLanguageModel

    model, tokenizer = FastLanguageModel.from_pretrained(
        str(path), max_seq_length=MAX_LENGTH, dtype=torch.bfloat16, load_in_4bit=peer.load_in_4bit
    )
    adapted = FastLanguageModel.get_peft_model(
        model,
        r=RANK,
        lora_alpha=RANK,
        target_modules=PROJECTIONS,
        use_gradient_checkpointing=False if peer.best else "unsloth",
    )
    return adapted, tokenizer


def load_trl(peer: Peer, path: Path) -> tuple[Any, Any]:
    """Return Transformers' model with PEFT's adapter, and the tokenizer."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(
        path,
        dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32,
        device_map={"": "cuda" if torch.cuda.is_available() else "cpu"},
        attn_implementation="flex_attention" if peer.best else "sdpa",
    )
    lora = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=PROJECTIONS, task_type="CAUSAL_LM")
    return get_peft_model(model, lora), AutoTokenizer.from_pretrained(path)


def packed_collator(padding: int) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    """Return batches of packed rows, in which Transformers tells conversations apart by positions.

    All are MAX_LENGTH wide, so that nothing is compiled again for another width.
    """
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    collate = DataCollatorForLanguageModeling(padding, return_position_ids=True, pad_to_multiple_of=MAX_LENGTH)

    def collated(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = collate(rows)
        del batch["attention_mask"]  # with one, the positions would not count
        batch["labels"][batch["position_ids"] == 0] = IGNORED  # predicted from the conversation before
        return batch

    return collated


def timed(trainer: Any) -> tuple[list[Update], float]:
    """Train; return its updates, and the seconds from the process's start to the end of the first of them."""
    from transformers import TrainerCallback

    padding = trainer.processing_class.pad_token_id
    counts: list[torch.Tensor] = []
    updates: list[Update] = []
    startup: list[float] = []
    step = trainer.training_step

    def counted(model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
        counts.append((inputs["input_ids"] != padding).sum())
        return step(model, inputs, *rest, **named)

    class Clock(TrainerCallback):
        begin = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.begin = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds = time.perf_counter() - self.begin
            startup.append(time.time() - psutil.Process().create_time())
            updates.append((self.begin, seconds, sum(int(count) for count in counts)))
            counts.clear()

    trainer.training_step = counted
    trainer.add_callback(Clock())
    trainer.train()
    return updates, startup[0]


def steady_rate(updates: list[Update]) -> float:
    """Return tokens a second in all updates but those that took over LATE times the median a token."""
    usual = statistics.median(seconds / tokens for _, seconds, tokens in updates)
    steady = [(seconds, tokens) for _, seconds, tokens in updates if seconds / tokens <= LATE * usual]
    return sum(tokens for _, tokens in steady) / sum(seconds for seconds, _ in steady)


def outside_share(updates: list[Update]) -> float:
    """Return the share of the time since the warm-up that was between updates: rows, logging."""
    (warm_begin, warm_seconds, _), (last_begin, last_seconds, _) = updates[WARM_UP - 1], updates[-1]
    span = last_begin + last_seconds - warm_begin - warm_seconds
    return 1 - sum(seconds for _, seconds, _ in updates[WARM_UP:]) / span


def remark(peer: Peer, trainer: Any) -> str:
    """Return what the table has to say beside the figures."""
    notes = []
    if peer.engine == "unsloth":
        notes.append(f"packing {trainer.args.packing}, padding-free {trainer.args.padding_free}, as Unsloth decided")
    if "seq_lengths" in trainer.train_dataset.column_names:
        try:
            effect = f"{neighbour_effect(trainer):.1e}"
        except Exception as error:  # the training is measured all the same
            effect = f"an unknown share ({type(error).__name__})"
        notes.append(f"another neighbour in its packed row changes a conversation's loss by {effect}")
    if not torch.cuda.is_available():
        notes.append("float32, AdamW in 32 bit")
    return "; ".join(notes)


def neighbour_effect(trainer: Any) -> float:
    """Return the share by which a conversation's loss changes when the one before it in its packed row is reversed.

    It is 0 where conversations attend to themselves alone. Measured in a batch of the usual size.
    """
    rows = trainer.train_dataset
    shared = next(index for index, lengths in enumerate(rows["seq_lengths"]) if len(lengths) > 1)
    examples = [rows[index] for index in (shared, *range(trainer.args.per_device_train_batch_size - 1))]
    first, *others = examples
    before = first["seq_lengths"][0]
    first["labels"][: before + 1] = [IGNORED] * (before + 1)
    for other in others:
        other["labels"] = [IGNORED] * len(other["labels"])
    losses = []
    trainer.model.train()
    for _ in range(2):
        with torch.no_grad(), trainer.compute_loss_context_manager():
            batch = trainer._prepare_inputs(trainer.data_collator(examples))
            losses.append(float(trainer.compute_loss(trainer.model, batch)))
        first["input_ids"][:before] = first["input_ids"][:before][::-1]
    return abs(losses[1] - losses[0]) / losses[0]


if __name__ == "__main__":
    main()
