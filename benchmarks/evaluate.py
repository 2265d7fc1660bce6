"""What batches gain in evaluation: loss and answers of 1,000 conversations, batched against one by one.

    python -m benchmarks.evaluate                 starter-m and its own chats, on a CPU
    python -m benchmarks.evaluate --model 1b      random weights of a real shape and chats of real lengths, for a GPU

Both ways are the evaluate stage's own, in one process and on one model; the slow one takes a sample of the
conversations, evenly over their lengths. Writes benchmarks/results/evaluate-MODEL.json and .md.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from benchmarks.inputs import CHATS, REPOSITORY, SHAPES, STARTER, llama, make_model, write_chats
from benchmarks.peers import MAX_LENGTH
from benchmarks.train import facts
from common.files import write_json, write_text
from pipeline.evaluation.answers import Messages, Reply, answer_all
from pipeline.evaluation.loss import Row, measure_loss, scored_tokens
from pipeline.models.chat import encode
from pipeline.models.loading import choose_device, load_base

GOAL = 5.0  # times the conversations a second, on a GPU


def main() -> None:
    """Measure both ways, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("starter-m", *SHAPES), default="starter-m")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / ".cache/bench-evaluate", help="for weights made")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "benchmarks/results")
    parser.add_argument("--conversations", type=int, default=1000)
    parser.add_argument("--one-by-one-rows", type=int, default=64, help="conversations that the slow way takes")
    parser.add_argument("--batch-size", type=int, default=32, help="evaluate.batch_size")
    parser.add_argument("--new-tokens", type=int, default=128, help="of an answer, at most")
    arguments = parser.parse_args()
    path, device = weights(arguments.model, arguments.folder), choose_device("auto")
    tokenizer = AutoTokenizer.from_pretrained(path)
    chats = conversations(arguments.model, arguments.folder, tokenizer, arguments.conversations)
    model = load_base(str(path), None, device, torch.bfloat16 if device == "cuda" else torch.float32).eval()
    measured = {
        "loss": compare_losses(model, tokenizer, chats, arguments.batch_size, arguments.one_by_one_rows),
        "answers": compare_answers(model, tokenizer, chats, arguments),
    }
    report = {"date": time.strftime("%Y-%m-%d"), **facts(), "device": device, "model": arguments.model}
    report |= {key: getattr(arguments, key) for key in ("conversations", "batch_size", "new_tokens")}
    report |= {"dtype": str(model.dtype).removeprefix("torch."), "measured": measured}
    print(table(report), flush=True)
    write_json(arguments.results / f"evaluate-{arguments.model}.json", report)
    write_text(arguments.results / f"evaluate-{arguments.model}.md", table(report))


def weights(name: str, folder: Path) -> Path:
    """Return a model's folder: the starter's, or random weights, made once."""
    if name == "starter-m":
        return STARTER
    if not (folder / name).is_dir():
        make_model(folder / name, llama(name))
    return folder / name


def conversations(name: str, folder: Path, tokenizer: PreTrainedTokenizerBase, count: int) -> list[Messages]:
    """Return the starter's own chats, or as many as long as FineTome's."""
    path = CHATS
    if name != "starter-m":
        path = folder / f"chats-{count}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_chats(path, count, tokenizer)
    lines = path.read_text(encoding="utf-8").splitlines()[:count]
    return [json.loads(line)["messages"] for line in lines]


def compare_losses(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, chats: list[Messages], batch_size: int, few: int
) -> dict[str, Any]:
    """Return both ways' speed, and how far a token's mean loss is apart."""
    rows: list[Row] = [row for chat in chats for row in encode(tokenizer, chat, MAX_LENGTH)]
    sample = spread([len(ids) for ids, _ in rows], few)

    def nats(rows: list[Row], size: int) -> list[float]:
        return measure_loss(model, rows, size, tokenizer.pad_token_id).nats

    figures, together, alone = timed(rows, sample, batch_size, nats)
    apart = [
        abs(together[index] - other) / scored_tokens(rows[index]) for index, other in zip(sample, alone, strict=True)
    ]
    return figures | {"tokens": sum(len(ids) for ids, _ in rows), "most_nats_apart": max(apart)}


def compare_answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, chats: list[Messages], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Return both ways' speed in answering each conversation's first question, and how many replies are the same."""
    prompts = [chat[: next(i for i, message in enumerate(chat) if message["role"] == "assistant")] for chat in chats]
    sample = spread([sum(len(message["content"]) for message in chat) for chat in prompts], arguments.one_by_one_rows)

    def replies(chats: list[Messages], size: int) -> list[Reply]:
        return answer_all(model, tokenizer, chats, arguments.new_tokens, size)

    figures, together, alone = timed(prompts, sample, arguments.batch_size, replies)
    same = [together[index] == other for index, other in zip(sample, alone, strict=True)]
    return figures | {"tokens": sum(reply["tokens"] for reply in together), "same_replies": sum(same) / len(same)}


def timed(
    items: list[Any], sample: list[int], batch_size: int, measure: Callable[[list[Any], int], list[Any]]
) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """Return conversations a second both ways, and what came out: of all in batches, of the sample one by one."""
    found, figures, speeds = {}, {}, {}
    few = [items[index] for index in sample]
    for way, chosen, size in (("batched", items, batch_size), ("one_by_one", few, 1)):
        measure(chosen[: 2 * size], size)  # kernels are chosen and memory is taken at first
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        found[way] = measure(chosen, size)
        seconds = time.perf_counter() - start
        peak = torch.cuda.max_memory_reserved() / 2**30 if torch.cuda.is_available() else None
        speeds[way] = len(chosen) / seconds
        figures[way] = {
            "rows": len(chosen),
            "seconds": round(seconds, 2),
            "conversations_per_second": round(speeds[way], 3),
            "peak_memory_gib": peak and round(peak, 2),
        }
    ratio = round(speeds["batched"] / speeds["one_by_one"], 2)
    return {**figures, "ratio": ratio}, found["batched"], found["one_by_one"]


def both(loss: dict[str, Any], answers: dict[str, Any]) -> dict[str, Any]:
    """Return a conversation's loss and its answer, one after the other, as the evaluate stage has it."""
    figures: dict[str, Any] = {}
    for way in ("batched", "one_by_one"):
        seconds = sum(1 / part[way]["conversations_per_second"] for part in (loss, answers))
        peaks = [part[way]["peak_memory_gib"] for part in (loss, answers)]
        peak = max(peaks) if all(peaks) else None
        figures[way] = {"conversations_per_second": 1 / seconds, "rows": loss[way]["rows"], "peak_memory_gib": peak}
    speeds = [figures[way]["conversations_per_second"] for way in ("batched", "one_by_one")]
    return {**figures, "ratio": speeds[0] / speeds[1]}


def spread(lengths: list[int], few: int) -> list[int]:
    """Return the indices of so many, evenly over their lengths."""
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    few = min(few, len(order))
    return [order[(2 * place + 1) * len(order) // (2 * few)] for place in range(few)]


def table(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    measured = report["measured"]
    lines = [
        f"# Evaluation in batches, {report['model']}\n",
        f"{report['date']}; {report['card'] or 'CPU'}, {report['dtype']}; {report['conversations']:,} conversations in "
        f"batches of at most {report['batch_size']}, answers of at most {report['new_tokens']} tokens.\n",
        "| what | batched, conversations/s | GiB | one by one, conversations/s | of so many | ratio | goal on a GPU |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    loss, answers = measured["loss"], measured["answers"]
    for what, row in {**measured, "both": both(loss, answers)}.items():
        many, one = row["batched"], row["one_by_one"]
        cells = [f"{many['conversations_per_second']:,.2f}", f"{many['peak_memory_gib'] or '-'}"]
        cells += [f"{one['conversations_per_second']:,.2f}", f"{one['rows']:,}", f"{row['ratio']:.2f}", f"≥ {GOAL:g}"]
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    lines.append(
        f"\nThe mean loss of a conversation is {loss['most_nats_apart']:.1e} nats a token apart at most, and "
        f"{answers['same_replies']:.0%} of the replies are the same."
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
