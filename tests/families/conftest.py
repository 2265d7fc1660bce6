"""Each family's tiny model, taken through every stage once for all tests of it."""

import gc
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conversations import AWKWARD, Chat, crossed
from families import FAMILIES, write_model
from made import Made
from packages import NotFetched

from pipeline.core.composition import compose
from pipeline.core.config import QUANTIZATIONS, Config, load

REPO = Path(__file__).parents[2]
# Those that `make test` takes: tokenizers of both kinds, reasoning, windows, and each way of stretching positions.
SHORT = ("llama-3.2", "llama-2", "qwen-3", "gemma-3", "phi-3.5", "gpt-oss")
# A few rows and short ones: over a vocabulary of 262,144 tokens the logits of 128 take 134 MB.
SETTINGS = [
    "data.files=[chats.jsonl]",
    "data.questions=questions.jsonl",
    "data.validation=2",
    "data.test=2",
    "tracking=none",
    "runtime.device=cpu",
    "train.max_steps=5",
    "train.effective_batch=2",
    "train.max_length=512",
    "export.base=[]",
    "export.verify_rows=2",
    "evaluate.max_rows=2",
    "evaluate.max_questions=2",
    "evaluate.prompts=[What is 5 + 6?]",
    "evaluate.max_new_tokens=4",
    *(f"++evaluate.general.{name}=null" for name in ("texts", "instructions", "statements", "transcripts")),
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="export the families as every type, and read more chats")


@pytest.fixture(scope="session")
def types(pytestconfig: pytest.Config) -> list[str]:
    """The types that are exported."""
    return list(QUANTIZATIONS) if pytestconfig.getoption("--long", False) else ["F16", "Q8_0", "Q4_K_M"]


@pytest.fixture(scope="session")
def chats(pytestconfig: pytest.Config) -> dict[str, Chat]:
    """Conversations that are read."""
    return AWKWARD | (crossed() if pytestconfig.getoption("--long", False) else {})


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with data alone, which is the same for all."""
    from pipeline.stages.prepare import prepare

    folder = tmp_path_factory.mktemp("prepared")
    for name, most in (("chats", 24), ("questions", 2)):
        lines = (REPO / f"starter/{name}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / f"{name}.jsonl").write_text("".join(lines[:most]), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HF_DATASETS_CACHE", str(folder / "datasets"))
        prepare(load(compose(REPO / "conf", SETTINGS)).data, folder, folder)
    return folder


@pytest.fixture(scope="module")
def uncollected() -> Iterator[None]:
    """No collection of garbage, which would look through hundreds of thousands of tokens again and again."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(
    scope="module", params=[name if name in SHORT else pytest.param(name, marks=pytest.mark.long) for name in FAMILIES]
)
def made(
    request: pytest.FixtureRequest,
    types: list[str],
    prepared: Path,
    tmp_path_factory: pytest.TempPathFactory,
    uncollected: None,
) -> Iterator[Made]:
    """A family's model, trained, exported and evaluated; its folder is the working folder."""
    folder = tmp_path_factory.mktemp(request.param)
    try:
        base = write_model(request.param, folder / "base")
    except NotFetched as reason:
        pytest.skip(str(reason))
    project = shutil.copytree(prepared, folder / "project")
    preset = FAMILIES[request.param].preset
    own = [f"model={preset}", f"model.name={request.param}", f"model.path={base}", "model.chat_template=null"]
    own += [f"train.lr={FAMILIES[request.param].rate}"]
    chosen = [*own, *SETTINGS, f"export.quantizations=[{','.join(types)}]"]
    if not request.config.getoption("--long", False):  # the export itself follows
        chosen.append("train.check_export=false")
    config = load(compose(REPO / "conf", [*chosen, f"runtime.checkpoint_root={folder / 'checkpoints'}"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        patch.setenv("PYTHONPATH", str(REPO))  # the converter is a process of its own
        run_stages(config, project)
        yield Made(request.param, base, project, config)
    shutil.rmtree(folder)


def run_stages(config: Config, project: Path) -> None:
    """Trains, exports, evaluates and reports in the working folder, in this process."""
    from pipeline.stages import evaluate, export, report, train

    stages: list[Callable[[Config, Path], object]] = [train.run, export.run, evaluate.run, report.run]
    for stage in stages:
        stage(config, project)
