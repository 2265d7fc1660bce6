from pathlib import Path

import pytest
from tiny_gguf import write_random

from benchmarks.adapters import FOUR, ONE, STEPS, Measured, Run, make_adapters, measure, table


def test_all_ways_are_measured_and_memory_with_them(tmp_path: Path) -> None:
    base = write_random(tmp_path / "models" / "tiny.gguf")
    measured = measure(base, make_adapters(base, tmp_path / "loras"), Run(rounds=1, prompt=8, answer=4, threads=1))
    assert all(len(rates) == 1 and rates[0] > 0 for rates in measured.rates.values())
    assert measured.files == sum(path.stat().st_size for path in (tmp_path / "loras").iterdir())
    assert len(table(base, measured, ["about"]).splitlines()) == 11


@pytest.mark.parametrize(("four", "together", "met"), [(9.5, 1050, ["yes", "met"]), (8.5, 1250, ["no", "not met"])])
def test_a_goal_is_met_by_the_median_of_the_rounds(four: float, together: int, met: list[str]) -> None:
    rates = {ONE: [10.0, 20.0, 10.0], FOUR: [four, 10.0, four], STEPS: [5.0, 5.0, 5.0]}
    page = table(Path("base.gguf"), Measured(rates, files=100, alone=900, together=together), [])
    row, memory = page.splitlines()[6], page.splitlines()[-1]
    assert f"| {four:.1f} | {four / 10:.3f} (0.500) | ≥ 0.9 | {met[0]} |" in row
    assert memory.endswith(f"(goal: ≤ 1.1; {met[1]}).")
