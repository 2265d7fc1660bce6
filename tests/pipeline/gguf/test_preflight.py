"""A base that could not be exported is refused by its trial; one that could passes, and is tried once."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest
from transformers import Gemma3TextConfig, LlamaConfig, Phi3Config, Qwen2Config, Qwen3MoeConfig, SmolLM3Config

from common.errors import UserError
from pipeline.core.config import Config, ModelSettings
from pipeline.gguf import preflight as module
from pipeline.gguf.preflight import marker, preflight
from pipeline.gguf.trial import HEADS, WIDTH, shrunk

TRAINING = """
import json, sys
from pipeline.core.config import ModelSettings
from pipeline.gguf.preflight import preflight

with preflight(ModelSettings(**json.loads(sys.argv[1])), True) as require_exportable:
    require_exportable()
"""


@pytest.fixture(autouse=True)
def marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing was tried before."""
    monkeypatch.setattr(module, "cache_root", lambda: tmp_path / "cache")
    return tmp_path / "cache/exportable"


@pytest.fixture
def copied(starter: Path, tmp_path: Path, tuned_config: Callable[..., Config]) -> ModelSettings:
    """A copy of starter-s that may be changed."""
    shutil.copytree(starter, tmp_path / "model")
    return tuned_config(f"model.path={tmp_path / 'model'}").model


def rewrite(model: ModelSettings, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    path = Path(model.path) / name
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def tried(model: ModelSettings) -> None:
    with preflight(model, True) as require_exportable:
        require_exportable()


def test_what_passes_is_said_and_not_tried_again(
    copied: ModelSettings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, marks: Path
) -> None:
    tried(copied)
    assert "starter-s can be exported, as a trial with tiny weights shows (" in capsys.readouterr().out
    assert [json.loads(mark.read_text())["model"] for mark in marks.iterdir()] == [copied.path]
    monkeypatch.setattr(subprocess, "Popen", None)
    tried(copied)
    assert not capsys.readouterr().out


def test_what_is_not_wanted_is_not_tried(copied: ModelSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    with preflight(copied, False) as require_exportable:
        require_exportable()


def test_of_several_processes_the_first_tries(copied: ModelSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("RANK", "1")
    tried(copied)


def test_an_end_that_the_file_would_not_know_is_refused(copied: ModelSettings, marks: Path) -> None:
    rewrite(copied, "generation_config.json", lambda settings: settings["eos_token_id"].extend([6, 7, 8]))
    with pytest.raises(UserError, match=r"^starter-s could not be exported, as a trial with tiny .*: ") as raised:
        tried(copied)
    assert "llama.cpp does not know '!', '\"', '#' as ends of an answer, and a file can name 2" in str(raised.value)
    assert str(raised.value).endswith("; nothing was trained yet; train.check_export=false trains it all the same")
    assert not marks.exists()


def test_a_tokenizer_that_the_converter_does_not_know_is_refused(copied: ModelSettings) -> None:
    def split_otherwise(tokenizer: dict[str, Any]) -> None:
        tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": r"\s+|\S+"}

    rewrite(copied, "tokenizer.json", split_otherwise)
    with pytest.raises(UserError, match=r"llama\.cpp's converter cannot write starter-s-F16\.gguf from ") as raised:
        tried(copied)
    assert f"from {copied.path}: " in str(raised.value)
    assert "nothing was trained yet" in str(raised.value)


def test_without_the_converters_sources_it_is_said_and_no_refusal(
    copied: ModelSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    marks: Path,
) -> None:  # fmt: skip
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    tried(copied)
    said = capsys.readouterr().out
    assert said.startswith("warning: whether starter-s can be exported was not to be tried (cannot fetch llama-cpp")
    assert said.count("\n") == 1
    assert not marks.exists()


def test_a_model_that_cannot_be_made_small_is_said_and_no_refusal(
    copied: ModelSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(copied, "config.json", lambda config: config.update(hidden_act="no such activation"))
    tried(copied)
    assert "warning: whether starter-s can be exported was not to be tried (" in capsys.readouterr().out


@pytest.mark.parametrize("request_to_stop", [signal.SIGTERM, signal.SIGKILL])
def test_a_trial_ends_with_its_training_and_leaves_no_folder(
    copied: ModelSettings, tmp_path: Path, request_to_stop: signal.Signals
) -> None:
    # A trial that never ends by itself: what would answer for the package index does not answer.
    work, silent = tmp_path / "work", socket.create_server(("127.0.0.1", 0))
    work.mkdir()
    environment = os.environ | {
        "TMPDIR": str(work), "XDG_CACHE_HOME": str(tmp_path / "empty"), "PIP_CONFIG_FILE": os.devnull,
        "NO_PROXY": "127.0.0.1", "PIP_INDEX_URL": f"http://127.0.0.1:{silent.getsockname()[1]}/simple",
    }  # fmt: skip
    training = subprocess.Popen([sys.executable, "-c", TRAINING, json.dumps(asdict(copied))], env=environment)
    silent.settimeout(120)
    with silent:
        silent.accept()
    trial, *_ = psutil.Process(training.pid).children()
    assert any(work.glob("tunesmith-preflight-*"))
    training.send_signal(request_to_stop)
    training.wait()
    psutil.wait_procs([trial], timeout=60)
    assert not trial.is_running()
    assert not any(work.glob("tunesmith-preflight-*"))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "generation_config.json", "chat_template.jinja"])
def test_another_model_is_tried_anew(copied: ModelSettings, name: str) -> None:
    before = marker(copied)
    path = Path(copied.path) / name
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert before is not None
    assert marker(copied) != before


def test_other_weights_are_not_tried_anew(copied: ModelSettings) -> None:
    before = marker(copied)
    (Path(copied.path) / "model.safetensors").write_bytes(b"")
    assert marker(copied) == before


def test_another_template_is_tried_anew(tuned_config: Callable[..., Config], tmp_path: Path) -> None:
    (tmp_path / "template.jinja").write_text("{{ messages }}", encoding="utf-8")
    other = tuned_config(f"model.chat_template={tmp_path / 'template.jinja'}").model
    assert marker(tuned_config().model) != marker(other)


@pytest.mark.parametrize(
    ("config", "layers", "kept"),
    [
        (LlamaConfig(num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8), 2, {"head_dim": 128}),
        (Qwen2Config(hidden_size=896, num_attention_heads=14, num_key_value_heads=2), 2, {"hidden_size": HEADS * 64}),
        (Phi3Config(hidden_size=3072, num_attention_heads=32), 2, {"hidden_size": HEADS * 96}),
        (Gemma3TextConfig(num_hidden_layers=26), 6, {"sliding_window": 4096, "query_pre_attn_scalar": 256}),
        (SmolLM3Config(), 4, {"no_rope_layers": [1, 1, 1, 0]}),
        (Qwen3MoeConfig(num_experts=128, num_experts_per_tok=8), 2, {"num_experts": 4, "num_experts_per_tok": 2}),
    ],
)
def test_a_small_model_has_each_kind_of_layer(config: Any, layers: int, kept: dict[str, Any]) -> None:
    small = shrunk(config)
    assert (type(small), small.num_hidden_layers, small.vocab_size) == (type(config), layers, config.vocab_size)
    assert small.intermediate_size == WIDTH
    assert {key: getattr(small, key) for key in kept} == kept
    assert set(getattr(small, "layer_types", None) or ()) == set(getattr(config, "layer_types", None) or ())
