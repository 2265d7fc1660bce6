"""What evaluation gains on loss and answers of 1,000 conversations: the stage's way, batches, and one by one.

    python -m benchmarks.evaluate                 starter-m and its own chats, on a CPU
    python -m benchmarks.evaluate --model 1b      random weights of a real shape and chats of real lengths, for a GPU

The stage's way is packed rows and continuous batching on a GPU, on a CPU batches of like length; those are measured on
a GPU, too. All ways are the evaluate stage's own, in one process and on one model; one by one takes a sample of the
conversations, evenly over their lengths. Writes benchmarks/results/evaluate-MODEL.json and .md.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from benchmarks.inputs import CHATS, REPOSITORY, SHAPES, STARTER, llama, make_model, write_chats
from benchmarks.peers import MAX_LENGTH
from benchmarks.train import facts
from common.files import write_json, write_text
from pipeline.evaluation.answers import Messages, answer_in_batches, greedy, up_to_end
from pipeline.evaluation.continuous import answer_continuously
from pipeline.evaluation.kernels import packs
from pipeline.evaluation.loss import Row, each_nats, padded_nats, scored_tokens
from pipeline.models.chat import encode, prompt_ids
from pipeline.models.loading import choose_device, load_base

GOALS = {"loss": 1.7, "answers": 8.0}  # times the conversations a second of batches, on a GPU
WAYS = {"stage": "the stage", "batches": "batches", "one_by_one": "one by one"}

Measure = Callable[[list[Any]], Iterable[tuple[int, Any]]]


def main() -> None:
    """Measure both ways, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("starter-m", *SHAPES), default="starter-m")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / ".cache/bench-evaluate", help="for weights made")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "benchmarks/results")
    parser.add_argument("--conversations", type=int, default=1000)
    parser.add_argument("--one-by-one-rows", type=int, default=64, help="conversations that the slow way takes")
    parser.add_argument("--batch-size", type=int, default=64, help="of the batches")
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
    """Return each way's speed, and how far a token's mean loss is apart from that of one by one."""
    rows: list[Row] = [row for chat in chats for row in encode(tokenizer, chat, MAX_LENGTH)]
    sample = spread([len(ids) for ids, _ in rows], few)

    def by_batches(rows: list[Row], size: int | None) -> Iterable[tuple[int, float]]:
        return padded_nats(model, rows, size, tokenizer.pad_token_id)

    ways: dict[str, Measure] = {
        "stage": lambda rows: each_nats(model, rows, None, tokenizer.pad_token_id),
        "batches": lambda rows: by_batches(rows, batch_size),
        "one_by_one": lambda rows: by_batches(rows, 1),
    }
    figures, found = timed(rows, sample, ways, 2 * batch_size)
    for way in ("stage", "batches"):
        figures[way]["most_nats_apart"] = max(
            abs(found[way][index] - found["one_by_one"][at]) / scored_tokens(rows[index])
            for at, index in enumerate(sample)
        )
    return {"ways": figures, "tokens": sum(len(ids) for ids, _ in rows)}


def compare_answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, chats: list[Messages], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Return each way's speed in answering each conversation's first question, and the share that are the same."""
    asked = [chat[: next(i for i, message in enumerate(chat) if message["role"] == "assistant")] for chat in chats]
    prompts = [prompt_ids(tokenizer, chat) for chat in asked]
    settings = greedy(model, tokenizer, arguments.new_tokens)
    sample = spread([len(prompt) for prompt in prompts], arguments.one_by_one_rows)

    def by_batches(prompts: list[list[int]], size: int | None) -> Iterable[tuple[int, list[int]]]:
        return answer_in_batches(model, settings, prompts, size)

    ways: dict[str, Measure] = {
        "stage": lambda asked: answer_continuously(model, settings, asked) if packs(model) else by_batches(asked, None),
        "batches": lambda asked: by_batches(asked, arguments.batch_size),
        "one_by_one": lambda asked: by_batches(asked, 1),
    }
    figures, found = timed(prompts, sample, ways, 2 * arguments.batch_size)
    said = {
        way: {number: up_to_end(tokens, settings) for number, tokens in replies.items()}
        for way, replies in found.items()
    }
    for way in ("stage", "batches"):
        same = [said[way][index] == said["one_by_one"][at] for at, index in enumerate(sample)]
        figures[way]["same_replies"] = sum(same) / len(same)
    return {"ways": figures, "tokens": sum(map(len, said["stage"].values()))}


def timed(
    items: list[Any], sample: list[int], ways: dict[str, Measure], first: int
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[int, Any]]]:
    """Return conversations a second each way, and what came out: of all, one by one of the sample alone.

    The first few are measured before: kernels are chosen and memory is taken then.
    """
    found, figures = {}, {}
    for way, measure in ways.items():
        chosen = [items[index] for index in sample] if way == "one_by_one" else items
        dict(measure(chosen[: 2 if way == "one_by_one" else first]))
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        found[way] = dict(measure(chosen))
        seconds = time.perf_counter() - start
        if len(found[way]) != len(chosen):
            raise SystemExit(f"{way} left out {len(chosen) - len(found[way])} of {len(chosen)}")
        peak = torch.cuda.max_memory_reserved() / 2**30 if torch.cuda.is_available() else None
        figures[way] = {
            "rows": len(chosen),
            "seconds": round(seconds, 2),
            "conversations_per_second": round(len(chosen) / seconds, 3),
            "peak_memory_gib": peak and round(peak, 2),
        }
    return figures, found


def spread(lengths: list[int], few: int) -> list[int]:
    """Return the indices of so many, evenly over their lengths."""
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    few = min(few, len(order))
    return [order[(2 * place + 1) * len(order) // (2 * few)] for place in range(few)]


def table(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    lines = [
        f"# Evaluation, {report['model']}\n",
        f"{report['date']}; {report['card'] or 'CPU'}, {report['dtype']}; {report['conversations']:,} conversations, "
        f"batches of at most {report['batch_size']}, answers of at most {report['new_tokens']} tokens.\n",
        "| what | way | conversations/s | GiB | of so many | times batches | goal on a GPU |",
        "|---|---|--:|--:|--:|--:|---|",
    ]
    for what, goal in GOALS.items():
        ways = report["measured"][what]["ways"]
        speed = ways["batches"]["conversations_per_second"]
        for way, name in WAYS.items():
            row = ways[way]
            cells = [f"{row['conversations_per_second']:,.2f}", f"{row['peak_memory_gib'] or '-'}", f"{row['rows']:,}"]
            cells += [f"{row['conversations_per_second'] / speed:.2f}", f"≥ {goal:g}" if way == "stage" else ""]
            lines.append(f"| {what} | {name} | " + " | ".join(cells) + " |")
    loss, answers = (report["measured"][what]["ways"] for what in GOALS)
    lines.append(
        "\nBeside one by one the mean loss of a conversation is "
        + " and ".join(f"{loss[way]['most_nats_apart']:.1e} ({WAYS[way]})" for way in ("stage", "batches"))
        + " nats a token apart at most, and "
        + " and ".join(f"{answers[way]['same_replies']:.0%} ({WAYS[way]})" for way in ("stage", "batches"))
        + " of the replies are the same."
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
