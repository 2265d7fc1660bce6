"""One update of starter-m by each way of doing it, for the tests beside this; Unsloth's in a process of its own.

python tests/gpu/updates.py OUT     Unsloth's loss and gradients, into the file OUT
"""

import sys
from pathlib import Path
from typing import Any

import torch

REPO = Path(__file__).parents[2]
sys.path.insert(0, str(REPO))
STARTER = REPO / "starter/models/starter-m"
ROWS = 24

Learnt = tuple[float, dict[str, torch.Tensor]]


def conversations(packed: bool, few_counts: bool = False, rows: int = ROWS) -> Any:
    """The first of the starter's chats, tokenized, with the assistant's part to learn."""
    import json

    from transformers import AutoTokenizer

    from pipeline.models.chat import encode
    from pipeline.training.updates import IGNORED, Conversations, Layout

    tokenizer = AutoTokenizer.from_pretrained(str(STARTER))
    with (REPO / "starter/chats.jsonl").open(encoding="utf-8") as file:
        chats = [json.loads(next(file))["messages"] for _ in range(ROWS)]
    encoded = [encode(tokenizer, chat, 256)[0] for chat in chats]
    labels = [[i if said else IGNORED for i, said in zip(*pair, strict=True)] for pair in encoded]
    layout = Layout(rows, packed, 256, few_counts)
    return Conversations({"input_ids": [ids for ids, _ in encoded], "labels": labels}, layout, tokenizer.pad_token_id)


def settings(*overrides: str) -> Any:
    """The configuration for starter-m."""
    from pipeline.core.composition import compose
    from pipeline.core.config import load

    return load(compose(REPO / "conf", ["model=starter-m", f"model.path={STARTER}", "train.seed=7", *overrides]))


def adapter_that_counts(model: Any) -> None:
    """Sets the same adapter in each model, with no half of it zero."""
    generator = torch.Generator().manual_seed(5)
    for name, parameter in sorted(model.named_parameters()):
        if "lora_" in name:
            values = torch.randn(parameter.shape, generator=generator) * 0.02
            parameter.data = values.to(parameter.device, torch.float32)


def learn(model: Any, data: Any, autocast: bool = True) -> Learnt:
    """The loss of one update over all conversations, and the adapter's gradients in float32 on the CPU."""
    model.train()
    base = model.get_base_model()
    own = getattr(base, "learns_from_supervised", False)
    left_out = ("labels", "tokens") if own else ("positions", "targets", "tokens")
    total = 0.0
    for part in data.split(range(len(data))):
        batch = {
            key: value.cuda() if isinstance(value, torch.Tensor) else value
            for key, value in data[part].items()
            if key not in left_out
        }
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=autocast):
            loss = model(**batch).loss
        loss.backward()
        total += loss.item()
    return total, {n: p.grad.float().cpu() for n, p in model.named_parameters() if p.grad is not None}


def by_unsloth() -> Learnt:
    """By Unsloth's kernels."""
    from pipeline.training.engines import engine
    from pipeline.training.plan import Plan

    config = settings("train.gradient_checkpointing=false", "train.max_length=256")
    model = engine("unsloth").load(Plan("unsloth", "unsloth", False, ()), config.model, config.train, "cuda")
    adapter_that_counts(model)
    return learn(model, conversations(packed=False))


if __name__ == "__main__":
    torch.save(by_unsloth(), sys.argv[1])
