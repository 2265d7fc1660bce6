from pathlib import Path

import gguf
import numpy as np
import pytest
from tiny_gguf import write_other, write_random

from common.errors import UserError
from llama import ggml
from llama.header import read_header


def test_keys_of_one_value_and_tensors_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = write_random(tmp_path / "tune.gguf")
    header, whole = read_header(path), gguf.GGUFReader(path)
    single = {
        name: field.contents()
        for name, field in whole.fields.items()
        if not name.startswith("GGUF.") and field.types[0] != gguf.GGUFValueType.ARRAY
    }
    assert header.keys == pytest.approx(single)
    assert header.architecture == "llama"
    assert list(header.tensors) == [tensor.name for tensor in whole.tensors]
    for tensor in whole.tensors:
        start, size, kind, shape = header.tensors[tensor.name]
        assert (kind, shape) == (tensor.tensor_type, tuple(tensor.shape))
        assert np.array_equal(np.fromfile(path, np.uint8, size, offset=start), tensor.data.view(np.uint8).reshape(-1))


def test_a_number_is_asked_for_and_nothing_else_taken_for_it(tmp_path: Path) -> None:
    header = read_header(write_other(tmp_path / "other.gguf", "llama", split__count="three", split__no=2))
    assert [header.whole(f"split.{key}") for key in ("no", "count", "gone")] == [2, 0, 0]


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.gguf \(0 bytes\) is no whole GGUF model: .*No such file or directory"):
        read_header(tmp_path / "gone.gguf")


def test_tensors_that_lie_in_memory_otherwise_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_random(tmp_path / "tune.gguf")
    monkeypatch.setattr(ggml, "OBJECT_BYTES", 40)
    with pytest.raises(UserError, match=r"^llama-cpp-python \S+ has tensors of \d+ bytes, and \d+ are known: install"):
        read_header(path)
