"""What a CPU computes is the same on each that has AVX2, whatever else it has and is told to do without."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from chats import STARTER_S

from common.files import sha256
from llama import variants
from pipeline.gguf.kernels import KERNELS, fix_kernels
from pipeline.workers.arithmetic import FIXED, fix_arithmetic, has_avx2

REPO = Path(__file__).parents[3]
WEIGHTS = "models/adapter/adapter_model.safetensors"
LEAST = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41"}
AS_LIBRARIES_CHOOSE = (
    "import runpy\nfrom pipeline.workers import process\nprocess.fix_arithmetic = lambda: None\n"
    "runpy.run_module('pipeline.stages.train', run_name='__main__')"
)


def processor(folder: Path, flags: str) -> Path:
    path = folder / "cpuinfo"
    path.write_text(f"processor\t: 0\nmodel name\t: Some\nflags\t\t: {flags}\n")
    return path


def test_a_processor_with_avx2_computes_with_it_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FIXED:
        monkeypatch.delenv(name, raising=False)
    fix_arithmetic(processor(tmp_path, "fpu sse avx avx2 avx512f"))
    assert {name: os.environ[name] for name in FIXED} == FIXED


def test_another_choice_of_the_users_is_said_to_be_overruled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    monkeypatch.setenv("MKL_CBWR", FIXED["MKL_CBWR"])
    fix_arithmetic(processor(tmp_path, "avx avx2"))
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "ATEN_CPU_CAPABILITY=default is not followed: all compute with avx2 (docs/verify.md)"


@pytest.mark.parametrize(
    ("flags", "built", "kernels"),
    [
        ("fpu avx avx2 avx512f avx512_vnni", [KERNELS, "cascadelake"], KERNELS),
        ("fpu avx", [KERNELS, "x64"], "x64"),
        ("fpu avx avx2", [], "x64"),
    ],
)
def test_llama_cpp_computes_with_avx2_where_files_are_made(
    flags: str, built: list[str], kernels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "installed", lambda: dict.fromkeys(built, Path()))
    monkeypatch.setenv(variants.CHOICE, "x64")
    fix_kernels(processor(tmp_path, flags))
    assert os.environ[variants.CHOICE] == kernels


@pytest.mark.parametrize("flags", ["fpu sse avx", "fp asimd", "avx2x"])
def test_a_processor_without_keeps_its_own_arithmetic(
    flags: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    fix_arithmetic(processor(tmp_path, flags))
    assert os.environ["ATEN_CPU_CAPABILITY"] == "default"


def test_where_nothing_says_what_a_processor_has_it_is_left_alone(tmp_path: Path) -> None:
    assert not has_avx2(tmp_path / "cpuinfo")


def trained(project: Path, program: tuple[str, str], limit: dict[str, str]) -> str:
    """The digest of an adapter after three updates under a limit."""
    name = f"{len(list(project.iterdir()))}"
    settings = (
        *STARTER_S, "train.lora.r=4", "train.max_steps=3", "train.max_length=128", "train.check_export=false",
        f"runtime.checkpoint_root={name}/checkpoints", f"hydra.run.dir={name}",
    )  # fmt: skip
    inherited = {key: value for key, value in os.environ.items() if key not in FIXED}
    environment = inherited | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"} | limit
    subprocess.run([sys.executable, *program, *settings], env=environment, capture_output=True, check=True)
    return sha256(project / name / WEIGHTS)


@pytest.mark.slow
@pytest.mark.skipif(not has_avx2(Path("/proc/cpuinfo")), reason="has no AVX2")
def test_an_adapter_is_the_same_to_the_byte_with_other_threads_and_instructions(project: Path) -> None:
    program = ("-m", "pipeline.stages.train")
    assert trained(project, program, {}) == trained(project, program, {**LEAST, "OMP_NUM_THREADS": "2"})
    # And it is this that makes it so.
    assert trained(project, ("-c", AS_LIBRARIES_CHOOSE), LEAST) != trained(project, program, LEAST)
