"""Scores an adapter for benchmarks/quality.py, or the base alone: the one way for whoever has trained it.

    python -m benchmarks.quality_score ADAPTER RESULT KEY=VALUE...      in the prepared data's folder; `-`: the base

Base and adapter are merged in float32 and computed in float32, so that nothing of either is rounded.
"""

import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from common.files import write_json
from pipeline.core.composition import compose
from pipeline.core.config import Config, load
from pipeline.core.paths import PREPARED, QUESTIONS
from pipeline.data.grading import as_chat, is_right, read_questions
from pipeline.evaluation.answers import answer_all
from pipeline.evaluation.loss import Row, measure_loss, scored_tokens
from pipeline.models.chat import encode, load_tokenizer
from pipeline.models.loading import choose_device, load_base, merge_adapter

REPOSITORY = Path(__file__).parents[1]
SPLITS = ("validation", "test")
ANSWERS_AT_ONCE = 512  # on a GPU, where a step of generation costs the same for few
SHOWN = 3  # replies that are kept, to be looked at


def main() -> None:
    """Score what the command line names."""
    adapter, result, *settings = sys.argv[1:]
    config = load(compose(REPOSITORY / "conf", settings))
    write_json(Path(result), score(config, None if adapter == "-" else Path(adapter)))


def score(config: Config, adapter: Path | None) -> dict[str, Any]:
    """Return nats and tokens of each held-out row, whether each question was answered right, some replies."""
    device = choose_device(config.runtime.device)
    base = load_base(*config.model.merge_base, device, torch.float32)
    model = (merge_adapter(base, adapter) if adapter else base).eval()
    tokenizer: Any = load_tokenizer(config.model)
    found: dict[str, Any] = {}
    for split in SPLITS:
        chats = pq.read_table(PREPARED / f"{split}.parquet")["messages"].to_pylist()
        rows: list[Row] = [row for chat in chats for row in encode(tokenizer, chat, config.evaluate.max_length)]
        nats = measure_loss(model, rows, config.evaluate.batch_size, tokenizer.pad_token_id).nats
        found[split] = {"nats": nats, "tokens": [scored_tokens(row) for row in rows]}
    questions = read_questions(QUESTIONS, config.evaluate.max_questions)
    chats = [as_chat(question) for question in questions]
    replies = answer_all(model, tokenizer, chats, config.evaluate.max_new_tokens, ANSWERS_AT_ONCE)
    right = [is_right(question, reply["reply"]) for question, reply in zip(questions, replies, strict=True)]
    return {**found, "right": right, "replies": [reply["reply"] for reply in replies[:SHOWN]]}


if __name__ == "__main__":
    main()
