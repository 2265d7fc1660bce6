"""What a GGUF file says before its tensors, as ggml's own reader has it: neither weights nor vocabulary are loaded."""

import ctypes
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

from llama.ggml import LIBRARY, Tensor, check_layout
from llama.model import last_error, not_whole

Value = str | int | float | bool


class _Params(ctypes.Structure):
    """gguf_init_params of ggml's gguf.h."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("context", ctypes.c_void_p))


_FILE, _INDEX = ctypes.c_void_p, ctypes.c_int64
for _name, _result, *_arguments in (  # of gguf.h
    ("init_from_file", _FILE, ctypes.c_char_p, _Params),
    ("free", None, _FILE),
    ("get_data_offset", ctypes.c_size_t, _FILE),
    ("get_n_kv", _INDEX, _FILE),
    ("get_key", ctypes.c_char_p, _FILE, _INDEX),
    ("get_kv_type", ctypes.c_int, _FILE, _INDEX),
    ("get_val_str", ctypes.c_char_p, _FILE, _INDEX),
    ("get_val_data", ctypes.c_void_p, _FILE, _INDEX),
    ("get_n_tensors", _INDEX, _FILE),
    ("get_tensor_name", ctypes.c_char_p, _FILE, _INDEX),
    ("get_tensor_offset", ctypes.c_size_t, _FILE, _INDEX),
    ("get_tensor_size", ctypes.c_size_t, _FILE, _INDEX),
):
    _function = getattr(LIBRARY, f"gguf_{_name}")
    _function.restype, _function.argtypes = _result, _arguments

_TEXT, _LIST = 8, 9  # GGUF_TYPE_STRING, GGUF_TYPE_ARRAY
_Numbers: TypeAlias = (
    "type[ctypes._SimpleCData[int]] | type[ctypes._SimpleCData[float]] | type[ctypes._SimpleCData[bool]]"
)
_NUMBERS: Mapping[int, _Numbers] = {  # by gguf_type
    0: ctypes.c_uint8,
    1: ctypes.c_int8,
    2: ctypes.c_uint16,
    3: ctypes.c_int16,
    4: ctypes.c_uint32,
    5: ctypes.c_int32,
    6: ctypes.c_float,
    7: ctypes.c_bool,
    10: ctypes.c_uint64,
    11: ctypes.c_int64,
    12: ctypes.c_double,
}


class Extent(NamedTuple):
    """Where a tensor lies in its file, and what it is."""

    start: int  # byte
    size: int  # bytes
    type: int  # ggml_type of ggml.h
    shape: tuple[int, ...]  # the innermost dimension first, without trailing ones


class Header(NamedTuple):
    """What a file says of itself."""

    keys: Mapping[str, Value]  # those with one value: lists, such as the vocabulary, are left out
    tensors: Mapping[str, Extent]  # by name
    lists: frozenset[str] = frozenset()  # keys that are left out, having lists

    @property
    def architecture(self) -> str:
        """What llama.cpp knows its kind of model by; empty where the file does not say."""
        return str(self.keys.get("general.architecture", ""))

    def whole(self, key: str) -> int:
        """Return a whole number; 0 where the file has none under this key."""
        value = self.keys.get(key)
        return value if isinstance(value, int) else 0


def read_header(path: Path) -> Header:
    """Return what a file says of itself.

    Raises UserError for one that is no GGUF or ends before its last tensor, and where tensors are laid out in another
    way than is known.
    """
    check_layout()
    last_error()  # of what was read before
    shapes = ctypes.c_void_p()
    file = LIBRARY.gguf_init_from_file(os.fsencode(path), _Params(True, ctypes.addressof(shapes)))
    if not file:
        raise not_whole(path, last_error())
    try:
        header = Header(dict(_keys(file)), dict(_tensors(file, shapes)), frozenset(_lists(file)))
    finally:
        LIBRARY.gguf_free(file)
        LIBRARY.ggml_free(shapes)
    end = max((extent.start + extent.size for extent in header.tensors.values()), default=0)
    if path.stat().st_size < end:
        raise not_whole(path, f"it ends before its last tensor does, at byte {end}")
    return header


def _keys(file: int) -> Iterator[tuple[str, Value]]:
    for i in range(LIBRARY.gguf_get_n_kv(file)):
        kind, key = LIBRARY.gguf_get_kv_type(file, i), LIBRARY.gguf_get_key(file, i).decode(errors="replace")
        if kind == _TEXT:
            yield key, LIBRARY.gguf_get_val_str(file, i).decode(errors="replace")
        elif kind in _NUMBERS:
            yield key, _NUMBERS[kind].from_address(LIBRARY.gguf_get_val_data(file, i)).value


def _lists(file: int) -> Iterator[str]:
    for i in range(LIBRARY.gguf_get_n_kv(file)):
        if LIBRARY.gguf_get_kv_type(file, i) == _LIST:
            yield LIBRARY.gguf_get_key(file, i).decode(errors="replace")


def _tensors(file: int, shapes: ctypes.c_void_p) -> Iterator[tuple[str, Extent]]:
    start = LIBRARY.gguf_get_data_offset(file)
    for i in range(LIBRARY.gguf_get_n_tensors(file)):
        name = LIBRARY.gguf_get_tensor_name(file, i)
        tensor = Tensor.from_address(LIBRARY.ggml_get_tensor(shapes, name))
        shape = list(tensor.ne)
        while len(shape) > 1 and shape[-1] == 1:
            del shape[-1]
        place, size = start + LIBRARY.gguf_get_tensor_offset(file, i), LIBRARY.gguf_get_tensor_size(file, i)
        yield name.decode(errors="replace"), Extent(place, size, tensor.type, tuple(shape))
