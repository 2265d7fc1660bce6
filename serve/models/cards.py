"""What is known of a model: its GGUF file's own words, and the card that the pipeline's evaluation writes.

The card, card.json, stands beside the GGUF file or in the folder above it; without one, the file speaks alone. What is
not known is left out.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from common.words import counted
from llama import model as llama
from llama.header import read_header
from serve.models.registry import Model

CARD = "card.json"
CARD_BYTES = 1 << 20  # more is no card

logger = logging.getLogger(__name__)


class Origin(BaseModel):
    """A model or a data set: where it is, and which of its revisions."""

    name: str
    revision: str | None = None
    rows: int | None = None  # of data, that were trained on

    def __str__(self) -> str:
        rows = f", {counted(self.rows, 'conversation')}" if self.rows else ""
        return self.name + (f" at {self.revision}" if self.revision else "") + rows


class Figures(BaseModel):
    """What an evaluation measured."""

    loss: float | None = None
    perplexity: float | None = None
    accuracy: float | None = None  # share of the held-out questions
    tokens_per_second: float | None = None  # of one answer, where it was evaluated


class FileFigures(Figures):
    """The same of a GGUF file; of this file only if it has as many bytes."""

    file: str
    bytes: int


class CardFile(BaseModel):
    """card.json, as far as this page shows it."""

    base: Origin | None = None
    data: Origin | None = None
    prompts: list[str] = []
    evaluation: dict[str, Figures] = {}
    files: list[FileFigures] = []


@dataclass(frozen=True)
class Card:
    """What a visitor is told of a model."""

    facts: Mapping[str, str]  # by name, in the order to be shown
    figures: Mapping[str, Figures]  # by whose they are: the base's, the tuned model's, this file's


def read_card(model: Model) -> Card:
    """Return all that is known of a model; read the file whole if it is the first to ask for its revision."""
    file = _card_file(model.path)
    own = next((f for f in file.files if (f.file, f.bytes) == (model.path.name, model.size)), None)
    return Card(_facts(model, file), file.evaluation | ({"this file": own} if own else {}))


def read_prompts(model: Model) -> list[str]:
    """Return what the model was asked when it was evaluated; nothing where that is not known."""
    return _card_file(model.path).prompts


def _facts(model: Model, file: CardFile) -> dict[str, str]:
    says = read_header(model.path).keys if model.base else llama.metadata(model.path)
    metadata = {key: str(value) for key, value in says.items()}
    base = str(file.base) if file.base else metadata.get("general.base_model.0.name", "")
    data = str(file.data) if file.data else metadata.get("general.dataset.0.name", "")
    facts = {
        "Name": metadata.get("general.name", ""),
        "Base": base,
        "Adapter": f"a LoRA over {model.base}" if model.base else "",
        "Data": data,
        "Parameters": metadata.get("general.size_label", ""),
        "Quantization": model.quantization or "",
        "File": f"{model.path.name}, {model.size / 1e6:,.1f} MB",
        "Revision": model.revision or "",
        "Context": f"{model.context:,} tokens",
        "Licence": metadata.get("general.license", ""),
    }
    return {name: text for name, text in facts.items() if text}


def _card_file(path: Path) -> CardFile:
    """Return the card of a GGUF file; an empty one where there is none, or what is there is no card."""
    for place in (path.parent / CARD, path.parent.parent / CARD):
        try:
            with place.open("rb") as file:
                return CardFile.model_validate_json(file.read(CARD_BYTES))
        except OSError:
            continue
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"])) or "the file"
            logger.warning("%s is passed over: %s: %s", place, where, fault["msg"])
    return CardFile()
