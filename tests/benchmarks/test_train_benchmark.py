"""benchmarks/train.py: its inputs, what it repeats and what not, how it counts; no training."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, load_from_disk
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer, LlamaForCausalLM
from trl import SFTConfig, SFTTrainer, pack_dataset
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from benchmarks import inputs, peers, train, train_table

SETUP = {"card": None, "cards": 0, "driver": None, "packages": {"torch": "2.13.0"}}


@pytest.fixture
def bench(tmp_path: Path) -> train.Bench:
    bench = train.Bench("tiny", 12, tmp_path)
    bench.rows.mkdir()
    bench.weights.mkdir(parents=True)
    bench.runs.mkdir()
    (bench.weights / "parameters.json").write_text('{"layers": 1000, "head": 500, "adapter": 100}')
    facts = {"conversations": 768, "mean_tokens": 416.2, "longest": 2048, "supervised_share": 0.6}
    (bench.rows / "rows.json").write_text(json.dumps(facts))
    return bench


@pytest.fixture
def keep(bench: train.Bench) -> Callable[..., None]:
    """Puts figures where a run would."""
    return lambda name, **figures: (bench.runs / f"{name}.json").write_text(json.dumps(figures))


def test_rows_have_the_lengths_that_were_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "LENGTH_SIGMA", 0.0)
    inputs.make_rows(tmp_path / "rows", 200)
    rows = load_from_disk(str(tmp_path / "rows" / peers.TOKENIZED))
    drawn = int(math.exp(inputs.LENGTH_MU))
    assert len(rows) == 200
    assert all(drawn - 10 <= len(ids) <= drawn + 2 for ids in rows["input_ids"])


def test_rows_are_distinct_and_learnt_in_part(tmp_path: Path) -> None:
    inputs.make_rows(tmp_path / "rows", 400)
    facts = json.loads((tmp_path / "rows/rows.json").read_text())
    report = json.loads((tmp_path / "rows/reports/prepare.json").read_text())
    assert facts["conversations"] == 400
    assert report["duplicates"] == 0
    assert report["splits"]["validation"]["rows"] == inputs.VALIDATION
    assert facts["supervised_share"] == pytest.approx(inputs.SAID, abs=0.01)
    assert 380 < facts["mean_tokens"] < 480
    assert facts["longest"] <= inputs.MAX_LENGTH


def test_parameters_are_those_of_model_and_adapter() -> None:
    with torch.device("meta"):
        model = LlamaForCausalLM(inputs.llama("tiny"))
    counts = inputs.parameters(model)
    assert counts["layers"] + counts["head"] == model.num_parameters()
    lora = LoraConfig(r=peers.RANK, target_modules=peers.PROJECTIONS, task_type="CAUSAL_LM")
    assert counts["adapter"] == get_peft_model(model, lora).get_nb_trainable_parameters()[0]


def test_a_run_that_is_there_is_not_repeated(
    bench: train.Bench, keep: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep("ours", wall_seconds=5.0)
    begun: list[str] = []
    monkeypatch.setattr(train, "measure", lambda _, name, __: begun.append(name) or {"wall_seconds": 1.0})
    for _ in range(2):
        train.run_missing(bench, ["limit", "ours", "ours-8"], time.monotonic() + 60)
    assert begun == ["limit", "ours-8"]


def test_ours_is_measured_again_when_its_code_has_changed(bench: train.Bench, keep: Callable[..., None]) -> None:
    keep("ours", code=train.code())
    keep("ours-8", code="another")
    keep("trl-best")
    assert [bench.result(name) is None for name in ("ours", "ours-8", "trl-best")] == [False, True, False]


def test_none_is_begun_that_would_hardly_end(
    bench: train.Bench,
    keep: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    keep("ours", wall_seconds=100.0)
    monkeypatch.setattr(train, "measure", lambda *_: {"wall_seconds": 1.0})
    train.run_missing(bench, ["ours-8", "ours-lean", "trl-best"], time.monotonic() + 90)
    assert bench.result("ours-8") == {"wall_seconds": 1.0}  # else no command would get further
    assert bench.result("ours-lean") is None
    assert "not begun, for lack of time: ours-lean, trl-best;" in capsys.readouterr().out


def test_a_run_that_was_cut_off_is_begun_again_unless_it_had_all_the_time(
    bench: train.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "measure", lambda _, name, __: None if name == "ours" else {"wall_seconds": 1.0})
    train.run_missing(bench, ["limit", "ours"], time.monotonic() + 60)
    assert bench.result("ours") is None
    train.run_missing(bench, ["limit", "ours"], time.monotonic() + 60)
    assert "not enough" in (bench.result("ours") or {})["failed"]


def test_another_card_is_refused(bench: train.Bench) -> None:
    train.check_setup(bench, SETUP)
    train.check_setup(bench, {**SETUP, "cards": 4})
    with pytest.raises(SystemExit, match="another card"):
        train.check_setup(bench, {**SETUP, "card": "NVIDIA L4"})


def test_a_process_is_killed_at_the_deadline(tmp_path: Path) -> None:
    start = time.monotonic()
    sleeper = ["timeit", "-n1", "-r1", "import time; time.sleep(60)"]
    assert train.execute(sleeper, tmp_path, tmp_path / "log", start) is None
    assert time.monotonic() - start < 10
    assert train.execute(["timeit", "-n1", "-r1", "pass"], tmp_path, tmp_path / "log", start + 60) == 0


def test_what_the_stage_refuses_is_one_line(bench: train.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(train.RUNS, "ours", train.Ours("odd", ("train.nonsense=1",)))
    figures = train.measure(bench, "ours", time.monotonic() + 60)
    assert figures is not None
    assert figures["failed"].startswith("train: train.nonsense is not a key of the configuration; ")


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("step 1\ntrain: the GPU is too small\nhint\n", "train: the GPU is too small"),
        ("Traceback\n  raise\ntorch.OutOfMemoryError: CUDA out of memory\nSet this\n", "torch.OutOfMemoryError: CUDA"),
        ("loading\n\n", "loading"),
        ("", "it said nothing"),
    ],
)
def test_a_failure_has_a_reason(tmp_path: Path, log: str, expected: str) -> None:
    (tmp_path / "log").write_text(log)
    assert train.reason(tmp_path / "log").startswith(expected)


def test_the_table_has_every_run(bench: train.Bench, keep: Callable[..., None]) -> None:
    keep("limit", tflops=0.5, size=1024, dtype="float32", wall_seconds=2.0)
    figures: dict[str, Any] = {"startup_seconds": 9.4, "outside_share": 0.125, "note": "slow | steady"}
    keep("ours", tokens_per_second=5e7, peak_memory_gib=12.345, wall_seconds=9.0, **figures)
    keep("ours-8", failed="train: no", wall_seconds=1.0)
    report = train.collect(bench, SETUP)
    # 4 x 1,000 + 4 x 500 x 0.6 + 6 x 100 operations a token
    assert report["operations_a_token"] == 5800
    assert report["runs"]["ours"]["limit_share"] == pytest.approx(5e7 * 5800 / 0.5e12)
    lines = train_table.table(report).splitlines()
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in lines if line.startswith("| ")}
    assert list(rows) == ["name", *train.RUNS]
    assert "| 50,000,000 | 12.35 | 58.0% | 9 | 12.5% of the time between updates; slow" in rows["ours"]
    assert rows["ours-8"].endswith("| - | - | - | - | failed: train: no |")
    assert rows["ours-eager"].endswith("| not run: not yet |")
    assert rows["trl-best"].endswith("| not run: it needs a GPU |")
    on_gpu = {**SETUP, "card": "NVIDIA L4", "cards": 1, "driver": "1"}
    assert train.lacking(train.RUNS["unsloth-best"].needs, on_gpu) == "unsloth not installed"


def test_late_compilations_do_not_count() -> None:
    steady = [(float(i), 0.5, 100 + i) for i in range(10)]
    assert peers.steady_rate(steady) == pytest.approx(1045 / 5)
    assert peers.steady_rate([*steady, (10.0, 30.0, 100)]) == pytest.approx(1045 / 5)
    assert peers.outside_share([(0.0, 0.5, 1)] * (peers.WARM_UP - 1) + steady) == pytest.approx(0.5)


@pytest.mark.parametrize("apart", [True, False])
def test_whether_packed_conversations_see_their_neighbours(tmp_path: Path, apart: bool) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(inputs.llama("tiny"))
    ids = [torch.randint(10, 2000, (length,)).tolist() for length in (40, 20, 30, 10)]
    rows = pack_dataset(Dataset.from_dict({"input_ids": ids, "labels": ids}), 60, strategy="bfd")
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            bf16=False,
            per_device_train_batch_size=2,
            report_to="none",
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(inputs.STARTER),
        data_collator=peers.packed_collator(2) if apart else DataCollatorForLanguageModeling(2),
    )
    effect = peers.neighbour_effect(trainer)
    assert (effect == 0) if apart else (effect > 1e-5)
