"""Quantizing through the installed llama.cpp."""

from pathlib import Path

import pytest
from gguf import GGMLQuantizationType, GGUFReader

from common.errors import UserError
from llama.model import metadata
from pipeline.core.config import QUANTIZATIONS
from pipeline.evaluation.gguf_scores import answer_alone
from pipeline.gguf.quantize import quantize


def test_each_type_is_smaller_than_the_one_before_and_loads(ggufs: dict[str, Path]) -> None:
    sizes = [ggufs[kind].stat().st_size for kind in ("F32", "F16", "Q8_0", "Q4_K_M")]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)
    for file in ggufs.values():
        metadata(file)


def test_a_quantized_file_answers(ggufs: dict[str, Path]) -> None:
    assert answer_alone(ggufs["Q4_K_M"], ["What is 5 + 6?"], 4)[0]["tokens"] > 0


def test_rows_of_256_become_k_quants(ggufs: dict[str, Path]) -> None:
    types = {tensor.tensor_type for tensor in GGUFReader(ggufs["Q4_K_M"]).tensors}
    # No fallback types: they would stand for rows that 256 does not divide.
    assert types == {GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q6_K, GGMLQuantizationType.F32}


@pytest.mark.parametrize("kind", [kind for kind in QUANTIZATIONS if kind not in ("F32", "F16", "BF16")])
def test_every_type_that_may_be_asked_for_can_be_made(ggufs: dict[str, Path], tmp_path: Path, kind: str) -> None:
    quantize(ggufs["F16"], tmp_path / "out.gguf", kind)
    assert (tmp_path / "out.gguf").stat().st_size < ggufs["F16"].stat().st_size
    metadata(tmp_path / "out.gguf")


def test_a_cut_source_is_refused_in_one_line(ggufs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "cut.gguf").write_bytes(ggufs["F16"].read_bytes()[:2_000_000])
    with pytest.raises(UserError, match=r"^llama\.cpp cannot quantize cut\.gguf to Q8_0: .") as raised:
        quantize(tmp_path / "cut.gguf", tmp_path / "out.gguf", "Q8_0")
    assert "\n" not in str(raised.value)


def test_a_target_that_cannot_be_written_is_refused_in_one_line(ggufs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^llama\.cpp cannot quantize starter-s-F16\.gguf to Q8_0: ") as raised:
        quantize(ggufs["F16"], tmp_path / "missing/out.gguf", "Q8_0")
    assert "\n" not in str(raised.value)
