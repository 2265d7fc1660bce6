"""The adapter on starter-s as GGUF files: what the manifest says of them, and what is refused."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from mounts import may_mount
from peft import PeftModel
from transformers import AutoTokenizer

from pipeline import export
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.evaluation.loss import measure_loss
from pipeline.files import sha256
from pipeline.gguf.score import loss
from pipeline.gguf.source import VERSION
from pipeline.training.chat import encode
from pipeline.training.engines import load_base

REPO = Path(__file__).parents[2]
CHAT = [{"role": "user", "content": "What is 5 + 6?"}, {"role": "assistant", "content": "5 + 6 = 11."}]

Settings = Callable[..., Config]


@pytest.fixture
def project(tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tuned project to break, without its exported files."""
    shutil.copytree(tuned / "models/adapter", tmp_path / "models/adapter")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    return tmp_path


def run(config: Config, out: Path) -> None:
    export.main.__wrapped__.__wrapped__(config, out)  # below Hydra and its error line


def refused(config: Config, out: Path) -> str:
    """The one line that an export ends with; nothing is left under models/gguf."""
    with pytest.raises(UserError) as raised:
        run(config, out)
    assert "\n" not in str(raised.value)
    assert [path.name for path in (out / "models").iterdir()] == ["adapter"]
    return str(raised.value)


def test_the_manifest_is_true(exported: Path, tuned_settings: list[str]) -> None:
    folder = exported / "models/gguf"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [file["type"] for file in manifest["files"]] == ["F16", "Q8_0"]
    for file in manifest["files"]:
        path = folder / file["file"]
        assert file["file"] == f"starter-s-{file['type']}.gguf"
        assert file["bytes"] == path.stat().st_size
        assert file["sha256"] == sha256(path)
    assert {path.name for path in folder.iterdir()} == {"manifest.json", *(file["file"] for file in manifest["files"])}
    assert manifest["fingerprint"] == "0123456789abcdef"
    assert manifest["llama_cpp_python"] == VERSION
    assert manifest["base"] == {"path": str(REPO / "starter/models/starter-s"), "revision": None}


def test_the_files_say_what_base_and_adapter_say_together(exported: Path) -> None:
    adapter = str(exported / "models/adapter")
    row = encode(AutoTokenizer.from_pretrained(adapter), CHAT, 512)
    base = load_base(str(REPO / "starter/models/starter-s"), None, "cpu", torch.float32)
    alone = measure_loss(base, [row], 1, 2)[0]
    together = measure_loss(PeftModel.from_pretrained(base, adapter), [row], 1, 2)[0]
    assert abs(alone - together) > 0.05
    for kind, tolerance in (("F16", 0.02), ("Q8_0", 0.05)):  # merged in bf16
        assert loss(exported / f"models/gguf/starter-s-{kind}.gguf", [row]) == pytest.approx(together, abs=tolerance)


def test_the_template_of_training_is_in_the_file(exported: Path) -> None:
    fields = GGUFReader(exported / "models/gguf/starter-s-Q8_0.gguf").fields
    assert "generation" in fields["tokenizer.chat_template"].contents()


def test_the_same_adapter_gives_the_same_files_under_the_models_name(
    exported: Path, project: Path, tuned_config: Settings
) -> None:
    run(tuned_config(), project)
    names = {path.name for path in (exported / "models/gguf").iterdir()}
    assert {path.name for path in (project / "models/gguf").iterdir()} == names
    assert all(sha256(project / "models/gguf" / name) == sha256(exported / "models/gguf" / name) for name in names)
    assert GGUFReader(project / "models/gguf/starter-s-F16.gguf").fields["general.name"].contents() == "Starter S"


def test_nothing_but_what_is_asked_for_is_kept_and_an_older_export_is_replaced(
    project: Path, tuned_config: Settings
) -> None:
    (project / "models/gguf").mkdir()
    (project / "models/gguf/old-F16.gguf").write_text("old")
    run(tuned_config("export.quantizations=[Q4_K_M,Q4_K_M]"), project)
    assert {path.name for path in (project / "models/gguf").iterdir()} == {"manifest.json", "starter-s-Q4_K_M.gguf"}
    assert {path.name for path in (project / "models").iterdir()} == {"adapter", "gguf"}


def test_without_an_adapter_it_is_refused(project: Path, tuned_config: Settings) -> None:
    (project / "models/adapter/lineage.json").unlink()
    said = refused(tuned_config(), project)
    assert said == "models/adapter/lineage.json is missing; run `dvc repro train` first"


def test_an_adapter_of_another_base_is_refused(project: Path, tuned_config: Settings) -> None:
    # The same width and other layers: PEFT would fit it on with a mere warning.
    said = refused(tuned_config("model=starter-m", f"model.path={REPO}/starter/models/starter-m"), project)
    assert said.startswith("models/adapter was tuned from ")
    assert said.endswith("starter/models/starter-m; run `dvc repro train` first")


def test_an_adapter_that_does_not_fit_the_base_is_refused(project: Path, tuned_config: Settings) -> None:
    path = project / "models/adapter/adapter_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"r": 2}))
    said = refused(tuned_config(), project)
    assert said.startswith("models/adapter does not fit ")
    assert said.endswith("; train it anew")


def test_cut_adapter_weights_are_refused(project: Path, tuned_config: Settings) -> None:
    path = project / "models/adapter/adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    assert refused(tuned_config(), project).startswith("models/adapter does not fit ")


def test_a_base_without_weights_is_refused(project: Path, tuned_config: Settings) -> None:
    shutil.copytree(REPO / "starter/models/starter-s", project / "hollow")
    (project / "hollow/model.safetensors").unlink()
    lineage = project / "models/adapter/lineage.json"
    lineage.write_text(json.dumps(json.loads(lineage.read_text()) | {"base": {"path": "hollow", "revision": None}}))
    assert refused(tuned_config("model.path=hollow"), project).startswith("model hollow cannot be loaded (")


@pytest.mark.skipif(not may_mount(), reason="a full disk needs `unshare -rm` and a tmpfs mount")
@pytest.mark.parametrize("size", ["2m", "6m"])  # full in the converter, and in the quantizer after it
def test_a_full_disk_ends_in_one_line_and_leaves_the_last_export(
    project: Path, tuned_settings: list[str], size: str
) -> None:
    disk = project / "disk"
    disk.mkdir()
    # The disk lives in a mount namespace of its own and goes with it.
    script = f"""
        mount -t tmpfs -o size={size} none {disk} || exit 99
        mkdir -p {disk}/models/gguf && echo last > {disk}/models/gguf/manifest.json
        "$@"
        echo "exit $?"
        cat {disk}/models/gguf/*
        find {disk} -name '.*'
    """
    command: list[Any] = [sys.executable, "-m", "pipeline.export", *tuned_settings, f"hydra.run.dir={disk}"]
    command += ["hydra.output_subdir=null", "hydra/job_logging=stdout"]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", *command],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    assert done.stdout.endswith("exit 1\nlast\n")
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"export: cannot write {disk}/models/gguf: No space left on device; make room")
