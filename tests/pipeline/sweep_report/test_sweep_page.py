"""A sweep's page."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fake_sweep import FakeSweep

from pipeline.sweep_report.record import SweepReport
from pipeline.sweep_report.write import FIGURES, PAGE, write_report
from pipeline.sweeps.record import Trial

SPACE = {"train.lr": ["1", "2", "3", "4"], "train.scheduler": ["linear", "cosine", "constant"]}


def loss(values: dict[str, str], step: int) -> float:
    """Return a loss that is least at a rate of 2, and falls with each step."""
    return abs(float(values["train.lr"]) - 2) + len(values["train.scheduler"]) / 100 + 1 / step


def written(sweep: FakeSweep) -> str:
    """Return the page of a sweep."""
    write_report(sweep.folder)
    return (sweep.folder.path / PAGE).read_text(encoding="utf-8")


@pytest.fixture
def sweep(tmp_path: Path) -> FakeSweep:
    """Return a sweep of twelve trials and three rungs, that has not begun."""
    return FakeSweep(tmp_path / "sweep", SPACE, loss=loss)


def at(tree: Any, name: str) -> Any:
    """Return what stands at a dotted place of a record."""
    for part in name.split("."):
        tree = tree[int(part) if part.isdigit() else part]
    return tree


def test_each_figure_of_a_table_is_that_of_the_record(sweep: FakeSweep) -> None:
    sweep.play()
    page = written(sweep)
    tree = json.loads((sweep.folder.path / FIGURES).read_text(encoding="utf-8"))
    figures = re.findall(r'<span data-figure="([^"]+)">([^<]+)</span>', page)
    assert len(figures) > 80
    for name, text in figures:
        value = at(tree, name.removesuffix(".kept")) if not name.endswith(".kept") else len(at(tree, name))
        shown = float(text.replace(",", "").removesuffix(" s")) if text != "-" else None
        assert shown == (value if value is None else pytest.approx(value, abs=0.51 if text.endswith("s") else 6e-3))


def test_the_record_is_read_as_it_was_written(sweep: FakeSweep) -> None:
    sweep.play()
    report = write_report(sweep.folder)
    assert SweepReport.read(sweep.folder.path / FIGURES) == report


def test_a_page_of_a_sweep_that_is_over_has_all_its_parts(sweep: FakeSweep) -> None:
    sweep.play()
    page = written(sweep)
    assert "<h2>Trial 3</h2>" in page
    for part in ("trials", "importance", "ranks", "cost", "untried"):
        assert f'<section id="{part}">' in page
    assert page.count('<path class="line"') == 12
    assert page.count('<g class="trial winner"') == 2
    assert "dvc exp run -S experiment=sweep-best" in page


def test_a_page_fetches_nothing_and_runs_nothing(sweep: FakeSweep) -> None:
    sweep.play()
    page = written(sweep)
    assert "default-src 'none'" in page
    assert not re.search(r"<script|<link|<img|https?://|url\(|\son\w+=", page)


def test_a_sweep_that_has_not_begun_has_a_page(sweep: FakeSweep) -> None:
    page = written(sweep)
    assert "Not over" in page
    assert "12 waiting" in page


def test_a_sweep_in_its_midst_says_who_leads(sweep: FakeSweep) -> None:
    sweep.play(rungs=1)
    assert "Leading: trial 3, train.lr=2 train.scheduler=linear" in " ".join(written(sweep).split())


def test_a_sweep_over_nothing_has_a_page(tmp_path: Path) -> None:
    sweep = FakeSweep(tmp_path / "alone", {})
    sweep.play()
    assert "Trial 0" in written(sweep)


def test_a_sweep_of_which_nothing_came_says_why(sweep: FakeSweep) -> None:
    for trial in sweep.record.trials:
        sweep.finish(trial.number, 2, status="failed", reason="out of <memory>")
    page = written(sweep)
    assert "No winner" in page
    assert "out of &lt;memory&gt;" in page


def test_a_grid_of_few_jobs_has_a_page(tmp_path: Path) -> None:
    sweep = FakeSweep(tmp_path / "grid", {"train.lr": ["1", "2"]}, [[]], lambda values, step: float(values["train.lr"]))
    sweep.play()
    page = written(sweep)
    assert "It cannot be told: 2 trials are too few; it takes 10." in page
    assert "<h2>Trial 0</h2>" in page


def test_brackets_and_intervals_have_a_page(tmp_path: Path) -> None:
    trials = [Trial(number=n, bracket=n % 2, values={"train.lr": f"{10 ** (-n / 8):.4g}"}) for n in range(24)]
    space = {"train.lr": ["tag(log,interval(1e-3,1))"]}
    sweep = FakeSweep(tmp_path / "brackets", space, [[2, 4, 8], [4, 8]], trials=trials, brackets=2)
    sweep.loss = lambda values, step: abs(float(values["train.lr"]) - 0.1) + 1 / step
    sweep.play(0)
    sweep.play(1)
    page = written(sweep)
    assert "in 2 brackets" in page
    assert "rung 2, step 4, bracket 2" in page
    assert ">0.01<" in page  # a tick of the axis in logarithms


def test_what_a_user_wrote_is_escaped(tmp_path: Path) -> None:
    trials = [Trial(number=n, bracket=0, values={"experiment": f"<b>{n}</b>\u202e"}) for n in range(4)]
    sweep = FakeSweep(tmp_path / "words", {"experiment": ["a", "b"]}, trials=trials)
    sweep.play()
    page = written(sweep)
    assert "<b>1</b>" not in page
    assert "\u202e" not in page
