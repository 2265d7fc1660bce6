"""A real model, SmolLM2-135M-Instruct out of a Python package, through the stages as users start them.

`make test` has it train two updates and export; `make test-model` the whole pipeline, in ten minutes on two cores.
Where no package index answers, both skip. Rows are GSM8K's where they are at hand, else sums made here in their form.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from servers import started_server

from common.errors import UserError
from common.files import sha256
from pipeline.core.composition import compose
from pipeline.core.config import load
from pipeline.models.packaged import package_folder

pytestmark = pytest.mark.slow
REPO = Path(__file__).parents[2]
GSM8K = REPO.parent / "shared/data/gsm8k"
MODEL = load(compose(REPO / "conf", ["experiment=gsm8k"])).model
CAPITAL = "What is the capital of France?"  # one of the experiment's prompts
TOKENS = 48  # of an answer, at most
SETTINGS = [
    "experiment=gsm8k",
    "data.max_rows=240",
    "train.effective_batch=8",
    "evaluate.max_rows=8",
    "evaluate.max_questions=8",
    f"evaluate.max_new_tokens={TOKENS}",
    "tracking=none",
    "runtime.device=cpu",
    "hydra.run.dir=.",
    "hydra.output_subdir=null",
]


@pytest.fixture(scope="module", autouse=True)
def package() -> Path:
    """The model's folder."""
    try:
        return package_folder(MODEL.path, MODEL.revision)
    except UserError as error:
        if not str(error).startswith("cannot fetch"):
            raise
        pytest.skip(str(error))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A working folder with prepared sums."""
    raw = tmp_path / "data/raw/gsm8k"
    raw.mkdir(parents=True)
    for name, count in (("train.jsonl", 240), ("test.jsonl", 40)):
        if (GSM8K / name).is_file():
            shutil.copy(GSM8K / name, raw)
        else:
            (raw / name).write_text("".join(json.dumps(a_sum(f"{name} {number}")) + "\n" for number in range(count)))
    stage(tmp_path, "prepare")
    return tmp_path


def a_sum(seed: str) -> dict[str, str]:
    """A row in GSM8K's form."""
    numbers = random.Random(seed)
    had, bought, eaten = (numbers.randint(2, 90) for _ in range(3))
    left = had + bought - eaten
    return {
        "question": f"Ann had {had} plums and bought {bought} more. She ate {eaten}. How many plums has she now?",
        "answer": f"She had {had} + {bought} = <<{had}+{bought}={had + bought}>>{had + bought} plums.\n"
        f"{left} = <<{had + bought}-{eaten}={left}>>{left} are left.\n#### {left}",
    }


def stage(folder: Path, name: str, *overrides: str) -> str:
    """What a stage prints; one that fails fails the test with it."""
    ran = subprocess.run(
        [sys.executable, "-m", "pipeline", name, *SETTINGS, *overrides],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPO)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert ran.returncode == 0, f"{name}:\n{ran.stdout[-4000:]}"
    return ran.stdout


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_a_model_out_of_a_package_trains_and_comes_out_as_gguf(project: Path, package: Path) -> None:
    stage(project, "train", "train.max_steps=2", "train.max_length=128", "train.max_truncated=1")
    lineage = read(project / "models/adapter/lineage.json")
    assert (lineage["base"]["path"], lineage["base"]["revision"]) == (MODEL.path, MODEL.revision)
    stage(project, "export", "export.quantizations=[F16]", "export.base=[]", "export.verify_rows=2")
    manifest = read(project / "models/gguf/manifest.json")
    assert manifest["base"] == {"path": MODEL.path, "revision": MODEL.revision}
    (file,) = manifest["files"]
    assert file["sha256"] == sha256(project / "models/gguf/smollm2-135m-pypi-F16.gguf")
    assert file["kl"] < 0.005
    for written in project.glob("models/*/*.json"):  # no folder of this machine in what is handed on
        assert str(package) not in written.read_text()


@pytest.mark.model
@pytest.mark.timeout(3600)
def test_the_whole_pipeline_on_sums(project: Path, tmp_path: Path) -> None:
    questions = [json.loads(line) for line in (project / "data/prepared/questions.jsonl").read_text().splitlines()]
    assert {question["kind"] for question in questions} == {"number"}
    stage(project, "train", "train.max_steps=12")
    stage(project, "export")
    manifest = read(project / "models/gguf/manifest.json")
    assert [file["type"] for file in manifest["files"]] == ["F16", "Q8_0", "Q4_K_M", "Q8_0"]
    stage(project, "evaluate")
    stage(project, "report")
    evaluation = read(project / "reports/evaluation.json")
    assert evaluation["questions"] == evaluation["rows"] == 8
    assert evaluation["gain"]["loss"] > 0
    assert evaluation["gguf"]["F16"]["loss"] == pytest.approx(evaluation["tuned_model"]["loss"], rel=5e-3)
    card = read(project / "models/card.json")
    assert card["base"] == {"name": MODEL.path, "revision": MODEL.revision}
    assert "base: Apache License 2.0" in (project / "models/README.md").read_text()

    folder = project / "models/gguf"
    with started_server(tmp_path / "server.log", "/readyz", models=folder) as (url, _):
        assert "Paris" in answer(url, "smollm2-135m-pypi-base-Q8_0", CAPITAL)
        recorded = dict(zip(evaluation["prompts"], evaluation["answers"]["Q8_0"], strict=True))[CAPITAL]
        assert answer(url, "smollm2-135m-pypi-Q8_0", CAPITAL).strip() == recorded["reply"].strip()


def answer(url: str, model: str, question: str) -> str:
    """The chat server's greedy answer."""
    asked = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": TOKENS,
    }
    request = urllib.request.Request(  # noqa: S310, to this machine
        f"{url}/v1/chat/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as response:  # noqa: S310
        said: str = json.load(response)["choices"][0]["message"]["content"]
        return said
