"""`tunesmith verify`: a file comes out the same again, or what differs is named; files of others end in one line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from chats import STARTER_S
from gguf import GGUFReader
from tiny_gguf import write_random

from common.errors import UserError
from common.files import sha256
from pipeline.commands import verify
from pipeline.core.composition import compose
from pipeline.core.config import load
from pipeline.gguf.lineage_key import LINEAGE_KEY
from pipeline.stages import export, train

REPO = Path(__file__).parents[3]
SETTINGS = [
    *STARTER_S,
    "train.lora.r=4",
    "train.max_steps=2",
    "train.max_length=128",
    "train.check_export=false",
    "export.quantizations=[Q8_0]",
    "export.base=[]",
]
FILE = Path("models/gguf/starter-s-Q8_0.gguf")


@pytest.fixture(scope="module")
def exported(project: Path) -> Path:
    """The shared project with a file of two updates."""
    config = load(compose(REPO / "conf", SETTINGS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(REPO))  # the converter is a process of its own
        train.run(config, project)
        export.run(config, project)
    return project


def flipped(project: Path, at: int) -> Path:
    """A copy of the file with one bit of one byte changed."""
    content = bytearray((project / FILE).read_bytes())
    content[at] ^= 1
    path = project / "flipped.gguf"
    path.write_bytes(content)
    return path


def refused(path: Path, **options: bool | Path) -> str:
    with pytest.raises(UserError) as ended:
        verify.run(path, **options)  # type: ignore[arg-type]
    assert "\n" not in str(ended.value)
    return str(ended.value)


def test_a_file_tells_where_it_comes_from(exported: Path) -> None:
    told = json.loads(str(GGUFReader(exported / FILE).fields[LINEAGE_KEY].contents()))
    assert (told["of"], told["source"], told["train"]["max_steps"]) == ("tuned", "F16", 2)
    assert told["data"]["files"] == {"chats.jsonl": sha256(exported / "chats.jsonl")}
    weights = exported / "models/adapter/adapter_model.safetensors"
    assert told["adapter"] == {weights.name: sha256(weights)}
    assert told["base"]["digest"]
    assert told["exported"]["libraries"]["llama_cpp_python"]
    assert told["trained"]["commit"] == told["exported"]["commit"]


@pytest.mark.slow
def test_a_file_comes_out_the_same_by_the_command_line(exported: Path) -> None:
    command = [sys.executable, "-m", "pipeline", "verify", str(FILE)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(REPO)}, capture_output=True, text=True)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[-4:] == ["  prepare", "  train", "  export", f"the same to the byte: {sha256(exported / FILE)}"]
    assert done.returncode == 0


@pytest.mark.slow
def test_one_changed_byte_is_named_also_without_training_and_data(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensor = next(one for one in GGUFReader(exported / FILE).tensors if one.name == "blk.0.attn_q.weight")
    path = flipped(exported, int(tensor.data_offset) + 40)
    data = (exported / "chats.jsonl").rename(exported / "away")
    try:
        said = refused(path, adapter=True)
    finally:
        data.rename(exported / "chats.jsonl")
    assert said == (
        f"{path} differs from the one made again in 1 place, first tensor blk.0.attn_q.weight:"
        f" 1 of {tensor.n_bytes:,} bytes"
    )
    assert "  train\n" not in capsys.readouterr().out


@pytest.mark.slow
def test_data_that_have_changed_are_named_and_nothing_is_trained(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = exported / "chats.jsonl"
    before, digest = data.read_bytes(), sha256(data)
    data.write_bytes(before[:-20] + before[-20:].replace(b"}", b" }", 1))
    try:
        changed = f"data: chats.jsonl has changed, it had the SHA-256 {digest[:16]}…"
        assert refused(exported / FILE) == f"{exported / FILE} cannot be made again here; {changed}"
        assert f"  {changed}\n" in capsys.readouterr().out
    finally:
        data.write_bytes(before)


def test_an_adapter_that_is_another_one_is_refused(exported: Path) -> None:
    weights = exported / "models/adapter/adapter_model.safetensors"
    shutil.copyfile(weights, exported / "kept")
    try:
        with weights.open("r+b") as file:
            file.seek(-1, 2)
            file.write(b"\x01")
        assert refused(exported / FILE, adapter=True) == (
            "models/adapter is not what the file was made of: adapter_model.safetensors; `dvc checkout models/adapter`"
            " may bring it back"
        )
    finally:
        shutil.copyfile(exported / "kept", weights)


def test_two_files_are_compared_without_making_either_again(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify.run(exported / FILE, against=exported / FILE)
    assert capsys.readouterr().out == f"the same to the byte: {sha256(exported / FILE)}\n"
    path = flipped(exported, (exported / FILE).read_bytes().index(b'"max_steps": 2') + 13)
    assert refused(path, against=exported / FILE).endswith("in 1 place, first lineage train.max_steps: 3 -> 2")
    assert refused(path, against=exported / "none.gguf") == f"{exported / 'none.gguf'} is no file here"
    assert refused(path, against=exported / "models") == f"{exported / 'models'} is no file here"
    assert refused(path, against=path, adapter=True).startswith("--against makes nothing again")


def test_files_of_other_makers_and_damaged_ones_end_in_one_line(exported: Path, tmp_path: Path) -> None:
    assert refused(tmp_path / "none.gguf") == f"{tmp_path / 'none.gguf'} is no file here"
    other = write_random(tmp_path / "other.gguf")
    assert refused(other).startswith(f"{other} does not say where it comes from: another program made it, or ")
    text = tmp_path / "text.gguf"
    text.write_text("a text")
    assert refused(text).startswith(f"{text} cannot be read as a GGUF: ")
    damaged = flipped(exported, (exported / FILE).read_bytes().index(b'"schema_version"'))
    assert refused(damaged).startswith(f"{LINEAGE_KEY} in {damaged} is no JSON")
