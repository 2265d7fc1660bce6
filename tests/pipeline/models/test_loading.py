"""What a model's folder brings is data: no code of it runs, and no format is read that may hold code."""

import ast
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from common.errors import UserError
from pipeline.core.composition import compose
from pipeline.core.config import ModelSettings, load
from pipeline.models.chat import load_tokenizer
from pipeline.models.loading import ADAPTER_WEIGHTS, load_base, merge_adapter, read_config, without_weights

REPO = Path(__file__).parents[3]
PACKAGES = ("common", "llama", "pipeline", "serve")
CALLS = ("from_pretrained", "from_config")


class Evil:
    """What writes a file when it is read back."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self.path, "ran")


@pytest.fixture
def model(starter: Path, tmp_path: Path) -> ModelSettings:
    """A copy of starter-s, to be changed."""
    folder = tmp_path / "model"
    shutil.copytree(starter, folder)
    return load(compose(REPO / "conf", ["model=starter-s", f"model.path={folder}"])).model


def bring_code(model: ModelSettings, file: str, **names: str | list[str]) -> Path:
    """Have one of a model's files name code of its folder's, which leaves a mark."""
    folder = Path(model.path)
    mark = folder.parent / "ran"
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w').write('ran')\nclass Evil: pass\n")
    config = json.loads((folder / file).read_text())
    config.pop("model_type", None)  # a kind that Transformers does not know
    (folder / file).write_text(json.dumps(config | {"model_type": "evil", "auto_map": names}))
    return mark


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The questions that a terminal would have shown."""
    questions: list[str] = []
    monkeypatch.setattr("builtins.input", questions.append)
    return questions


@pytest.mark.parametrize("read", [read_config, without_weights])
def test_code_that_a_model_brings_does_not_run_and_nobody_is_asked(
    model: ModelSettings, read: Callable[[ModelSettings], object], asked: list[str]
) -> None:
    mark = bring_code(model, "config.json", AutoConfig="evil.Evil", AutoModelForCausalLM="evil.Evil")
    with pytest.raises(UserError, match="brings code of its own, and no model's code is run here"):
        read(model)
    assert not mark.exists()
    assert asked == []


def test_a_tokenizers_code_is_passed_over(model: ModelSettings, asked: list[str]) -> None:
    mark = bring_code(model, "tokenizer_config.json", AutoTokenizer=["evil.Evil", "evil.Evil"])
    assert type(load_tokenizer(model)).__module__.startswith("transformers.")
    assert not mark.exists()
    assert asked == []


def test_every_call_that_might_run_a_models_code_says_that_it_must_not() -> None:
    calls, missing = 0, []
    for path in (path for package in PACKAGES for path in (REPO / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CALLS):
                continue
            if ast.unparse(node.func.value).startswith("Auto"):
                calls += 1
                said = [word for word in node.keywords if word.arg == "trust_remote_code"]
                if not said or ast.unparse(said[0].value) != "False":
                    missing.append(f"{path.relative_to(REPO)}:{node.lineno}")
    assert calls > 8
    assert missing == []


def test_weights_in_a_format_that_may_hold_code_are_not_read(model: ModelSettings) -> None:
    folder = Path(model.path)
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(UserError, match=r"no file named model\.safetensors"):
        load_base(model.path, None, "cpu", torch.float32)


def test_an_adapter_in_such_a_format_is_not_read(starter: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4}))
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(Evil(mark)))
    with pytest.raises(UserError, match=f"has no {ADAPTER_WEIGHTS}, and weights in other formats are not read"):
        merge_adapter(load_base(str(starter), None, "cpu", torch.float32), adapter)
    assert not mark.exists()
