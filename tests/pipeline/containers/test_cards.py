"""GPUs that a container is given, by what nvidia-smi says of them: written down here, since no GPU and engine meet."""

import os
from pathlib import Path

import pytest

from common.errors import MachineError
from pipeline.containers.cards import Card, cards, chosen, read_cards, require_driver, require_free
from pipeline.workers.gpus import VISIBLE

# nvidia-smi --query-gpu=uuid,name,driver_version,memory.used,memory.total --format=csv,noheader,nounits
TWO_CARDS = """\
GPU-11111111-2222-3333-4444-555555555555, NVIDIA H200, 580.95.05, 4, 143771
GPU-66666666-7777-8888-9999-000000000000, NVIDIA H200, 580.95.05, 142901, 143771
"""
SHARED_MEMORY = "GPU-11111111-2222-3333-4444-555555555555, NVIDIA GB10, 580.95.05, [N/A], [N/A]\n"
NO_DRIVER = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA "
    "driver is installed and running.\n"
)
GIBIBYTE = 2**30


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name on PATH, which says what is written beside it."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f'#!/bin/sh\ncat {tmp_path}/said\nexit "$(cat {tmp_path}/status)"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def saying(folder: Path, said: str, status: int = 0) -> list[Card]:
    (folder / "said").write_text(said)
    (folder / "status").write_text(str(status))
    return cards()


def test_cards_are_read_in_their_order(nvidia_smi: Path) -> None:
    free, full = saying(nvidia_smi, TWO_CARDS)
    assert free == Card(
        "GPU-11111111-2222-3333-4444-555555555555", "NVIDIA H200", "580.95.05", 4 * 2**20, 143771 * 2**20
    )
    assert full.used == 142901 * 2**20


def test_a_driver_that_does_not_answer_is_one_line(nvidia_smi: Path) -> None:
    with pytest.raises(MachineError, match=r"^nvidia-smi fails: NVIDIA-SMI has failed .* set runtime\.device=cpu$"):
        saying(nvidia_smi, NO_DRIVER, 9)
    assert saying(nvidia_smi, "No devices were found\n", 6) == []


def test_a_machine_without_a_driver_has_no_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("pipeline.containers.cards.NVIDIA", tmp_path / "nvidia0")
    assert cards() == []
    (tmp_path / "nvidia0").touch()
    with pytest.raises(MachineError, match=r"nvidia0 is there and nvidia-smi is not"):
        cards()


@pytest.mark.parametrize(
    ("setting", "given"),
    [
        (None, ["GPU-11111111-2222-3333-4444-555555555555", "GPU-66666666-7777-8888-9999-000000000000"]),
        ("1", ["GPU-66666666-7777-8888-9999-000000000000"]),
        ("", []),
        ("MIG-1,MIG-2", ["MIG-1", "MIG-2"]),
    ],
)
def test_a_container_is_given_what_a_process_sees(
    monkeypatch: pytest.MonkeyPatch, setting: str | None, given: list[str]
) -> None:
    monkeypatch.delenv(VISIBLE, raising=False)
    if setting is not None:
        monkeypatch.setenv(VISIBLE, setting)
    assert chosen(read_cards(TWO_CARDS, 0)) == given


def test_a_driver_older_than_the_images_cuda_is_refused() -> None:
    (card, _) = read_cards(TWO_CARDS.replace("580.95.05", "535.183.01"), 0)
    require_driver([card], "12.8.1", "tunesmith-train")
    require_driver([card], None, "tunesmith-train")
    with pytest.raises(
        MachineError, match=r"^driver 535\.183\.01 is too old for CUDA 13\.0\.2 in tunesmith-train, .*580"
    ):
        require_driver([card], "13.0.2", "tunesmith-train")


def test_a_full_card_is_refused_and_one_of_shared_memory_is_not() -> None:
    free, full = read_cards(TWO_CARDS, 0)
    require_free([free, *read_cards(SHARED_MEMORY, 0)])
    with pytest.raises(MachineError, match=r"^NVIDIA H200 \(GPU-6666.*\) is full: 149\.8 of 150\.8 GB are used; end "):
        require_free([free, full])
