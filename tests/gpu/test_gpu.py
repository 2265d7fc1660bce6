"""What only a GPU can show: every way of doing an update against a plain float32 one, and that they learn the same.

`make test-gpu` runs this, on a machine with a GPU. Tolerances: bf16 keeps 8 bits, so that a value is off by 2^-9 of
itself at most, and what has gone through a network's depth by a few times that; FP8 keeps 4 bits, and each of its
products averages over hundreds.
"""

import csv
import importlib.util
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from updates import REPO, STARTER, Learnt, adapter_that_counts, conversations, learn, settings

from common.errors import UserError
from pipeline.core.composition import compose
from pipeline.core.config import load
from pipeline.models.attention import FLASH, attend, flash, register
from pipeline.models.chat import load_tokenizer
from pipeline.stages.prepare import prepare
from pipeline.tracking.run import Run
from pipeline.training.activation_offload import ActivationOffloading
from pipeline.training.cudnn import CUDNN, cudnn, register_cudnn
from pipeline.training.engines import engine
from pipeline.training.interruption import Interruption
from pipeline.training.lora import Frozen8
from pipeline.training.plan import Plan, choose, this_card
from pipeline.training.session import Session
from pipeline.training.trainer import Trainer, compile_layers

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
CARD = this_card("cuda") if torch.cuda.is_available() else None
HAS_CUDNN = importlib.util.find_spec("cudnn") is not None
needs_cudnn = pytest.mark.skipif(not HAS_CUDNN, reason="nvidia-cudnn-frontend is not installed")
needs_unsloth = pytest.mark.skipif(importlib.util.find_spec("unsloth") is None, reason="unsloth is not installed")
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)
needs_fp8 = pytest.mark.skipif(CARD is None or CARD.capability < (8, 9), reason="the card has no FP8")
BF16_LOSS, BF16_GRADIENT = 2e-3, 3e-2
FP8_LOSS, FP8_GRADIENT = 1e-2, 0.2
DATA = ["data.files=[chats.jsonl]", "data.questions=null", "data.validation=300", "data.test=60", "data.seed=0"]


def off(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The relative distance; NaN is as far as can be."""
    distance = ((found.float() - wanted.float()).norm() / wanted.float().norm()).item()
    return math.inf if math.isnan(distance) else distance


@pytest.fixture(autouse=True)
def compile_anew() -> Iterator[None]:
    yield
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def reference() -> Learnt:
    """Float32 throughout, PEFT's own forward pass, padded rows, Transformers' own loss."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    lora = settings().train.lora
    base = AutoModelForCausalLM.from_pretrained(STARTER, dtype=torch.float32, attn_implementation="eager").cuda()
    adapter = LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules=lora.target_modules)
    model = get_peft_model(base, adapter)
    adapter_that_counts(model)
    return learn(model, conversations(packed=False), autocast=False)


def ours(
    attention: str,
    *overrides: str,
    compiled: bool = False,
    checkpointing: bool = False,
    offload: bool = False,
    rows: int = 24,
) -> Learnt:
    """By the real loading code, in bf16."""
    config = settings(*overrides)
    packed = attention in (FLASH, CUDNN)
    plan = Plan("trl", attention, packed, ())
    model = engine("trl").load(plan, config.model, config.train, "cuda")
    adapter_that_counts(model)
    if checkpointing:
        model.gradient_checkpointing_enable()
    if compiled:
        compile_layers(model)
    with ActivationOffloading(model) if offload else nullcontext():
        return learn(model, conversations(packed, plan.few_counts, rows))


def compare(found: Learnt, wanted: Learnt, loss: float, gradient: float, title: str) -> None:
    """Prints how far an update is from the reference, and holds it to the tolerances."""
    worst = max(off(found[1][name], wanted[1][name]) for name in wanted[1])
    mean = off(
        torch.cat([found[1][n].flatten() for n in wanted[1]]), torch.cat([w.flatten() for w in wanted[1].values()])
    )
    print(f"{title}: loss off by {found[0] / wanted[0] - 1:.1e}, gradients by {mean:.1e}, the worst by {worst:.1e}")
    assert found[0] == pytest.approx(wanted[0], rel=loss)
    assert found[1].keys() == wanted[1].keys()
    assert mean < gradient
    assert worst < 3 * gradient


WAYS: dict[str, Callable[[], Learnt]] = {
    "padded": lambda: ours("sdpa"),
    "padded, in micro-batches of 5": lambda: ours("sdpa", rows=5),
    "padded, compiled": lambda: ours("sdpa", compiled=True),
    "dropout of almost nothing: PEFT's own": lambda: ours("sdpa", "train.lora.dropout=1e-9"),
    "packed": lambda: ours(FLASH),
    "packed, in micro-batches of 2 x 256": lambda: ours(FLASH, rows=2),
    "packed, compiled": lambda: ours(FLASH, compiled=True),
    "packed, compiled, recomputed": lambda: ours(FLASH, compiled=True, checkpointing=True),
    "packed, compiled, recomputed, offloaded": lambda: ours(FLASH, compiled=True, checkpointing=True, offload=True),
}
CUDNN_WAYS: dict[str, Callable[[], Learnt]] = {
    "cudnn": lambda: ours(CUDNN),
    "cudnn, compiled": lambda: ours(CUDNN, compiled=True),
}
FP8_WAYS: dict[str, Callable[[], Learnt]] = {
    "fp8": lambda: ours(FLASH, "train.frozen_dtype=fp8"),
    "fp8, compiled": lambda: ours(FLASH, "train.frozen_dtype=fp8", compiled=True),
}


@pytest.mark.parametrize("way", WAYS)
def test_an_update_is_that_of_plain_float32(reference: Learnt, way: str) -> None:
    compare(WAYS[way](), reference, BF16_LOSS, BF16_GRADIENT, way)


@needs_cudnn
@pytest.mark.parametrize("way", CUDNN_WAYS)
def test_an_update_by_cudnn_is_that_of_plain_float32(reference: Learnt, way: str) -> None:
    compare(CUDNN_WAYS[way](), reference, BF16_LOSS, BF16_GRADIENT, way)


@needs_fp8
@pytest.mark.parametrize("way", FP8_WAYS)
def test_an_update_on_a_base_in_fp8_is_off_by_its_bits(reference: Learnt, way: str) -> None:
    compare(FP8_WAYS[way](), reference, FP8_LOSS, FP8_GRADIENT, way)


@needs_bitsandbytes
@pytest.mark.parametrize("compiled", [False, True])
def test_an_update_on_a_base_in_4_bit_is_that_of_peft_and_bitsandbytes(compiled: bool) -> None:
    four_bit = ("train=qlora", "model.load_in_4bit=true")
    wanted = ours("sdpa", *four_bit, "train.lora.dropout=1e-9")
    found = ours(FLASH, *four_bit, compiled=compiled)
    compare(found, wanted, BF16_LOSS, 2 * BF16_GRADIENT, f"4 bit, {'' if compiled else 'not '}compiled")


@needs_unsloth
def test_an_update_by_unsloth_is_that_of_plain_float32(reference: Learnt, tmp_path: Path) -> None:
    file = tmp_path / "unsloth.pt"
    subprocess.run([sys.executable, Path(__file__).parent / "updates.py", file], check=True, cwd=tmp_path)
    compare(torch.load(file), reference, BF16_LOSS, BF16_GRADIENT, "unsloth")


@needs_fp8
def test_a_product_in_fp8_is_that_of_float32() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(512, 1024, bias=False, device="cuda", dtype=torch.bfloat16)
    weight, x = layer.weight.data.clone().float(), torch.randn(300, 512, device="cuda", dtype=torch.bfloat16)
    dy = torch.randn(300, 1024, device="cuda", dtype=torch.bfloat16)
    frozen = Frozen8(layer)
    forward = frozen.add_forward(torch.zeros(300, 1024, device="cuda", dtype=torch.bfloat16), x)
    backward = frozen.add_backward(torch.zeros(300, 512, device="cuda", dtype=torch.bfloat16), dy)
    assert off(forward, x.float() @ weight.t()) < 0.05
    assert off(backward, dy.float() @ weight) < 0.05


@pytest.mark.parametrize(("heads", "size"), [(8, 64), (6, 128)])
@pytest.mark.parametrize("window", [None, 100])
@pytest.mark.parametrize("name", [FLASH, pytest.param(CUDNN, marks=needs_cudnn)])
def test_each_conversation_attends_to_itself_alone(name: str, window: int | None, heads: int, size: int) -> None:
    register_cudnn() if name == CUDNN else register(FLASH)
    torch.manual_seed(0)
    starts = torch.tensor([0, 7, 300, 301, 812, 1024], dtype=torch.int32, device="cuda")
    shapes = ((1, heads, 1024, size), (1, 2, 1024, size), (1, 2, 1024, size))
    inputs = [torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True) for shape in shapes]
    grown = torch.randn(1, 1024, heads, size, device="cuda", dtype=torch.bfloat16)
    kernel = {FLASH: flash, CUDNN: cudnn}[name]
    settings = {"cu_seq_lens_q": starts, "max_length_q": 1024, "sliding_window": window}
    found, _ = attend(torch.nn.Identity(), *inputs, None, kernel=kernel, **settings)
    gradients = torch.autograd.grad(found, inputs, grown)
    exact = [tensor.detach().float().requires_grad_() for tensor in inputs]
    document = torch.bucketize(torch.arange(1024, device="cuda"), starts[1:].long(), right=True)
    at = torch.arange(1024, device="cuda")
    mask = (document[:, None] == document[None]) & (at[:, None] >= at[None])
    if window:
        mask &= at[:, None] - at[None] < window
    query, key, value = exact
    wide = [tensor.repeat_interleave(heads // 2, 1) for tensor in (key, value)]
    wanted = torch.nn.functional.scaled_dot_product_attention(query, *wide, attn_mask=mask).transpose(1, 2)
    assert off(found, wanted) < 1e-2
    for ours, theirs in zip(gradients, torch.autograd.grad(wanted, exact, grown.float()), strict=True):
        assert off(ours, theirs) < 1e-2


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter's chats, prepared."""
    folder = tmp_path_factory.mktemp("starter")
    lines = (REPO / "starter/chats.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "chats.jsonl").write_text("".join(lines), encoding="utf-8")
    prepare(load(compose(REPO / "conf", DATA)).data, folder, folder)
    return folder


def curve(project: Path, name: str, *overrides: str) -> tuple[list[float], float, dict[str, Any]]:
    """Training losses, the last validation loss and the report of 200 updates through the real stage."""
    command = [
        sys.executable,
        "-m",
        "pipeline.stages.train",
        "tracking=none",
        "model=starter-m",
        f"model.path={STARTER}",
        *DATA,
    ]
    command += ["train.max_steps=200", "train.eval_steps=200", "train.save_steps=200", "train.logging_steps=20"]
    command += ["train.lr=1e-3", f"hydra.run.dir={project / name}", f"runtime.checkpoint_root={project / name}-ck"]
    done = subprocess.run([*command, *overrides], cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    with (project / name / "reports/loss.csv").open(newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file) if row["split"] == "train"]
    report = json.loads((project / name / "reports/train.json").read_text(encoding="utf-8"))
    return losses, report["validation_loss"], report


@pytest.fixture(scope="module")
def plain(project: Path) -> tuple[list[float], float, dict[str, Any]]:
    """As plain as it gets on a GPU."""
    return curve(project, "plain", "train.engine=trl", "train.attention=sdpa", "train.compile=false")


CURVES = {
    "flash, compiled": (["train.engine=trl", "train.attention=flash", "train.compile=true"], 5e-3),
    "as chosen": ([], 5e-3),
    "cudnn": (["train.engine=trl", "train.attention=cudnn"], 5e-3),
    "fp8": (["train.engine=trl", "train.frozen_dtype=fp8", "train.compile=true"], 1e-2),
    "unsloth": (["train.engine=unsloth"], 5e-3),
}


@pytest.mark.parametrize("name", CURVES)
def test_learning_curves_lie_on_one_another(project: Path, plain: tuple[list[float], float, dict], name: str) -> None:
    """Rounding alone separates two trainings; over 200 updates it stays within half a percent (FP8: one)."""
    overrides, tolerance = CURVES[name]
    lacking = [p for p, there in (("cudnn", HAS_CUDNN), ("unsloth", needs_unsloth.args[0] is False)) if not there]
    if any(package in name for package in lacking) or (name == "fp8" and needs_fp8.args[0]):
        pytest.skip(f"{name} cannot run here")
    losses, validation, report = curve(project, name.split(",")[0].replace(" ", "-"), *overrides)
    wanted, wanted_validation, _ = plain
    worst = max(abs(a / b - 1) for a, b in zip(losses, wanted, strict=True))
    print(
        f"{name}: {report['engine']}, {report['attention']}: validation {validation:.5f}, not {wanted_validation:.5f};"
        f" training losses off by {worst:.1e} at most"
    )
    assert validation == pytest.approx(wanted_validation, rel=tolerance)
    assert worst < 5 * tolerance


def test_a_broken_update_is_left_out_and_ends_the_training(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings("train.max_steps=8", "train.save_steps=2", "train.engine=trl")
    honest = Trainer.compute_loss
    trainers: list[Trainer] = []

    def broken(self: Trainer, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = honest(self, *args, **kwargs)
        trainers.append(self)
        return loss * math.nan if self.state.global_step == 4 else loss

    monkeypatch.setattr(Trainer, "compute_loss", broken)
    monkeypatch.chdir(project)
    folder = project / "broken"
    folder.mkdir()
    job = Session(config, load_tokenizer(config.model), choose(config.train, config.model, CARD, 64), "cuda", folder)
    with pytest.raises(UserError, match=r"training diverged at step 5: .*checkpoint is that of step 4"):
        job.train(None, Run(), Interruption())
    assert all(parameter.isfinite().all() for parameter in trainers[-1].trained_model.parameters())
