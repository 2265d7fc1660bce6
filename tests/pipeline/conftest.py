"""A small prepared data set to train on; a small tuned model and its exported files for `export` and `evaluate`."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from chats import CHATS
from working import working_in

from pipeline.core.composition import compose
from pipeline.core.config import Config, load

REPO = Path(__file__).parents[2]
STARTER = REPO / "starter/models/starter-s"
SETTINGS = [
    "model=starter-s",
    f"model.path={STARTER}",
    "tracking=none",
    "runtime.device=cpu",
    "data.files=[chats.jsonl]",
    "data.questions=questions.jsonl",
    "data.test=12",
    "data.seed=0",
    "export.quantizations=[F16,Q8_0]",
    "evaluate.prompts=[What is 5 + 6?]",
    "evaluate.max_new_tokens=6",
    "evaluate.max_rows=6",
    "evaluate.batch_size=4",
    "evaluate.max_questions=5",
    "evaluate.general.statements.files=[general.jsonl]",
    "evaluate.general.transcripts=null",
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder, entered, with 104 conversations to learn from, 8 to validate on and 8 to test."""
    from pipeline.stages.prepare import prepare

    folder = tmp_path_factory.mktemp("project")
    lines = (REPO / "starter/chats.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "chats.jsonl").write_text("".join(lines[:120]), encoding="utf-8")
    prepare(load(compose(REPO / "conf", CHATS)).data, folder, folder)
    with working_in(folder):
        yield folder


@pytest.fixture(scope="session")
def tuned_settings() -> list[str]:
    """The overrides that the shared project is run with."""
    return SETTINGS


@pytest.fixture(scope="session")
def tuned_config() -> Callable[..., Config]:
    """The shared project's configuration with further overrides."""
    return lambda *overrides: load(compose(REPO / "conf", [*SETTINGS, *overrides]))


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with prepared data and an adapter on starter-s that changes what the base says. Only read it."""
    import torch
    from peft import LoraConfig, get_peft_model

    from pipeline.models.chat import load_tokenizer
    from pipeline.models.loading import load_base
    from pipeline.stages.prepare import prepare

    folder = tmp_path_factory.mktemp("tuned")
    lines = (REPO / "starter/chats.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "chats.jsonl").write_text("".join(lines[:60]), encoding="utf-8")
    questions = (REPO / "starter/questions.jsonl").read_bytes()
    (folder / "questions.jsonl").write_bytes(questions)
    general = (REPO / "starter/general/statements.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "general.jsonl").write_text("".join(general[:4]), encoding="utf-8")
    config = load(compose(REPO / "conf", SETTINGS))
    prepare(config.data, folder, folder, config.evaluate.general)

    torch.manual_seed(0)
    base = load_base(str(STARTER), None, "cpu", torch.float32)
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    adapter = folder / "models/adapter"
    model.save_pretrained(adapter)
    load_tokenizer(config.model).save_pretrained(adapter)
    lineage = {"fingerprint": "0123456789abcdef", "mlflow_run": None, "base": asdict(config.model)}
    (adapter / "lineage.json").write_text(json.dumps(lineage))
    return folder


@pytest.fixture(scope="session")
def exported(tuned: Path, tuned_config: Callable[..., Config]) -> Path:
    """The same folder with models/gguf."""
    from pipeline.stages import export

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tuned)
        patch.setenv("PYTHONPATH", str(REPO))  # the converter is a process of its own
        export.run(tuned_config(), tuned)
    return tuned


@pytest.fixture(scope="session")
def measured(exported: Path, tuned_config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same models and reports/measurements.json. Only read it."""
    from pipeline.stages import evaluate

    folder = tmp_path_factory.mktemp("measured")
    for name in ("models", "data"):
        shutil.copytree(exported / name, folder / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        evaluate.run(tuned_config(), folder)
    return folder


@pytest.fixture(scope="session")
def starter() -> Path:
    """The smallest starter model."""
    return STARTER


@pytest.fixture(scope="session")
def ggufs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """starter-s as GGUF by type: unquantized by the converter, the others made of that."""
    from pipeline.gguf.convert import convert
    from pipeline.gguf.quantize import quantize

    folder = tmp_path_factory.mktemp("gguf")
    files = {kind: folder / f"starter-s-{kind}.gguf" for kind in ("F32", "F16", "Q8_0", "Q4_K_M")}
    convert(STARTER, files["F32"], "F32")
    for kind in ("F16", "Q8_0", "Q4_K_M"):
        quantize(files["F32"], files[kind], kind)
    return files
