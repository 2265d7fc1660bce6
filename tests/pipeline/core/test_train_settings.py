"""Settings of a training that leave one another without effect, refused before anything is read."""

from pathlib import Path

import pytest
import torch
from transformers import get_scheduler

from common.errors import UserError
from pipeline.core.composition import compose
from pipeline.core.config import Config, load
from pipeline.training.session import schedule

REPO = Path(__file__).parents[3]
WSD = "train.scheduler=warmup_stable_decay"


def config(*overrides: str) -> Config:
    return load(compose(REPO / "conf", ["model=llama-3.2-1b", *overrides]))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["train.scheduler=constant", "train.min_lr_ratio=0.1"],
            "train.min_lr_ratio is 0.1, and train.scheduler=",
        ),
        (["train.scheduler=inverse_sqrt", "train.min_lr_ratio=0.1"], "train.min_lr_ratio is 0.1, and train.scheduler="),
        (["train.decay_ratio=0.1"], "train.decay_ratio is 0.1, and train.scheduler=linear has no such part"),
        ([WSD], "train.scheduler=warmup_stable_decay needs train.decay_ratio"),
        (
            [WSD, "train.decay_ratio=0.8", "train.warmup_ratio=0.3"],
            "train.warmup_ratio 0.3 and train.decay_ratio 0.8",
        ),
        (
            ["train=kto", "train.preference.nll_weight=1"],
            "train.preference.nll_weight is 1, and only dpo has use for it",
        ),
        (["train=full", "train.lora.dora=true"], "train.lora.dora is true, and train.method=full has no adapter"),
        (["train=full", "train.lora.rslora=true"], "train.lora.rslora is true, and train.method=full has no adapter"),
        (
            ["train=full", "train.lora.modules_to_save=[norm]"],
            "train.lora.modules_to_save is ['norm'], and",
        ),
        (["train=full", "export.adapter=true"], "export.adapter is true, and train.method=full leaves no adapter"),
        (["train.lora.dora=true", "export.adapter=true"], "export.adapter is true, and train.lora.dora=true leaves no"),
        (
            ["train.lora.modules_to_save=[norm]", "export.adapter=true"],
            "export.adapter is true, and train.lora.modules_to_save leaves no",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused_in_one_line(overrides: list[str], said: str) -> None:
    with pytest.raises(UserError) as raised:
        config(*overrides)
    assert str(raised.value).startswith(said)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("scheduler", ["linear", "cosine"])
def test_without_a_minimum_a_schedule_keeps_its_name(scheduler: str) -> None:
    assert schedule(config(f"train.scheduler={scheduler}").train) == {"lr_scheduler_type": scheduler}


@pytest.mark.parametrize(
    ("scheduler", "least", "halfway"),
    [("linear", 0.2, 0.6), ("cosine", 0.2, 0.6), ("linear", 0, 0.5), ("cosine", 0, 0.5)],
)
def test_a_rate_falls_to_its_minimum(scheduler: str, least: float, halfway: float) -> None:
    rate = 3e-4
    chosen = schedule(config(f"train.lr={rate}", f"train.scheduler={scheduler}", f"train.min_lr_ratio={least}").train)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    kwargs = chosen.get("lr_scheduler_kwargs")
    course = get_scheduler(chosen["lr_scheduler_type"], optimizer, 0, 100, scheduler_specific_kwargs=kwargs)
    rates = []
    for _ in range(101):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        course.step()
    assert rates[0] == pytest.approx(rate)
    assert rates[50] == pytest.approx(halfway * rate)
    assert rates[100] == pytest.approx(least * rate, abs=1e-12)
