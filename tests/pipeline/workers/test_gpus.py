"""Which GPU a training takes, with locks as processes have them and the cards' names as NVML gives them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import MachineError
from pipeline.core.composition import compose
from pipeline.core.config import RuntimeSettings, load
from pipeline.workers import gpus
from pipeline.workers.gpus import SEEN, VISIBLE, Gpu, claim_gpu, claimed, visible_gpus

REPO = Path(__file__).parents[3]
CARDS = ("GPU-aa11", "GPU-ab22", "GPU-cc33")


def runtime(**changes: object) -> RuntimeSettings:
    return load(compose(REPO / "conf", [f"runtime.{key}={value}" for key, value in changes.items()])).runtime


@pytest.mark.parametrize(
    ("setting", "seen"),
    [
        (None, "0 1 2"),
        ("2,0", "2 0"),
        (" 1 , 2", "1 2"),
        ("GPU-cc33,1", "GPU-cc33 1"),
        ("GPU-cc", "GPU-cc"),
        ("GPU-a", ""),  # two begin so
        ("0,7,1", "0"),
        ("", ""),
        ("-1", ""),
        ("NoDevFiles", ""),
        ("MIG-1/2/3", ""),
    ],
)
def test_a_process_sees_what_cuda_would_show_it(setting: str | None, seen: str) -> None:
    assert [gpu.entry for gpu in visible_gpus(setting, CARDS)] == seen.split()


def test_an_index_and_a_name_of_one_card_are_the_same_claim() -> None:
    assert visible_gpus("1", CARDS)[0].uuid == visible_gpus("GPU-ab22", CARDS)[0].uuid


def test_each_claim_gets_a_card_of_its_own_until_none_is_left(tmp_path: Path) -> None:
    cards = visible_gpus("0,1", CARDS)
    first, second = claimed(cards, 1, tmp_path), claimed(cards, 1, tmp_path)
    assert {first[0].entry, second[0].entry} == {"0", "1"}
    with pytest.raises(MachineError, match="all 2 GPUs have their 1 training; run at most 2 at once, or"):
        claimed(cards, 1, tmp_path)
    first[1].close()
    assert claimed(cards, 1, tmp_path)[0] == first[0]


def test_cards_are_shared_evenly_where_that_is_allowed(tmp_path: Path) -> None:
    cards = visible_gpus("0,1", CARDS)
    held = [claimed(cards, 2, tmp_path) for _ in range(4)]
    assert sorted(gpu.entry for gpu, _ in held[:2]) == ["0", "1"]
    assert sorted(gpu.entry for gpu, _ in held) == ["0", "0", "1", "1"]
    with pytest.raises(MachineError, match="run at most 4 at once"):
        claimed(cards, 2, tmp_path)


CLAIM = f"""
import sys
from pathlib import Path
from pipeline.workers.gpus import Gpu, claimed
gpu, lock = claimed([Gpu("0", "{CARDS[0]}"), Gpu("1", "{CARDS[1]}")], 1, Path(sys.argv[1]))
print(gpu.entry, flush=True)
input()
"""


def test_a_killed_process_gives_its_card_back(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "0\n"
        assert claimed(visible_gpus("0,1", CARDS), 1, tmp_path)[0].entry == "1"
        other.kill()
    assert claimed(visible_gpus("0,1", CARDS), 1, tmp_path)[0].entry == "0"


def test_a_training_takes_the_next_free_card_and_stays_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "installed_gpus", lambda: CARDS)
    monkeypatch.setattr(gpus, "claims_folder", lambda: tmp_path)
    monkeypatch.setattr(gpus, "_kept", [])
    monkeypatch.setenv(VISIBLE, "1,2")
    taken = claimed([Gpu("1", CARDS[1])], 1, tmp_path)
    claim_gpu(runtime())
    assert os.environ[VISIBLE] == "2"
    claim_gpu(runtime())
    assert os.environ[VISIBLE] == "2"
    taken[1].close()


@pytest.mark.parametrize(
    ("given", "settings"),
    [("1", {}), ("0,1", {"device": "cpu"}), ("0,1", {"processes": 2}), ("0,1", {"processes": "auto"})],
)
def test_what_was_chosen_stays(
    given: str, settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "installed_gpus", lambda: CARDS)
    monkeypatch.setattr(gpus, "claims_folder", lambda: tmp_path)
    monkeypatch.setenv(VISIBLE, given)
    claim_gpu(runtime(**settings))
    assert os.environ[VISIBLE] == given


@pytest.mark.parametrize(("seen", "restored"), [("all", None), ("2,1", "2,1"), ("", "")])
def test_a_local_job_of_submitit_sees_what_its_sweep_saw(
    seen: str, restored: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    monkeypatch.setenv(SEEN, seen)
    monkeypatch.setenv(VISIBLE, "0")
    claim_gpu(runtime(device="cpu"))
    assert os.environ.get(VISIBLE) == restored
