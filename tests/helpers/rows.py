"""Which numbers of a conversation's tokens add up otherwise together than one by one, by type of weights.

`python tests/helpers/rows.py FOLDER KIND…` prints it as JSON, of the variant of llama.cpp that it loads. Models of
random weights are made in FOLDER where they are missing.
"""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from tiny_gguf import write_random

from llama.model import BATCH, Entry, LlamaModel
from pipeline.gguf.quantize import quantize

TOKENS = 96  # of a conversation: attention reads as many
NUMBERS = (2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 32, 33)
WIDTH = 512


def made(folder: Path, kind: str) -> Path:
    """A model of a type."""
    whole, file = folder / "F32.gguf", folder / f"{kind}.gguf"
    if not whole.is_file():
        write_random(whole, width=WIDTH)
    if not file.is_file():
        quantize(whole, file, kind)
    return file


def differing(path: Path) -> Iterator[int]:
    """The numbers of tokens that, decoded together, have other logits than one by one."""
    with LlamaModel(path, BATCH, 2, chats=False) as model:
        draw = random.Random(0)
        tokens = [draw.randrange(model.vocabulary) for _ in range(TOKENS)]
        alone = []
        for position, token in enumerate(tokens):
            model.decode([Entry(token, position, 0, True)])
            alone.append(model.logits(0).copy())
        for number in NUMBERS:
            model.forget(0)
            for start in range(0, TOKENS, number):
                piece = tokens[start : start + number]
                model.decode([Entry(token, start + i, 0, True) for i, token in enumerate(piece)])
                if any((model.logits(i) != alone[start + i]).any() for i in range(len(piece))):
                    yield number
                    break


if __name__ == "__main__":
    print(json.dumps({kind: list(differing(made(Path(sys.argv[1]), kind))) for kind in sys.argv[2:]}))
