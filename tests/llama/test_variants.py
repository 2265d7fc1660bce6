"""llama.cpp's variants for kinds of processors: which is loaded, and that each answers in company as alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_gguf import write_random

from llama import variants
from pipeline.gguf.quantize import quantize

ROOT = Path(__file__).parents[2]
BUILT = variants.installed()
EXACT = ("F32", "F16", "BF16", "Q8_0")
MANY = pytest.mark.skipif(len(BUILT) < 2, reason="llama.cpp was built for one kind of processor")
LOADED = "import re; print(*sorted(set(re.findall(r'libggml-cpu-(\\w+)\\.so', open('/proc/self/maps').read()))))"
# How much one logit gains on another when answers to questions of tests/llama/test_batch.py are given in company.
NOISE = """
import sys
from pathlib import Path
from benchmarks import noise
from llama.model import LlamaModel
from test_batch import CONTEXT, questions
for path in sys.argv[1:]:
    with LlamaModel(Path(path), CONTEXT, 2, 4) as model:
        alone = [noise.alone(model, question, length) for question, length in zip(*questions(), strict=True)]
        print(noise.measure(model, alone[:4]))
"""


def run(program: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """A Python of its own: a process has one variant."""
    folders = ROOT, ROOT / "tests/helpers", ROOT / "tests/llama", os.environ.get("PYTHONPATH", "")
    path = os.pathsep.join(map(str, folders))
    inherited = {key: value for key, value in os.environ.items() if key != variants.CHOICE}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=inherited | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Random weights in each EXACT type."""
    folder = tmp_path_factory.mktemp("exact")
    whole = write_random(folder / "F32.gguf", width=256)
    for kind in EXACT[1:]:
        quantize(whole, folder / f"{kind}.gguf", kind)
    return [str(folder / f"{kind}.gguf") for kind in EXACT]


@MANY
def test_the_best_that_runs_here_is_loaded_and_no_other(exact: list[str]) -> None:
    load = f"from llama.model import metadata; from pathlib import Path; metadata(Path({exact[0]!r})); {LOADED}"
    best, *others = variants.runnable()
    assert run(load).stdout.split() == [best]
    assert others
    assert run(load, **{variants.CHOICE: others[0]}).stdout.split() == [others[0]]
    assert run(f"from llama import model; {LOADED}").stdout.split() == []  # an import loads none


@MANY
def test_a_variant_that_is_none_or_cannot_run_here_is_named_with_those_that_can(exact: list[str]) -> None:
    load = f"from llama.model import metadata; from pathlib import Path; metadata(Path({exact[0]!r}))"
    offered = ", ".join(variants.runnable())
    for name in {"itanium", *BUILT} - {*variants.runnable()}:
        done = run(load, **{variants.CHOICE: name})
        said = f"TUNESMITH_CPU={name} is no variant of llama.cpp that runs here: it may be {offered}; or unset it"
        assert done.stderr.rstrip().endswith(said)


@pytest.mark.parametrize("variant", variants.runnable() or [""])
def test_answers_in_company_are_those_given_alone_with_each_variant(exact: list[str], variant: str) -> None:
    done = run(NOISE, *exact, **({variants.CHOICE: variant} if variant else {}))
    assert [float(line) for line in done.stdout.split()] == [0.0] * len(exact), done.stderr


@MANY
def test_llama_cpp_pythons_own_class_finds_its_kernels(exact: list[str]) -> None:
    done = run(f"from llama_cpp import Llama; Llama({exact[0]!r}, verbose=False); {LOADED}")
    assert done.stdout.split() == variants.runnable()[:1], done.stderr
