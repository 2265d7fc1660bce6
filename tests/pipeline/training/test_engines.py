"""Engines: a file each, known by its name to the configuration and by what it says of itself to everything else."""

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from chats import STARTER_S
from safetensors.torch import load_file

from pipeline.core.config import ENGINES
from pipeline.training.engines import DEFAULT, Engine, engine

REPO = Path(__file__).parents[3]
FOLDER = REPO / "pipeline/training/engines"
ADDED = '''
from pipeline.training.engines.trl import Trl


class Quiet(Trl):
    """TRL's, which says what it has loaded."""

    libraries = ("safetensors",)

    def load(self, plan, model, train, device, digest=None):
        print(f"loaded by {self.name}", flush=True)
        return super().load(plan, model, train, device, digest)


ENGINE = Quiet()
'''
SETTINGS = [
    *STARTER_S,
    "train.engine=quiet",
    "train.lora.r=4",
    "train.max_steps=2",
    "train.batch_size=4",
    "train.effective_batch=8",
    "train.max_length=128",
    "train.check_export=false",
]


def test_the_configuration_takes_the_files_of_the_engines() -> None:
    assert DEFAULT in ENGINES
    assert set(ENGINES) == {path.stem for path in FOLDER.glob("*.py")} - {"__init__"}
    assert [engine(name).name for name in ENGINES] == list(ENGINES)
    assert all(isinstance(engine(name), Engine) for name in ENGINES)


def test_the_comment_in_conf_names_every_engine() -> None:
    lines = (REPO / "conf/train/lora.yaml").read_text(encoding="utf-8").splitlines()
    (comment,) = (line for line in lines if line.startswith("engine:"))
    assert [name for name in ENGINES if name not in comment] == []


def test_the_names_of_engines_are_known_without_their_libraries() -> None:
    asked = "import sys; import pipeline.core.config as config; print(*config.ENGINES, *sys.modules)"
    printed = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout.split()
    assert tuple(printed[: len(ENGINES)]) == ENGINES
    assert not {"torch", "transformers", "peft", "pipeline.training"} & set(printed)


def comparisons(code: str) -> Iterator[int]:
    """The lines that compare something with the name of an engine, by an operator or a case."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Compare | ast.MatchValue):
            texts = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
            if texts & set(ENGINES):
                yield node.lineno


def test_no_other_module_asks_which_engine_it_is() -> None:
    others = [path for path in (REPO / "pipeline").rglob("*.py") if FOLDER not in path.parents]
    found = [f"{path.relative_to(REPO)}:{line}" for path in others for line in comparisons(path.read_text("utf-8"))]
    assert found == []
    planted = 'a = plan.engine == "trl"\nb = name in ("x", "unsloth")\nmatch name:\n    case "trl": pass\n'
    assert list(comparisons(planted)) == [1, 2, 4]


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """The project's code with one file more."""
    shutil.copytree(REPO / "pipeline", tmp_path / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("common", "llama", "conf"):
        (tmp_path / name).symlink_to(REPO / name)
    (tmp_path / "pipeline/training/engines/quiet.py").write_text(ADDED)
    return tmp_path


def test_an_engine_is_added_by_one_file(project: Path, code: Path) -> None:
    command = [sys.executable, "-m", "pipeline.stages.train", *SETTINGS, f"hydra.run.dir={project}"]
    environment = os.environ | {"PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "engine quiet: asked for" in done.stdout
    assert "loaded by quiet" in done.stdout
    report = json.loads((project / "reports/train.json").read_text(encoding="utf-8"))
    assert (report["engine"], report["steps"]) == ("quiet", 2)
    learnt = load_file(project / "models/adapter/adapter_model.safetensors")
    assert any(tensor.abs().max() > 0 for name, tensor in learnt.items() if "lora_B" in name)
    (mark,) = (project / ".checkpoints" / report["fingerprint"]).glob("checkpoint-2/complete.json")
    assert "safetensors" in json.loads(mark.read_text(encoding="utf-8"))["libraries"]
