"""How many threads compute while others want the CPUs."""

import subprocess
import sys
from pathlib import Path

import pytest

from llama.threads import LONGEST_PAUSE, LOOK_SECONDS, PAUSE_SECONDS, Threads, Waits

ROOT = Path(__file__).parents[2]


class Machine:
    """A clock and the time waited for CPUs; `crowded` gives the share that so many threads wait."""

    def __init__(self) -> None:
        self.time = self.waited = 0.0
        self.busy_beside = 0

    def run(self, threads: Threads, seconds: float, cpus: int) -> list[int]:
        """The counts step by step: threads beyond the free CPUs share one, and wait half of the time."""
        counts = []
        for _ in range(round(seconds / 0.05)):
            counts.append(threads.now())
            self.time += 0.05
            self.waited += 0.05 * 0.5 * max(0, min(counts[-1], counts[-1] + self.busy_beside - cpus))
        return counts


@pytest.mark.parametrize("cpus", [2, 4, 16])
def test_threads_give_way_and_come_back(cpus: int) -> None:
    machine = Machine()
    threads = Threads(cpus, lambda: machine.waited, lambda: machine.time)
    assert set(machine.run(threads, 5, cpus)) == {cpus}
    machine.busy_beside = 1
    counts = machine.run(threads, 600, cpus)
    assert counts[round(2 * LOOK_SECONDS / 0.05) + 2] == cpus - 1  # soon, and no more than are in the way
    assert set(counts) == {cpus, cpus - 1}
    assert counts.count(cpus) < 0.05 * len(counts)  # trying again costs ever less
    machine.busy_beside = 0
    counts = machine.run(threads, LONGEST_PAUSE + 20, cpus)
    assert set(counts[-100:]) == {cpus}


def test_one_thread_at_least_is_kept() -> None:
    machine = Machine()
    threads = Threads(2, lambda: machine.waited, lambda: machine.time)
    machine.busy_beside = 5
    assert machine.run(threads, 10 * PAUSE_SECONDS, 2)[-1] == 1
    alone = Threads(1, lambda: machine.waited, lambda: machine.time)
    assert set(machine.run(alone, 5, 1)) == {1}


def write_schedules(tasks: Path, times: dict[str, tuple[float, float]]) -> None:
    for name, (ran, waited) in times.items():
        (tasks / name).mkdir(parents=True, exist_ok=True)
        (tasks / name / "schedstat").write_text(f"{round(ran * 1e9)} {round(waited * 1e9)} 7\n")


def test_only_threads_that_compute_count(tmp_path: Path) -> None:
    write_schedules(tmp_path, {"computes": (50, 10), "hands on": (3, 40), "gone": (1, 1)})
    time = 100.0
    waits = Waits(tmp_path, lambda: time)
    assert waits() == 0
    time = 101.0
    write_schedules(tmp_path, {"computes": (50.6, 10.4), "hands on": (3.05, 40.2), "new": (0.4, 0.1)})
    (tmp_path / "gone/schedstat").unlink()
    assert waits() == pytest.approx(0.4 + 0.1)
    time = 102.0
    write_schedules(tmp_path, {"computes": (50.6, 10.4), "hands on": (3.4, 40.3)})
    assert waits() == pytest.approx(0.4 + 0.1 + 0.1)


def test_the_kernel_says_how_long_threads_waited(tmp_path: Path) -> None:
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("this kernel keeps no account of waiting")
    crowd = """
import os, time
from llama.threads import Waits
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
other = os.fork()
if not other:
    while True: pass
waits, until = Waits(), time.monotonic() + 1
while time.monotonic() < until: pass
os.kill(other, 9)
print(waits())
"""
    told = subprocess.run([sys.executable, "-c", crowd], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 0.05 < float(told.stdout) < 1.5
    assert Waits(tmp_path / "no kernel that says it")() == 0
