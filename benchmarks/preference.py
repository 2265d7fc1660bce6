"""Training speed of preferences: DPO, KTO and ORPO beside conversations, and beside TRL's DPOTrainer.

    python -m benchmarks.preference                  Llama 3.2's 1B shape on one card, random weights
    python -m benchmarks.preference --model tiny     what a CPU does in minutes: that all of it runs

All learn from the same pairs, whose chosen answers are the conversations; each is a process of its own, one after
another. Tokens are those of the answers that are learnt from, with their prompts, and no padding: those of the
reference and of KTO's mismatched answers do not count, as they are no more learnt. On a GPU layers are compiled, as a
training of hours would choose by itself. DPO should be at least 0.55 of conversations (arithmetic allows 4/6 = 0.67
with a frozen base and the reference computed each time), and 1.5 times TRL's.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Required, TypedDict

import torch

from benchmarks.inputs import LENGTH_MU, STARTER, llama, make_model, write_chats
from benchmarks.peers import MAX_LENGTH, PROJECTIONS, RANK, WARM_UP, steady_rate, timed
from benchmarks.train import PRESETS, execute, facts, reason
from common.files import write_json, write_text
from pipeline.core.composition import compose
from pipeline.core.config import load
from pipeline.stages.prepare import prepare

REPOSITORY = Path(__file__).parents[1]
DATA = ["data=preferences", "data.files=[pairs.jsonl]", "data.validation=32", "data.test=1", "data.seed=0"]
# What is trained, and how many of its rows are as many sequences as a pair.
RUNS = {
    "lora": ("conversations", 2),
    "dpo": ("DPO, pairs", 1),
    "kto": ("KTO, judgements", 2),
    "orpo": ("ORPO, pairs", 1),
}
TRL, OF_TRL = "trl-dpo", "TRL's DPOTrainer, Liger's loss on a GPU, as many pairs at once as are best"
TRL_ROWS = (1, 2, 4, 8, 16)  # pairs at once: its best counts


class Figures(TypedDict, total=False):
    """What was measured of a training, or why it failed."""

    what: Required[str]
    tokens_per_second: float
    peak_memory_gib: float | None
    pairs_at_once: int
    tried: dict[int, float]  # tokens a second, by pairs at once
    failed: str


@dataclass(frozen=True)
class Bench:
    """What all learn from."""

    model: str  # one of PRESETS
    weights: Path
    rows: Path  # the folder in which ours run
    steps: int  # updates
    pairs: int  # an update


def main() -> None:
    """Make model and pairs, run each training, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=[name for name in PRESETS if name != "3b"], default="1b")
    parser.add_argument("--steps", type=int, default=60, help=f"updates, above the {WARM_UP} that warm TRL up")
    parser.add_argument("--pairs", type=int, default=32, help="of an update")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / ".cache/bench-preference")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "benchmarks/results")
    parser.add_argument("--peer", type=Path, help="TRL's in this process, its figures into this file")
    arguments = parser.parse_args()
    folder, steps, pairs = arguments.folder.absolute(), arguments.steps, arguments.pairs
    weights, rows = folder / "models" / arguments.model, folder / f"rows-{2 * pairs * steps}"
    bench = Bench(arguments.model, weights, rows, steps, pairs)
    if arguments.peer:
        write_json(arguments.peer, best_of_trl(bench))
        return
    if not weights.is_dir():
        make_model(weights, llama(arguments.model))
    if not rows.is_dir():
        make_pairs(rows, 2 * pairs * steps)
    setup = facts()
    runs = {name: ours(name, bench) for name in RUNS} | {TRL: theirs(bench, folder)}
    shown = table(bench, setup["card"] or "a CPU", runs)
    report = {"model": bench.model, "steps": steps, "pairs": pairs, **setup, "runs": runs}
    write_json(arguments.results / f"preference-{bench.model}.json", report)
    write_text(arguments.results / f"preference-{bench.model}.md", shown)
    print(shown)


def make_pairs(folder: Path, count: int) -> None:
    """Prepare so many pairs: each prompt with its own answer and that of the chat before it."""
    from transformers import AutoTokenizer

    folder.mkdir(parents=True)
    write_chats(folder / "chats.jsonl", count + 33, AutoTokenizer.from_pretrained(STARTER))
    chats = [json.loads(line)["messages"] for line in (folder / "chats.jsonl").read_text("utf-8").splitlines()]
    with (folder / "pairs.jsonl").open("w", encoding="utf-8") as file:
        for number, (asked, answer) in enumerate(chats):
            row = {"prompt": [asked], "chosen": answer["content"], "rejected": chats[number - 1][1]["content"]}
            file.write(json.dumps(row) + "\n")
    with chdir(folder):
        prepare(load(compose(REPOSITORY / "conf", DATA)).data, folder, folder)


def ours(name: str, bench: Bench) -> Figures:
    """Return the figures of one of RUNS, through the train stage."""
    what, rows = RUNS[name]
    gpu = ["train.compile=true"] if torch.cuda.is_available() else []
    with tempfile.TemporaryDirectory() as out:
        command = [
            "pipeline.stages.train", "tracking=none", *DATA, f"train={name}", f"model={PRESETS[bench.model]}",
            f"model.path={bench.weights}", "model.chat_template=null", f"train.max_steps={bench.steps}",
            f"train.eval_steps={bench.steps}", f"train.save_steps={bench.steps}", "train.preference.replay=0",
            f"train.effective_batch={rows * bench.pairs}", f"train.max_length={MAX_LENGTH}", "train.max_truncated=1",
            "train.check_export=false", *gpu, f"hydra.run.dir={out}", f"runtime.checkpoint_root={out}/checkpoints",
        ]  # fmt: skip
        log = bench.rows.parent / f"{name}.log"
        if execute(command, bench.rows, log) != 0:
            return {"what": what, "failed": reason(log)}
        report = json.loads((Path(out) / "reports/train.json").read_text("utf-8"))
    found = report["steady_tokens_per_second"] or report["tokens_per_second"]
    return {"what": what, "tokens_per_second": found, "peak_memory_gib": report.get("peak_memory_gib")}


def theirs(bench: Bench, folder: Path) -> Figures:
    """Return the figures of TRL's DPOTrainer, from a process of its own."""
    with tempfile.TemporaryDirectory() as out:
        result, log = Path(out) / "measured.json", folder / f"{TRL}.log"
        options = {"peer": result, "folder": folder, "model": bench.model, "steps": bench.steps, "pairs": bench.pairs}
        peer = ["benchmarks.preference", *(f"--{name}={value}" for name, value in options.items())]
        if execute(peer, bench.rows, log) != 0:
            return {"what": OF_TRL, "failed": reason(log)}
        found: Figures = json.loads(result.read_text("utf-8"))
        return found


def best_of_trl(bench: Bench) -> Figures:
    """Return TRL's figures with the pairs at once that give the most; those that a card does not hold are left out."""
    found: dict[int, float] = {}
    for at_once in (count for count in TRL_ROWS if count <= bench.pairs):
        try:
            found[at_once] = rate_of_trl(bench, at_once)
        except torch.OutOfMemoryError:
            break
    if not found:
        sys.exit("TRL's trainer does not fit")
    best = max(found, key=found.__getitem__)
    return {"what": OF_TRL, "tokens_per_second": found[best], "pairs_at_once": best, "tried": found}


def rate_of_trl(bench: Bench, at_once: int) -> float:
    """Return tokens a second of TRL's DPOTrainer with so many pairs at once."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    gpu, liger = torch.cuda.is_available(), find_spec("liger_kernel") is not None
    place: dict[str, object] = (
        {"device_map": {"": "cuda"}, "dtype": torch.bfloat16} if gpu else {"dtype": torch.float32}
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = DPOConfig(
            output_dir=folder, max_length=MAX_LENGTH, max_steps=min(bench.steps, 3 * WARM_UP),
            per_device_train_batch_size=at_once, gradient_accumulation_steps=bench.pairs // at_once,
            learning_rate=1e-5, optim="adamw_torch_fused", bf16=gpu, use_cpu=not gpu, gradient_checkpointing=False,
            use_liger_kernel=gpu and liger, report_to="none", save_strategy="no", disable_tqdm=True, logging_steps=5,
        )  # fmt: skip
        trainer = DPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(bench.weights, attn_implementation="sdpa", **place),
            args=arguments,
            train_dataset=Dataset.from_list([*as_messages(bench.rows)]),
            processing_class=AutoTokenizer.from_pretrained(bench.weights),
            peft_config=LoraConfig(r=RANK, lora_alpha=RANK, target_modules=PROJECTIONS, task_type="CAUSAL_LM"),
        )
        return steady_rate(timed(trainer)[0][WARM_UP:])


def as_messages(rows: Path) -> Iterator[dict[str, object]]:
    """Yield the pairs as TRL takes them, as messages."""
    for line in (rows / "pairs.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        answers = {key: [{"role": "assistant", "content": row[key]}] for key in ("chosen", "rejected")}
        yield {"prompt": row["prompt"], **answers}


def table(bench: Bench, card: str, runs: dict[str, Figures]) -> str:
    """Return the figures as Markdown."""
    supervised, peer = (runs[name].get("tokens_per_second") for name in ("lora", TRL))
    lines = [
        f"# Training on preferences, the {bench.model} shape",
        "",
        f"On {card}, by `python -m benchmarks.preference --model {bench.model}`: {bench.steps} updates of "
        f"{bench.pairs} pairs, lengths as FineTome's (median about {math.exp(LENGTH_MU):.0f} tokens).",
        "",
        "| | tokens/s | of conversations | of TRL's DPO |",
        "|---|---:|---:|---:|",
    ]
    for run in runs.values():
        if "failed" in run:
            lines.append(f"| {run['what']} | failed: {run['failed']} | | |")
            continue
        rate = run["tokens_per_second"]
        shares = [f"{rate / of:.2f}" if of else "-" for of in (supervised, peer)]
        lines.append(f"| {run['what']} | {rate:,.0f} | {shares[0]} | {shares[1]} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
