"""A LoRA adapter as GGUF, as llama.cpp's convert_lora_to_gguf.py writes it: what it says, and which base it fits."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from common.errors import UserError
from llama.header import Extent, Header, read_header

A, B = ".lora_a", ".lora_b"
INVOCATION = "adapter.alora.invocation_tokens"


class Pair(NamedTuple):
    """The two factors of what is added to one of the base's weights: B times A."""

    a: Extent  # [input, rank], the innermost dimension first
    b: Extent  # [rank, output]

    @property
    def rank(self) -> int:
        """Of the product."""
        return self.b.shape[0]


class Lora(NamedTuple):
    """An adapter's file."""

    path: Path
    architecture: str
    alpha: float  # 0 where B has the scale in it
    pairs: Mapping[str, Pair]  # by the name of the base's tensor

    def scale(self, name: str) -> float:
        """Return what the product for a tensor is multiplied with."""
        return self.alpha / self.pairs[name].rank if self.alpha else 1.0

    def misfit(self, base: Header) -> str | None:
        """Return why it is not for a model; None where it fits."""
        if self.architecture != base.architecture:
            return f"is for the architecture {self.architecture}, not {base.architecture}"
        for name, (a, b) in self.pairs.items():
            tensor = base.tensors.get(name)
            if tensor is None:
                return f"adds to {name}, which is not there"
            if tensor.shape[:2] != (a.shape[0], b.shape[1]):
                return f"adds to {name} as {a.shape[0]} x {b.shape[1]}, which is {tensor.shape[0]} x {tensor.shape[1]}"
        return None


def read_lora(path: Path, header: Header | None = None) -> Lora:
    """Return what an adapter's file says, by its header.

    Raises UserError for a file that is damaged, and for an adapter of a kind that cannot be served.
    """
    header = header or read_header(path)
    if (kind := header.keys.get("adapter.type")) != "lora":
        raise UserError(f"{path} is an adapter of type {kind}: only LoRA is served")
    if INVOCATION in header.lists:
        raise UserError(f"{path} is an aLoRA, which begins at its invocation tokens: such adapters are not served")
    if not header.tensors:
        raise UserError(f"{path} is an adapter without tensors: convert it again")
    pairs = {}
    for name in sorted({name.removesuffix(A).removesuffix(B) for name in header.tensors}):
        a, b = (header.tensors.get(name + suffix) for suffix in (A, B))
        if name in header.tensors or name == "token_embd.weight":  # of norms llama.cpp would not say a word
            raise UserError(f"{path} changes {name}: adapters are served on projections alone")
        if a is None or b is None:
            raise UserError(f"{path} lacks one of the two factors of {name}: convert it again")
        if len(a.shape) != 2 or len(b.shape) != 2:
            raise UserError(f"{path} changes the experts of {name}: adapters are served on projections alone")
        if a.shape[1] != b.shape[0]:
            raise UserError(f"{path} has factors of {name} that do not fit one another: convert it again")
        pairs[name] = Pair(a, b)
    alpha = header.keys.get("adapter.lora.alpha", 0.0)
    return Lora(path, header.architecture, float(alpha), pairs)
