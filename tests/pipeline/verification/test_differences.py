"""Each byte in which two GGUF files differ is named by what it belongs to."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGUFReader

from common.errors import UserError
from pipeline.gguf.lineage_key import LINEAGE_KEY
from pipeline.verification.differences import CHUNK, differences, first_difference

LINEAGE = {"of": "tuned", "train": {"lr": 0.005, "seed": 42}}


def write(
    path: Path, lineage: str = json.dumps(LINEAGE), rows: int = 8, kind: type = np.float32, name: str = "b.weight"
) -> Path:
    """A file with two tensors and three keys."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("tokenizer.ggml.bos_token_id", 1)
    writer.add_string(LINEAGE_KEY, lineage)
    writer.add_tensor("a.weight", np.arange(5, dtype=np.float32))  # with padding behind it
    writer.add_tensor(name, np.ones((rows, 4), kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def original(tmp_path: Path) -> Path:
    return write(tmp_path / "original.gguf")


def flipped(original: Path, at: int) -> Path:
    """A copy with one bit of one byte changed."""
    content = bytearray(original.read_bytes())
    content[at] ^= 1
    path = original.with_name("flipped.gguf")
    path.write_bytes(content)
    return path


def in_tensor(file: GGUFReader) -> int:
    return int(file.tensors[1].data_offset) + 5


def in_metadata(file: GGUFReader) -> int:
    return int(file.fields["tokenizer.ggml.bos_token_id"].offset) + 8 + len("tokenizer.ggml.bos_token_id") + 4


def in_a_key(file: GGUFReader) -> int:
    return int(file.fields["tokenizer.ggml.bos_token_id"].offset) + 8


def in_padding(file: GGUFReader) -> int:
    return int(file.tensors[0].data_offset) + 5 * 4


@pytest.mark.parametrize(
    ("place", "lines"),
    [
        (in_tensor, ["tensor b.weight: 1 of 128 bytes"]),
        (in_metadata, ["metadata tokenizer.ggml.bos_token_id: 1 -> 0"]),
        (
            in_a_key,
            ["metadata tokenizer.ggml.bos_token_id: 1 -> none", "metadata uokenizer.ggml.bos_token_id: none -> 1"],
        ),
    ],
)
def test_a_changed_byte_is_named(original: Path, place: Callable[[GGUFReader], int], lines: list[str]) -> None:
    assert differences(original, flipped(original, place(GGUFReader(original)))) == lines


def test_a_byte_between_tensors_is_named_by_its_place(original: Path) -> None:
    at = in_padding(GGUFReader(original))
    assert differences(original, flipped(original, at)) == [
        f"byte {at:,} and maybe others, in no tensor's or metadata's content"
    ]


def test_every_byte_that_changes_is_found(original: Path) -> None:
    for at in range(0, original.stat().st_size, 7):
        with suppress(UserError):  # it cannot be read any more
            assert differences(original, flipped(original, at))


def test_files_that_are_the_same_differ_in_nothing(original: Path, tmp_path: Path) -> None:
    assert differences(original, write(tmp_path / "again.gguf")) == []


def test_a_lineage_differs_by_its_own_keys(original: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.gguf", json.dumps({**LINEAGE, "train": {"lr": 0.001, "seed": 42}}))
    assert differences(original, other) == ["lineage train.lr: 0.005 -> 0.001"]
    (line,) = differences(original, write(tmp_path / "damaged.gguf", "{"))
    assert line.startswith(f"metadata {LINEAGE_KEY}: ")


def test_tensors_of_other_names_sizes_and_types_are_named(original: Path, tmp_path: Path) -> None:
    assert differences(original, write(tmp_path / "sizes.gguf", rows=6)) == [
        "tensor b.weight: F32 [4, 8] -> F32 [4, 6]"
    ]
    assert differences(original, write(tmp_path / "types.gguf", kind=np.float16)) == [
        "tensor b.weight: F32 [4, 8] -> F16 [4, 8]"
    ]
    assert differences(original, write(tmp_path / "names.gguf", name="c.weight")) == [
        "tensor b.weight: in one file alone", "tensor c.weight: in one file alone",
    ]  # fmt: skip


@pytest.mark.parametrize("at", [0, CHUNK - 1, CHUNK, CHUNK + 1])
def test_the_first_byte_that_differs_is_found_in_large_files(at: int, tmp_path: Path) -> None:
    content = bytearray(CHUNK + 2)
    (tmp_path / "one").write_bytes(content)
    content[at] = 1
    (tmp_path / "other").write_bytes(content)
    assert first_difference(tmp_path / "one", tmp_path / "other") == at
    (tmp_path / "shorter").write_bytes(bytes(CHUNK))
    assert first_difference(tmp_path / "one", tmp_path / "shorter") == CHUNK


def test_what_is_no_gguf_ends_in_one_line(original: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.gguf"
    text.write_text("a text")
    with pytest.raises(UserError, match=r"text\.gguf cannot be read as a GGUF: "):
        differences(original, text)
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(original.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"cut\.gguf cannot be read as a GGUF: "):
        differences(original, cut)
