"""A GPU of its own for each training, on a machine with several."""

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from pipeline.workers.gpus import installed_gpus

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"),
]

CLAIM = """
import sys
from pathlib import Path
from pipeline.core.composition import compose
from pipeline.core.config import load
from pipeline.workers import gpus
gpus.claims_folder = lambda: Path(sys.argv[1])
gpus.claim_gpu(load(compose(Path(gpus.__file__).parents[2] / "conf", ["runtime.device=cuda"])).runtime)
import torch
torch.zeros(1, device="cuda")
print(torch.cuda.device_count(), torch.cuda.get_device_properties(0).uuid, flush=True)
input()
"""


def claim(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CLAIM, str(folder)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_each_process_has_a_card_and_one_more_is_refused(tmp_path: Path) -> None:
    cards = len(installed_gpus())
    assert cards == torch.cuda.device_count()
    with ExitStack() as running:
        processes = [running.enter_context(claim(tmp_path)) for _ in range(cards)]
        lines = [process.stdout.readline().split() for process in processes if process.stdout]
        assert [count for count, _ in lines] == ["1"] * cards
        assert {f"GPU-{uuid}" for _, uuid in lines} == set(installed_gpus())
        _, refusal = claim(tmp_path).communicate("\n")
        assert f"all {cards} GPUs have their 1 training; run at most {cards} at once" in refusal
        for process in processes:
            process.kill()


def test_the_cards_are_counted_without_cuda() -> None:
    code = (
        "from pipeline.workers.gpus import installed_gpus as g; g(); import torch; print(torch.cuda.is_initialized())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "False\n"
