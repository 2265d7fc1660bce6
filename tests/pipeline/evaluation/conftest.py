"""What loss and answers are measured on: the starter's tokenizer, and rows of its chats."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from pipeline.evaluation.loss import Row
from pipeline.models.chat import encode

REPO = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(REPO / "starter/models/starter-s")


@pytest.fixture(scope="session")
def rows(tokenizer: Any) -> list[Row]:
    lines = (REPO / "starter/chats.jsonl").read_text(encoding="utf-8").splitlines()[:10]
    return [encode(tokenizer, json.loads(line)["messages"], 512)[0] for line in lines]
