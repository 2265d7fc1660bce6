"""The LoRA adapters over one base, all in one decode: each token goes through its own.

llama.cpp lays an adapter on all tokens of a decode: beside a projection's product its graph has A·x, B·(A·x), a scale
and a sum. Here llama.cpp is given one adapter of each family, as a pattern. Once a graph is built, and before it is
computed, the two products of the pattern become products by id (MUL_MAT_ID, by which mixtures of experts are computed)
and its scale a product with a number for each token. The experts are the adapters: so do Punica (Chen et al. 2023) and
S-LoRA (Sheng et al. 2023). A token without an adapter has zeros. Products by id add up in one order whatever else is in
the batch, so an answer is to the bit the one given alone.

A family are adapters whose tensors have the same names, types and shapes, as those of one recipe have. They lie in
memory at equal distances, each as in its file; one that was never asked for takes address space alone.
"""

import ctypes
import math
import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import llama_cpp
import numpy as np

from common.errors import UserError
from llama.errors import EngineError
from llama.ggml import LIBRARY, OPERATIONS, Tensor, scheduler_of
from llama.header import Extent
from llama.lora import B, Lora, read_lora
from llama.memory import check_free
from llama.model import BATCH, Entry, last_error

# Numbers that a dot product takes at once (GGML_F16_STEP), of AVX-512; what is left over it adds up one by one, which
# for a rank of 16 takes longer than all others. So rows of B are read on into the next one, against zeros.
STEP = 64
SPARE = 64  # decodes that need no adapter of a family before it is left out: to change that takes milliseconds
SCALE_ROW = 256  # numbers that a token's scale is written out to at most: one alone is slow to multiply a row with
NORESERVE = 0x4000  # Linux's flag for address space that memory need not be there for
FAMILIES = 1024  # at most: in the graph each is known by its scale, which says its number in so many parts of 1
_F32, _I32 = 0, 26  # of ggml_type
_OPERATION = Tensor.op.offset
_SCALE, _PRODUCT = OPERATIONS["SCALE"], OPERATIONS["MUL_MAT"]

_Layout: TypeAlias = tuple[tuple[str, Extent, Extent], ...]  # of each pair, its places counted from the first one's


class Factors(NamedTuple):
    """The two factors of a family's adapters for one of the base's tensors: of all by place, and of one of them."""

    rank: int
    a: Tensor  # [input, rank, places]
    b: Tensor  # [rank and what is read beyond it, output, places]
    a_of_one: Tensor  # [input, rank]
    b_of_one: Tensor  # [rank, output]


class Node(NamedTuple):
    """What a graph computes for one of the base's tensors."""

    factors: Factors
    inner: Tensor  # A·x, float32 [rank, rows], or [rank, tokens of a slot, slots] as in recurrent layers
    product: Tensor  # B·(A·x), float32 [output, …] alike
    scale: Tensor  # the same times a number
    data: int  # where llama.cpp puts A·x
    every: bool  # whether there is a row for each token of the decode, and not only for those after which one is drawn


class Rows:
    """Whose each row of a projection's input is: of all tokens, or of those after which one is drawn."""

    def __init__(self, ranks: Sequence[int]) -> None:
        """Nobody's."""
        self.ids = np.zeros(BATCH, np.int32)
        self.scales = {rank: np.zeros((BATCH, SCALE_ROW), np.float32) for rank in ranks}

    def set(self, owners: Sequence[tuple[int, float | None]]) -> None:
        """Take each one's place in the family, and its alpha: 0 where its scale is 1, None where it is nobody's."""
        count = len(owners)
        self.ids[:count] = [place for place, _ in owners]
        for rank, scales in self.scales.items():
            row = [0 if alpha is None else np.float32(alpha) / np.float32(rank) if alpha else 1 for _, alpha in owners]
            scales[:count] = np.array(row, np.float32)[:, None]


class Family:
    """Adapters of one layout, of which llama.cpp knows one."""

    def __init__(self, number: int, layout: _Layout, members: dict[str, Lora]) -> None:
        """With a place for each member and, behind them, zeros for tokens without an adapter."""
        self.number, self.layout, self.members = number, layout, members
        self.places = {name: place for place, name in enumerate(members)}
        self.loaded: set[str] = set()
        self.pattern: llama_cpp.llama_adapter_lora_p | None = None  # llama.cpp's
        self.alpha = 0.0  # the pattern's
        self.chosen = -1  # the place of whom all rows are, where they are one's
        self.needed = -SPARE  # the decode that needed it last
        extents = [extent for _, *pair in layout for extent in pair]
        used = max(extent.start + extent.size for extent in extents) + 4 * STEP
        self.size = -(-used // mmap.PAGESIZE) * mmap.PAGESIZE  # bytes of a place
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE
        self.memory = mmap.mmap(-1, (len(members) + 1) * self.size, flags)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        step = STEP if len({extent.type for extent in extents}) == 1 else 1  # else what is read on may be no number
        self.factors = {name: self._factors(a, b, step) for name, a, b in layout}
        widths = {factors.rank: factors.b.ne[0] for factors in self.factors.values()}
        self.products = {rank: np.zeros((BATCH, width), np.float32) for rank, width in widths.items()}  # A·x
        self.every, self.drawn = Rows(list(widths)), Rows(list(widths))
        self._views: dict[tuple[int, int, bool, tuple[int, ...]], tuple[Tensor, Tensor, Tensor]] = {}

    def _factors(self, a: Extent, b: Extent, step: int) -> Factors:
        rank, outputs = b.shape
        width, places = -(-rank // step) * step, len(self.members) + 1
        a_strides, b_strides = (a.size // rank, self.size), (b.size // outputs, self.size)
        return Factors(
            rank,
            tensor(a.type, (a.shape[0], rank, places), a_strides, self.address + a.start),
            tensor(b.type, (width, outputs, places), b_strides, self.address + b.start),
            tensor(a.type, a.shape, a_strides[:1]),
            tensor(b.type, b.shape, b_strides[:1]),
        )

    def load(self, name: str) -> None:
        """Read a member's file. Raises UserError for one that is not what it was."""
        lora = read_lora(self.members[name].path)
        if layout_of(lora) != self.layout:
            raise UserError(f"{lora.path} is not the file that it was when the server started: start it again")
        with lora.path.open("rb") as file, memoryview(self.memory) as memory:
            for tensor_name, *places in self.layout:
                for extent, place in zip(lora.pairs[tensor_name], places, strict=True):
                    at = self.places[name] * self.size + place.start
                    file.seek(extent.start)
                    file.readinto(memory[at : at + extent.size])
        self.members[name] = lora
        self.loaded.add(name)

    def owner(self, name: str | None) -> tuple[int, float | None]:
        """Return the place of a member, and its alpha; that of zeros for none, and for an adapter of another family."""
        if name is None or name not in self.places:
            return len(self.members), None
        return self.places[name], self.members[name].alpha

    @property
    def scale(self) -> float:
        """What llama.cpp multiplies the pattern with, so that its graphs say whose they are."""
        tag = 1 + self.number / FAMILIES
        return tag / self.alpha if self.alpha else tag

    def choose(self, name: str | None) -> None:
        """Let all rows of the next decode be one member's; of none, and of another family's, there are zeros."""
        place, _ = self.owner(name)
        if place != self.chosen:
            self.chosen = place
            for factors in self.factors.values():
                for of_all, of_one in ((factors.a, factors.a_of_one), (factors.b, factors.b_of_one)):
                    of_one.data = of_all.data + place * self.size

    def write(self, node: Node, reading: bool) -> None:
        """Let a graph compute each row with its own adapter, or where it is `reading` a prompt with the chosen one."""
        factors, inner, product, scale = node.factors, node.inner, node.product, node.scale
        products, ids, scales = self._of_rows(factors.rank, product.ne[0], node.every, product.ne[1], product.ne[2])
        if reading:
            plain = tensor(_F32, (factors.rank, *product.ne[1:3]))
            inner.op = product.op = _PRODUCT
            inner.data, inner.nb[1:] = node.data, plain.nb[1:]
            sources = factors.a_of_one, factors.b_of_one, inner
        else:
            inner.op = product.op = OPERATIONS["MUL_MAT_ID"]
            inner.data, inner.nb[1:] = products.data, products.nb[1:]
            inner.src[2] = product.src[2] = ctypes.addressof(ids)
            sources = factors.a, factors.b, products
        inner.src[0], product.src[0], product.src[1] = map(ctypes.addressof, sources)
        scale.op, scale.src[1] = OPERATIONS["MUL"], ctypes.addressof(scales)

    def _of_rows(self, rank: int, outputs: int, every: bool, *shape: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return A·x, whose each row is, and its scale, as tensors; they are kept, since graphs point to them.

        Rows come slot by slot, whether or not the graph tells the slots' tokens apart by its `shape`.
        """
        key = rank, math.gcd(outputs, SCALE_ROW), every, shape
        if key not in self._views:
            rows, products, width = self.every if every else self.drawn, self.products[rank], key[1]
            self._views[key] = (
                tensor(_F32, (products.shape[1], *shape), products.strides[:1], products.ctypes.data),
                tensor(_I32, shape, (), rows.ids.ctypes.data),
                tensor(_F32, (width, *shape), (4 * SCALE_ROW,), rows.scales[rank].ctypes.data),
            )
        return self._views[key]


class Adapters:
    """All adapters over one base. Belongs to one LlamaModel, whose thread alone uses it."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        """By name. One whose file is no adapter any more is known as such: the others are served."""
        found: dict[_Layout, dict[str, Lora]] = {}
        self._faults: dict[str, UserError] = {}
        for name, path in files.items():
            try:
                lora = read_lora(path)
                found.setdefault(layout_of(lora), {})[name] = lora
            except UserError as error:
                self._faults[name] = error
        self.families = [Family(i, *one) for i, one in enumerate(found.items())]
        self.watch = llama_cpp.ggml_backend_sched_eval_callback(self._look)  # llama.cpp keeps a bare pointer to it
        self._model: int | None = None
        self._laid: list[Family] = []  # on the context
        self._decodes = 0
        self._rows = 0, 0  # of the decode under way: for all tokens, and for those after which one is drawn
        self._reading = False  # whether its tokens are all of one prompt
        self._graph: list[tuple[Family, Node]] = []  # that was computed last
        self._asked = False  # about this one, being new
        self._fault = ""

    def __contains__(self, name: object) -> bool:
        return name in self._faults or any(name in family.places for family in self.families)

    @property
    def laid(self) -> list[str]:
        """The members of the families that a decode computes now."""
        return [name for family in self._laid for name in family.members]

    def attach(self, model: "llama_cpp.llama_model_p") -> None:
        """Take the base. To be closed before it is freed, and after its context."""
        self._model = model

    def close(self) -> None:
        """Free all adapters."""
        for family in self.families:
            if family.pattern:
                llama_cpp.llama_adapter_lora_free(family.pattern)
        self.families, self._laid, self._graph = [], [], []

    def load(self, name: str) -> None:
        """Read an adapter's file, unless that is done. Raises UserError for one that is not what it was, or too big."""
        if name in self._faults:
            raise self._faults[name]
        family = next(family for family in self.families if name in family.places)
        if name in family.loaded:
            return
        check_free(name, family.size)
        family.load(name)
        lora = family.members[name]
        if not family.pattern:
            last_error()  # of what was loaded before
            family.pattern = llama_cpp.llama_adapter_lora_init(self._model, os.fsencode(lora.path))
            if not family.pattern:
                family.loaded.discard(name)
                raise UserError(f"{lora.path} is no adapter for this model: {last_error()}")
            family.alpha = lora.alpha

    def begin(self, context: "llama_cpp.llama_context_p", entries: Sequence[Entry]) -> None:
        """Say whose each token of the next decode is.

        Raises EngineError for such as llama.cpp would compute one after the other, without a word.
        """
        first, last = entries[0].slot, entries[-1].slot
        each = len(entries) // max(last - first + 1, 1)
        if [entry.slot for entry in entries] != [slot for slot in range(first, last + 1) for _ in range(each)]:
            raise EngineError("tokens of slots apart, or more of one than of another, in a decode with adapters")
        self._decodes += 1
        names = {entry.adapter for entry in entries if entry.adapter}
        for family in self.families:
            if not names.isdisjoint(family.loaded):
                family.needed = self._decodes
        self._lay_on(context, [family for family in self.families if self._decodes - family.needed < SPARE])
        drawn = [entry for entry in entries if entry.drawn_from]
        for family in self._laid:
            family.every.set([family.owner(entry.adapter) for entry in entries])
            family.drawn.set([family.owner(entry.adapter) for entry in drawn])
        self._rows, self._asked = (len(entries), len(drawn)), False
        reading = entries[0].of_prompt
        if reading:  # products of one matrix are faster, but add up otherwise for one row than for several
            for family in self._laid:
                family.choose(entries[0].adapter)
        if reading != self._reading:
            self._reading = reading
            for family, node in self._graph:  # should it be computed once more
                family.write(node, reading)

    def end(self, context: "llama_cpp.llama_context_p") -> None:
        """See that the decode was computed so. Raises EngineError."""
        expected = sum(len(family.factors) for family in self._laid)
        if len(self._graph) != expected:
            self._refuse_what_is_passed_over()
            raise EngineError(f"of {expected} tensors with adapters {len(self._graph)} were computed: {self._fault}")
        LIBRARY.ggml_backend_sched_set_eval_callback(scheduler_of(context), None, None)  # until there is a new graph

    def _refuse_what_is_passed_over(self) -> None:
        """Let nobody ask again for adapters of which llama.cpp's graph leaves tensors out, as in some attention."""
        for family in self._laid:
            computed = {id(node.factors) for of, node in self._graph if of is family}
            names = [name for name, factors in family.factors.items() if id(factors) not in computed]
            for name, lora in family.members.items() if names and not self._fault else ():
                why = f"adds to {names[0]}, which llama.cpp computes without adapters in a model of {lora.architecture}"
                self._faults[name] = UserError(f"{lora.path} {why}")

    def _lay_on(self, context: "llama_cpp.llama_context_p", families: list[Family]) -> None:
        if families == self._laid:
            return
        known = [family.pattern for family in families if family.pattern]
        patterns = (llama_cpp.llama_adapter_lora_p_ctypes * len(known))(*known)  # type: ignore[misc]
        scales = (ctypes.c_float * len(families))(*(family.scale for family in families))
        llama_cpp.llama_set_adapters_lora(context, patterns, len(families), scales)
        self._laid, self._graph = families, []

    def _look(self, address: int, asking: bool, _: ctypes.c_void_p) -> bool:
        """Look at a tensor that is to be computed, after all that it is made of; llama.cpp need not stop there."""
        if not self._asked:
            self._asked, self._graph = True, []
        if ctypes.c_int.from_address(address + _OPERATION).value == _SCALE:
            self._rewrite(Tensor.from_address(address))
        return False

    def _rewrite(self, scale: Tensor) -> None:
        product = Tensor.from_address(scale.src[0])
        if product.op != _PRODUCT:
            return
        name = Tensor.from_address(product.src[0]).name.decode(errors="replace")
        if not name.endswith(B):
            return
        inner = Tensor.from_address(product.src[1])
        number = np.array(scale.op_params[:1], np.int32).view(np.float32)[0]
        tag = number if number >= 1 else number * inner.ne[0]
        family = self.families[round((tag - 1) * FAMILIES)]
        rows = product.ne[1] * product.ne[2]
        if rows not in self._rows or product.ne[3] != 1:
            self._fault = f"{name} has {' x '.join(map(str, product.ne[1:]))} rows"
            return
        node = Node(family.factors[name.removesuffix(B)], inner, product, scale, inner.data, rows == self._rows[0])
        family.write(node, self._reading)
        self._graph.append((family, node))


def layout_of(lora: Lora) -> _Layout:
    """Return names, types and shapes of an adapter's factors, and where they lie with the first byte as 0."""
    start = min(extent.start for pair in lora.pairs.values() for extent in pair)
    return tuple(
        (name, a._replace(start=a.start - start), b._replace(start=b.start - start))
        for name, (a, b) in lora.pairs.items()
    )


def tensor(kind: int, shape: Sequence[int], strides: Sequence[int] = (), data: int = 0) -> Tensor:
    """Return a tensor over memory of our own.

    Args:
        kind: ggml_type.
        shape: the innermost dimension first.
        strides: bytes of the dimensions from the second on; of those that are left out, none is between them.
        data: where it begins.
    """
    made = Tensor(type=kind, data=data)
    made.ne[:] = [*shape, 1, 1, 1][:4]
    made.nb[0] = LIBRARY.ggml_type_size(kind)
    for i in range(1, 4):
        made.nb[i] = strides[i - 1] if i <= len(strides) else made.nb[i - 1] * made.ne[i - 1]
    return made
