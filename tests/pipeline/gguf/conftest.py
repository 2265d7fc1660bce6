"""One conversion of starter-s, which all tests of this folder share."""

from pathlib import Path

import pytest

from pipeline.gguf.convert import convert
from pipeline.gguf.quantize import quantize

STARTER = Path(__file__).parents[3] / "starter/models/starter-s"


@pytest.fixture(scope="session")
def starter() -> Path:
    return STARTER


@pytest.fixture(scope="session")
def ggufs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """starter-s as GGUF by type: unquantized by the converter, the others made of that."""
    folder = tmp_path_factory.mktemp("gguf")
    files = {kind: folder / f"starter-s-{kind}.gguf" for kind in ("F32", "F16", "Q8_0", "Q4_K_M")}
    convert(STARTER, files["F32"], "F32")
    for kind in ("F16", "Q8_0", "Q4_K_M"):
        quantize(files["F32"], files[kind], kind)
    return files
