"""GGUF files with one thing changed, everything else as it was."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np

Change = Callable[[Any], Any]


def with_field(source: Path, file: Path, key: str, change: Change) -> Path:
    """A copy of a GGUF in which `change` gives the value of `key`, out of the one that it has or None."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(file, str(reader.fields["general.architecture"].contents()))
    for name, field in reader.fields.items():
        if name == key or name.startswith("GGUF.") or name == "general.architecture":
            continue
        sub = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], sub_type=sub)
    old = reader.fields.get(key)
    new = change(old.contents() if old else None)
    kind = old.types[0] if old else gguf.GGUFValueType.get_type(new)
    writer.add_key_value(key, new, kind, sub_type=old.types[-1] if old and len(old.types) > 1 else None)
    return _write(writer, reader, file)


def without_tensors(source: Path, file: Path, *names: str) -> Path:
    """A copy of a GGUF that lacks some tensors."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(file, str(reader.fields["general.architecture"].contents()))
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            sub = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=sub)
    return _write(writer, reader, file, names)


def _write(writer: gguf.GGUFWriter, reader: gguf.GGUFReader, file: Path, left_out: Sequence[str] = ()) -> Path:
    for tensor in reader.tensors:
        if tensor.name not in left_out:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def with_tensor(source: Path, file: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """A copy of a GGUF in which `change` gives the data of a tensor, as they are stored."""
    tensor = next(tensor for tensor in gguf.GGUFReader(source).tensors if tensor.name == name)
    content = bytearray(source.read_bytes())
    changed = change(np.array(tensor.data))
    assert changed.nbytes == tensor.n_bytes
    content[tensor.data_offset : tensor.data_offset + tensor.n_bytes] = changed.tobytes()
    file.write_bytes(content)
    return file
