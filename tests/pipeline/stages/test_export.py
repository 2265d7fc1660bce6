"""The adapter on starter-s as GGUF files: what the manifest says of them, and what is refused."""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from gguf import GGUFReader, dequantize
from mounts import may_mount
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoTokenizer

from common.errors import UserError
from common.files import sha256
from llama.source import VERSION
from pipeline.core.config import Config
from pipeline.core.records import Lineage
from pipeline.evaluation.gguf_scores import row_nats
from pipeline.evaluation.loss import Row, measure_loss, scored_tokens
from pipeline.gguf import export_set as export_set
from pipeline.gguf.export_set import ROW_TOKENS
from pipeline.models.chat import encode
from pipeline.models.loading import base_digest, load_base
from pipeline.stages import export
from pipeline.stages.export import require_same_base

REPO = Path(__file__).parents[3]
CHAT = [{"role": "user", "content": "What is 5 + 6?"}, {"role": "assistant", "content": "5 + 6 = 11."}]

Settings = Callable[..., Config]


@pytest.fixture
def project(tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tuned project to break, without its exported files."""
    for name in ("data/prepared", "models/adapter"):
        shutil.copytree(tuned / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    return tmp_path


def run(config: Config, out: Path) -> None:
    export.run(config, out)


def refused(config: Config, out: Path) -> str:
    """The one line that an export ends with; nothing is left under models/gguf."""
    with pytest.raises(UserError) as raised:
        run(config, out)
    assert "\n" not in str(raised.value)
    assert [path.name for path in (out / "models").iterdir()] == ["adapter"]
    return str(raised.value)


def loss(path: Path, rows: list[Row]) -> float:
    """Nats a marked token, by llama.cpp."""
    return sum(row_nats(path, rows)) / sum(map(scored_tokens, rows))


def test_the_manifest_is_true(exported: Path, tuned_settings: list[str]) -> None:
    folder = exported / "models/gguf"
    manifest = json.loads((folder / "manifest.json").read_text())
    names = [(file["of"], file["type"], file["file"]) for file in manifest["files"]]
    assert names == [
        ("tuned", "F16", "starter-s-F16.gguf"),
        ("tuned", "Q8_0", "starter-s-Q8_0.gguf"),
        ("base", "Q8_0", "starter-s-base-Q8_0.gguf"),
    ]
    for file in manifest["files"]:
        path = folder / file["file"]
        assert file["bytes"] == path.stat().st_size
        assert file["sha256"] == sha256(path)
    assert {path.name for path in folder.iterdir()} == {"manifest.json", *(file["file"] for file in manifest["files"])}
    assert manifest["fingerprint"] == "0123456789abcdef"
    assert manifest["llama_cpp_python"] == VERSION
    assert manifest["base"] == {"path": str(REPO / "starter/models/starter-s"), "revision": None}
    assert manifest["method"] == "lora"


def test_the_figures_say_how_near_each_file_is(exported: Path, tuned: Path) -> None:
    files = {file["file"]: file for file in json.loads((exported / "models/gguf/manifest.json").read_text())["files"]}
    exact, quantized, base = files.values()
    assert 0 < exact["kl"] < 1e-3
    assert exact["kl"] < quantized["kl"] < 0.01
    assert min(file["top_1"] for file in files.values()) > 0.9
    # The perplexity is of the same tokens as llama.cpp's own loss on them.
    tokenizer = AutoTokenizer.from_pretrained(str(tuned / "models/adapter"))
    chats = pq.read_table(tuned / "data/prepared/test.parquet")["messages"].to_pylist()
    rows = [(ids, [1] * len(ids)) for ids in (encode(tokenizer, chat, ROW_TOKENS)[0][0] for chat in chats)]
    for file in (exact, quantized, base):
        nats = loss(exported / "models/gguf" / file["file"], rows)
        assert file["perplexity"] == pytest.approx(math.exp(nats), rel=1e-3)


def test_the_base_beside_is_the_untouched_one_with_the_template_of_training(exported: Path) -> None:
    folder = exported / "models/gguf"
    base, tuned = (GGUFReader(folder / f"starter-s{name}-Q8_0.gguf") for name in ("-base", ""))
    template = "tokenizer.chat_template"
    assert base.fields[template].contents() == tuned.fields[template].contents()
    assert base.fields["general.name"].contents() == "Starter S Base"
    untouched = load_file(REPO / "starter/models/starter-s/model.safetensors")["model.layers.0.mlp.down_proj.weight"]
    found, other = (
        dequantize(tensor.data, tensor.tensor_type)
        for file in (base, tuned) for tensor in file.tensors if tensor.name == "blk.0.ffn_down.weight"
    )  # fmt: skip
    np.testing.assert_allclose(found, untouched.float().numpy(), atol=0.01)
    assert np.abs(found - other).max() > 0.05


def test_the_files_say_what_base_and_adapter_say_together(exported: Path) -> None:
    adapter = str(exported / "models/adapter")
    (row,) = encode(AutoTokenizer.from_pretrained(adapter), CHAT, 512)
    base = load_base(str(REPO / "starter/models/starter-s"), None, "cpu", torch.float32)
    alone = measure_loss(base, [row], 1, 2).mean
    together = measure_loss(PeftModel.from_pretrained(base, adapter), [row], 1, 2).mean
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
    run(tuned_config("export.quantizations=[Q4_K_M,Q4_K_M]", "export.base=[]"), project)
    assert {path.name for path in (project / "models/gguf").iterdir()} == {"manifest.json", "starter-s-Q4_K_M.gguf"}
    assert {path.name for path in (project / "models").iterdir()} == {"adapter", "gguf"}


def test_all_that_can_be_asked_for_is_made(project: Path, tuned_config: Settings) -> None:
    wanted = ["export.quantizations=[Q2_K,BF16,F16]", "export.base=[]", "export.adapter=true"]
    run(tuned_config(*wanted, "export.importance_matrix=true"), project)
    files = {file["file"]: file for file in json.loads((project / "models/gguf/manifest.json").read_text())["files"]}
    assert list(files) == [f"starter-s-{kind}.gguf" for kind in ("Q2_K", "BF16", "F16", "adapter-F16")]
    adapter = files["starter-s-adapter-F16.gguf"]
    assert adapter.keys() == {"file", "type", "of", "bytes", "sha256"}
    assert (adapter["type"], adapter["of"]) == ("F16", "adapter")
    assert {path.name for path in (project / "models/gguf").iterdir()} == {"manifest.json", *files}


def test_a_full_fine_tune_is_exported_as_it_is(project: Path, tuned: Path, tuned_config: Settings) -> None:
    adapter = project / "models/adapter"
    base = load_base(str(REPO / "starter/models/starter-s"), None, "cpu", torch.float32)
    whole = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
    whole.save_pretrained(adapter)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (adapter / name).unlink()
    settings = ("train=full", "export.base=[F16]", "export.quantizations=[F16]")
    run(tuned_config(*settings), project)
    manifest = json.loads((project / "models/gguf/manifest.json").read_text())
    assert manifest["method"] == "full"
    tuned_file, base_file = manifest["files"]
    assert max(tuned_file["kl"], base_file["kl"]) < 1e-4
    assert tuned_file["perplexity"] != pytest.approx(base_file["perplexity"], rel=0.05)
    with pytest.raises(UserError, match=r"train\.method=full leaves no adapter"):
        run(tuned_config(*settings, "export.adapter=true"), project)


def test_after_qlora_the_adapter_is_merged_onto_the_16_bit_base(project: Path, tuned_config: Settings) -> None:
    starter = REPO / "starter/models/starter-s"
    (project / "in-4bit").mkdir()
    lineage = project / "models/adapter/lineage.json"
    recorded = json.loads(lineage.read_text())
    recorded["base"] |= {"path": "in-4bit", "merge_path": str(starter), "load_in_4bit": True}
    lineage.write_text(json.dumps(recorded))
    run(
        tuned_config(
            "train=qlora", "model.load_in_4bit=true", "model.path=in-4bit", f"model.merge_path={starter}",
            "export.base=[]", "export.quantizations=[F16]",
        ),
        project,
    )  # fmt: skip
    manifest = json.loads((project / "models/gguf/manifest.json").read_text())
    assert manifest["method"] == "qlora"
    assert manifest["base"]["path"] == "in-4bit"
    assert manifest["files"][0]["kl"] < 1e-3


def test_a_file_that_is_not_the_trained_model_ends_the_stage_and_leaves_the_last_export(
    project: Path, tuned_config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "models/gguf").mkdir()
    (project / "models/gguf/manifest.json").write_text("last")
    convert = export_set.convert

    def convert_the_base(model: Path, file: Path, kind: str, lineage: str) -> None:  # as if nothing had been merged
        convert(REPO / "starter/models/starter-s", file, kind)

    monkeypatch.setattr(export_set, "convert", convert_the_base)
    with pytest.raises(UserError) as raised:
        run(tuned_config(), project)
    assert str(raised.value).startswith("starter-s-F16.gguf is not the model that it was made of; logits: ")
    assert {path.name for path in (project / "models").iterdir()} == {"adapter", "gguf"}
    assert [path.name for path in (project / "models/gguf").iterdir()] == ["manifest.json"]
    assert (project / "models/gguf/manifest.json").read_text() == "last"


def test_without_a_test_split_it_is_refused(project: Path, tuned_config: Settings) -> None:
    (project / "data/prepared/test.parquet").unlink()
    assert refused(tuned_config(), project) == "data/prepared/test.parquet is missing; run `dvc repro prepare` first"


def test_without_an_adapter_it_is_refused(project: Path, tuned_config: Settings) -> None:
    (project / "models/adapter/lineage.json").unlink()
    said = refused(tuned_config(), project)
    assert said == "models/adapter/lineage.json is missing; run `dvc repro train` first"


def test_exporting_on_other_data_is_refused(project: Path, tuned_config: Settings) -> None:
    said = refused(tuned_config("data.max_rows=30"), project)
    assert said.startswith(
        "data/prepared is not what the configuration asks for: data.max_rows is 30 and was None; run "
    )


def test_an_adapter_of_another_base_is_refused(project: Path, tuned_config: Settings) -> None:
    # The same width and other layers: PEFT would fit it on with a mere warning.
    said = refused(tuned_config("model=starter-m", f"model.path={REPO}/starter/models/starter-m"), project)
    assert said.startswith("models/adapter was tuned from ")
    assert said.endswith("starter/models/starter-m; run `dvc repro train` first")


def test_a_base_that_has_changed_since_is_refused(project: Path, tuned_config: Settings) -> None:
    base = shutil.copytree(REPO / "starter/models/starter-s", project / "base")
    config = tuned_config("model.path=base")
    lineage = project / "models/adapter/lineage.json"
    recorded = json.loads(lineage.read_text())
    recorded["base"] |= {"path": "base", "digest": base_digest(config.model)}
    lineage.write_text(json.dumps(recorded))
    require_same_base(Lineage.read(lineage), config.model)
    with (base / "model.safetensors").open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(b"\1\2")
    said = refused(config, project)
    assert said.startswith(
        "base or its chat template has changed since models/adapter was tuned from it; set model.rev"
    )


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
    recorded = json.loads(lineage.read_text())
    recorded["base"]["path"] = "hollow"
    lineage.write_text(json.dumps(recorded))
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
    command: list[Any] = [sys.executable, "-m", "pipeline.stages.export", *tuned_settings, f"hydra.run.dir={disk}"]
    command += ["hydra.output_subdir=null", "hydra/job_logging=stdout"]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", *command],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    assert done.stdout.endswith("exit 1\nlast\n")
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"export: cannot write {disk}/models/gguf: No space left on device; make room")
