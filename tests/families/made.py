"""What the stages have made of a family's model."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from families import FAMILIES, Family
from transformers import AutoTokenizer

from pipeline.core.config import Config


@dataclass(frozen=True)
class Made:
    """A family's model and what the stages have made of it."""

    name: str
    base: Path  # the model's folder
    project: Path  # with data, models and reports
    config: Config

    @property
    def family(self) -> Family:
        return FAMILIES[self.name]

    @cached_property
    def original(self) -> Any:
        """The tokenizer as its makers have it."""
        return AutoTokenizer.from_pretrained(self.base)

    @cached_property
    def ends(self) -> list[int]:
        """Tokens at which an answer ends."""
        return [self.original.convert_tokens_to_ids(end) for end in self.family.ends]

    def gguf(self, kind: str) -> Path:
        return self.project / f"models/gguf/{self.name}-{kind}.gguf"

    def report(self, name: str) -> dict[str, Any]:
        return json.loads((self.project / name).read_text(encoding="utf-8"))
