"""What a GGUF file says before its tensors, as ggml's own reader has it: neither weights nor vocabulary are loaded."""

import ctypes
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import llama_cpp

from llama.model import last_error, not_whole

Value = str | int | float | bool


class _Params(ctypes.Structure):
    """gguf_init_params of ggml's gguf.h."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("context", ctypes.c_void_p))


_HANDLE, _INDEX = ctypes.c_void_p, ctypes.c_int64


def _function(name: str, result: type | None, *arguments: type) -> "ctypes._CFuncPtr":
    return ctypes.CFUNCTYPE(result, *arguments)((name, llama_cpp.llama_cpp._lib))


_open = _function("gguf_init_from_file", _HANDLE, ctypes.c_char_p, _Params)
_free = _function("gguf_free", None, _HANDLE)
_data_offset = _function("gguf_get_data_offset", ctypes.c_size_t, _HANDLE)
_key_count = _function("gguf_get_n_kv", _INDEX, _HANDLE)
_key = _function("gguf_get_key", ctypes.c_char_p, _HANDLE, _INDEX)
_key_type = _function("gguf_get_kv_type", ctypes.c_int, _HANDLE, _INDEX)
_text = _function("gguf_get_val_str", ctypes.c_char_p, _HANDLE, _INDEX)
_data = _function("gguf_get_val_data", ctypes.c_void_p, _HANDLE, _INDEX)
_tensor_count = _function("gguf_get_n_tensors", _INDEX, _HANDLE)
_tensor_name = _function("gguf_get_tensor_name", ctypes.c_char_p, _HANDLE, _INDEX)
_tensor_offset = _function("gguf_get_tensor_offset", ctypes.c_size_t, _HANDLE, _INDEX)
_tensor_size = _function("gguf_get_tensor_size", ctypes.c_size_t, _HANDLE, _INDEX)

_TEXT = 8  # GGUF_TYPE_STRING
_NUMBERS = {  # by gguf_type, those of one value
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
    """Where a tensor lies in its file."""

    start: int  # byte
    size: int  # bytes


class Header(NamedTuple):
    """What a file says of itself."""

    keys: Mapping[str, Value]  # those with one value: lists, such as the vocabulary, are left out
    tensors: Mapping[str, Extent]  # by name

    @property
    def architecture(self) -> str:
        """What llama.cpp knows its kind of model by; empty where the file does not say."""
        return str(self.keys.get("general.architecture", ""))

    def whole(self, key: str) -> int:
        """Return a whole number; 0 where the file has none under this key."""
        value = self.keys.get(key)
        return value if isinstance(value, int) else 0


def read_header(path: Path) -> Header:
    """Return what a file says of itself. Raises UserError for one that is no GGUF or ends before its last tensor."""
    last_error()  # of what was read before
    file = _open(os.fsencode(path), _Params(no_alloc=True))
    if not file:
        raise not_whole(path, last_error())
    try:
        header = Header(dict(_keys(file)), dict(_tensors(file)))
    finally:
        _free(file)
    end = max((start + size for start, size in header.tensors.values()), default=0)
    if path.stat().st_size < end:
        raise not_whole(path, f"it ends before its last tensor does, at byte {end}")
    return header


def _keys(file: int) -> Iterator[tuple[str, Value]]:
    for i in range(_key_count(file)):
        kind, key = _key_type(file, i), _key(file, i).decode(errors="replace")
        if kind == _TEXT:
            yield key, _text(file, i).decode(errors="replace")
        elif kind in _NUMBERS:
            yield key, ctypes.cast(_data(file, i), ctypes.POINTER(_NUMBERS[kind]))[0]


def _tensors(file: int) -> Iterator[tuple[str, Extent]]:
    start = _data_offset(file)
    for i in range(_tensor_count(file)):
        extent = Extent(start + _tensor_offset(file, i), _tensor_size(file, i))
        yield _tensor_name(file, i).decode(errors="replace"), extent
