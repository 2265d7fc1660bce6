"""What trainings of one process share, and that each gives what it gives alone."""

import gc
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import FAMILIES, made
from chats import CHATS, STARTER_S
from transformers import PreTrainedModel

from common.errors import Interrupted, UserError
from common.files import sha256
from pipeline.core.composition import compose
from pipeline.core.config import load
from pipeline.core.paths import PREPARED
from pipeline.models import loading
from pipeline.models.loading import digest, load_base
from pipeline.stages import train
from pipeline.stages.prepare import prepare
from pipeline.training import trainer
from pipeline.training.engines.trl import weights_stay, with_adapter
from pipeline.training.interruption import StopWhenAsked
from pipeline.training.lora import fuse
from pipeline.training.loss import check_loss, learn_as_made, learn_from_supervised
from pipeline.training.rows import TOKENIZED
from pipeline.training.session import CONVERSATIONS, OWN_LOSS
from pipeline.training.shared import TOKENIZER, TRAININGS, WEIGHTS, Kept, shared_base

REPO = Path(__file__).parents[3]
STARTER = REPO / "starter/models/starter-s"
SETTINGS = [
    *STARTER_S,
    "train.lora.r=4",
    "train.batch_size=4",
    "train.effective_batch=16",
    "train.max_steps=4",
    "train.save_steps=2",
    "train.logging_steps=2",
    "train.max_length=128",
    "train.check_export=false",
]
TRIALS = {
    "plain": [],
    "other": [
        *("train.lora.r=8", "train.lora.target_modules=[q_proj,down_proj]", "train.lora.dropout=0.1"),
        *("train.neftune_alpha=5", "train.scheduler=cosine", "train.max_length=64", "train.loss_on=last"),
        "train.max_truncated=1",
    ],
}
CONFIG = "adapter_config.json"
DIVERGING = ["train.weight_decay=1e30", "train.warmup_ratio=0", "train.max_grad_norm=1e30"]
TIMES = ("seconds", "per_second", "outside_share")  # ends of the names of figures that no two trainings have alike

Trained = Callable[..., Path]


def settings(out: Path, *overrides: str) -> list[str]:
    return [*SETTINGS, f"runtime.checkpoint_root={out}/checkpoints", *overrides]


def given(out: Path) -> dict[str, Any]:
    """All that a training has given, but how long it took: digests of its files, and its figures."""
    figures = json.loads((out / "reports/train.json").read_text())
    files = {path.name: sha256(path) for path in (out / "models/adapter").iterdir()}
    adapter = json.loads((out / "models/adapter/adapter_config.json").read_text()) if CONFIG in files else {}
    return {
        **{key: value for key, value in figures.items() if not key.endswith(TIMES)},
        **files,
        CONFIG: {**adapter, "target_modules": sorted(adapter.get("target_modules", []))},  # a set, in any order
        "loss.csv": (out / "reports/loss.csv").read_text(),
    }


@pytest.fixture
def trained(project: Path, tmp_path: Path) -> Trained:
    """Trains in this process, each time from the start; returns where to."""
    count = iter(range(100))

    def run(*overrides: str) -> Path:
        out = tmp_path / str(next(count))
        train.run(load(compose(REPO / "conf", settings(out, *overrides))), out)
        return out

    return run


@pytest.fixture(scope="module")
def alone(project: Path) -> dict[str, dict[str, Any]]:
    """What each trial gives in a process of its own."""
    found = {}
    for name, overrides in TRIALS.items():
        out = project / f"alone-{name}"
        command = [sys.executable, "-m", "pipeline.stages.train", f"hydra.run.dir={out}", *settings(out, *overrides)]
        environment = os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found[name] = given(out)
    return found


def test_each_training_gives_what_it_gives_alone_whatever_ran_before_it(
    trained: Trained, alone: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert given(trained()) == alone["plain"]
    assert given(trained(*TRIALS["other"])) == alone["other"]
    with pytest.raises(UserError, match=r"^training diverged"):
        trained(*DIVERGING)
    assert given(trained()) == alone["plain"]
    with monkeypatch.context() as patch:
        patch.setattr(StopWhenAsked, "on_step_begin", asked_to_stop)
        with pytest.raises(Interrupted):
            trained(*TRIALS["other"])
    assert given(trained(*TRIALS["other"])) == alone["other"]
    trained("train.method=full")
    trained("train.lora.modules_to_save=[embed_tokens]")
    assert given(trained()) == alone["plain"]
    assert given(trained()) == alone["plain"]


def test_trainings_that_differ_in_their_course_alone_have_their_loss_held_against_the_models_own_once(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[bool] = []

    def check(*arguments: Any) -> bool:
        checked.append(check_loss(*arguments))
        return checked[-1]

    monkeypatch.setattr(trainer, "check_loss", check)
    OWN_LOSS.drop()
    for overrides in (["train.lr=1e-3"], ["train.lr=2e-3", "train.scheduler=cosine"], ["train.lora.r=2"]):
        trained("train.max_steps=1", *overrides)
    assert checked == [True, True]


def test_each_training_of_a_model_with_a_loss_of_its_own_keeps_that(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trainer, "check_loss", lambda model, *_: learn_as_made(model))  # none of ours is near enough
    OWN_LOSS.drop()
    for rate in ("1e-3", "2e-3"):
        trained("train.max_steps=1", f"train.lr={rate}")
    OWN_LOSS.drop()
    assert caplog.text.count("learns by its own loss") == 2


def test_one_that_goes_on_after_others_gives_what_one_without_a_break_gives(
    trained: Trained, alone: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    root = f"runtime.checkpoint_root={tmp_path}/trial"
    trained(*TRIALS["other"], root, "train.stop_step=2")
    trained()
    found = given(trained(*TRIALS["other"], root))
    assert found.pop("sessions") == 2
    assert found == {key: value for key, value in alone["other"].items() if key != "sessions"}


def asked_to_stop(self: StopWhenAsked, args: Any, state: Any, control: Any, **_: object) -> None:
    self.interruption.reason = "SIGTERM" if state.global_step == 2 else None


def alive() -> set[int]:
    """The models in memory that are not kept."""
    gc.collect()
    kept = set(WEIGHTS.made.model.modules()) if WEIGHTS.made else set()
    return {id(thing) for thing in gc.get_objects() if isinstance(thing, PreTrainedModel) and thing not in kept}


def kept() -> list[object]:
    splits = [of for path, of in TOKENIZED.items() if path.parent == PREPARED]  # others' may be of another training
    return [TOKENIZER.made, WEIGHTS.made, *(of.made for of in (*splits, *CONVERSATIONS.values()))]


def test_a_training_leaves_no_model_behind_also_where_it_failed_and_its_error_is_kept(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = alive()
    trained()
    with pytest.raises(UserError) as diverged:
        trained(*DIVERGING)
    monkeypatch.setattr(StopWhenAsked, "on_step_begin", asked_to_stop)
    with pytest.raises(Interrupted) as interrupted:
        trained()
    assert alive() <= before
    assert diverged.value.__traceback__
    assert interrupted.value.__traceback__


def test_the_next_training_finds_what_both_read_and_tells_when_it_began_itself(trained: Trained) -> None:
    trained()
    first = kept()
    assert None not in first
    began = time.time()
    out = trained("train.lr=1e-3", "train.lora.r=8", "train.lora.dropout=0.1")
    assert all(old is new for old, new in zip(first, kept(), strict=True))
    assert TRAININGS.began >= began
    assert json.loads((out / "reports/train.json").read_text())["startup_seconds"] <= time.time() - began


def test_what_is_kept_goes_when_a_file_it_was_made_from_has_changed(
    project: Path, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base"
    shutil.copytree(STARTER, base)
    trained(f"model.path={base}")
    tokenizer, weights, rows, *_ = kept()
    (base / "generation_config.json").write_text("{}")
    trained(f"model.path={base}")
    assert kept()[0] is not tokenizer
    assert kept()[1] is not weights
    assert kept()[2] is not rows
    rows = kept()[2:]
    prepared = tmp_path / "other"
    lines = (REPO / "starter/chats.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    prepared.mkdir()
    (prepared / "chats.jsonl").write_text("".join(lines[120:240]), encoding="utf-8")
    monkeypatch.chdir(prepared)
    prepare(load(compose(REPO / "conf", CHATS)).data, prepared, prepared)
    trained(f"model.path={base}")
    assert not any(old is new for old, new in zip(rows, kept()[2:], strict=True))


@pytest.mark.parametrize("override", ["train.method=full", "train.lora.modules_to_save=[embed_tokens]"])
def test_no_weights_are_kept_where_some_of_them_learn(trained: Trained, override: str) -> None:
    trained()
    assert WEIGHTS.made
    trained(override)
    assert WEIGHTS.made is None


@pytest.mark.parametrize("overrides", [["train.frozen_dtype=fp8"], ["train=qlora", "model.load_in_4bit=true"]])
def test_no_weights_are_kept_that_are_more_than_their_numbers(overrides: list[str]) -> None:
    config = load(compose(REPO / "conf", settings(Path(), *overrides)))
    assert not weights_stay(config.model, config.train)


@pytest.fixture
def load_starter() -> Iterator[Callable[[], PreTrainedModel]]:
    WEIGHTS.drop()
    yield lambda: load_base(str(STARTER), None, "cpu", torch.float32)
    WEIGHTS.drop()


def test_a_base_is_other_modules_around_the_same_weights(load_starter: Callable[[], PreTrainedModel]) -> None:
    first, second = (shared_base("starter", load_starter) for _ in range(2))
    assert not set(first.modules()) & set(second.modules())
    assert not set(first.parameters()) & set(second.parameters())
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert one.data_ptr() == other.data_ptr()
    assert second.get_input_embeddings().weight is second.get_output_embeddings().weight  # they are tied
    first.requires_grad_(False)
    first.config.use_cache = False
    assert all(weight.requires_grad for weight in second.parameters())
    assert second.config.use_cache
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(first(ids).logits, second(ids).logits)


def adapted(base: PreTrainedModel, rank: int) -> torch.Tensor:
    """The gradient of an adapter of random numbers on a base, as training computes it."""
    torch.manual_seed(rank)
    model = with_adapter(base, load(compose(REPO / "conf", settings(Path(), f"train.lora.r={rank}"))).train.lora)
    learn_from_supervised(base)
    fuse(model)
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in learning:
        weight.data.normal_(std=0.1)
    ids = torch.tensor([list(range(20))])
    inputs = {"positions": torch.arange(19), "targets": ids[0, 1:], "num_items_in_batch": 19}
    loss = model(input_ids=ids, **(inputs if hasattr(base, "learns_from_supervised") else {"labels": ids})).loss
    return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, learning)])


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_learns_on_shared_weights_as_on_its_own(family: str, tmp_path: Path) -> None:
    base = made(family, tmp_path)

    def load_it() -> PreTrainedModel:
        return load_base(str(base), None, "cpu", torch.float32)

    WEIGHTS.drop()
    adapted(shared_base(family, load_it), 8)
    assert WEIGHTS.made is not None
    kept = WEIGHTS.made
    found = adapted(shared_base(family, load_it), 4)
    assert WEIGHTS.made is kept
    assert torch.equal(found, adapted(load_it(), 4))
    assert kept.untouched()
    WEIGHTS.drop()


def test_weights_that_a_training_has_written_to_are_loaded_anew(load_starter: Callable[[], PreTrainedModel]) -> None:
    first = shared_base("starter", load_starter)
    honest = first.get_input_embeddings().weight.detach().clone()
    with torch.no_grad():
        first.get_input_embeddings().weight.mul_(2)
    assert torch.equal(shared_base("starter", load_starter).get_input_embeddings().weight, honest)


def test_a_base_of_another_key_takes_the_place_of_the_one_before(load_starter: Callable[[], PreTrainedModel]) -> None:
    first = shared_base("starter", load_starter)
    second = shared_base("other", load_starter)
    assert first.get_input_embeddings().weight.data_ptr() != second.get_input_embeddings().weight.data_ptr()
    assert WEIGHTS.key == "other"


def test_a_base_is_not_kept_whose_modules_mean_themselves(load_starter: Callable[[], PreTrainedModel]) -> None:
    def hooked() -> PreTrainedModel:
        model = load_starter()
        model.get_input_embeddings().register_forward_hook(lambda *_: None)
        return model

    def replaced() -> PreTrainedModel:
        model = load_starter()
        model.forward = model.forward
        return model

    for load_it in (hooked, replaced):
        shared_base("starter", load_it)
        assert WEIGHTS.made is None


def test_a_base_is_not_kept_whose_loading_draws_random_numbers(load_starter: Callable[[], PreTrainedModel]) -> None:
    def drawing() -> PreTrainedModel:
        torch.rand(1)
        return load_starter()

    shared_base("starter", drawing)
    assert WEIGHTS.made is None


def test_what_cannot_be_made_leaves_nothing_kept() -> None:
    some: Kept[str] = Kept()
    some.get(1, lambda: "one")
    with pytest.raises(ZeroDivisionError):
        some.get(2, lambda: str(1 / 0))
    assert some.get(1, lambda: "another") == "another"


def test_layers_are_compiled_again_for_another_key_alone() -> None:
    made = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable[..., Any]:
        made.append(graph)
        return graph.forward

    class Twice(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    layer = Twice()
    layer.compile(backend=backend)
    for key in ("r 8", "r 8", "r 16"):
        TRAININGS.compile(key)
        layer(torch.ones(1, 2))
    assert len(made) == 2
    TRAININGS.compile(None)


def test_a_files_digest_is_that_of_what_it_holds_whatever_its_times_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights"
    path.write_text("before")
    assert digest(path) == sha256(path)
    path.write_text("after!")  # at once, of the same size
    assert digest(path) == sha256(path)
    monkeypatch.setattr(loading, "SETTLED", 0)  # as if it had lain there for long
    assert digest(path) == digest(path) == sha256(path)
    times = path.stat()
    time.sleep(0.02)  # a tick of the file system's clock
    path.write_text("before")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert digest(path) == sha256(path)
