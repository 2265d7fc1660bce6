"""What docs/performance.md says of speed is what benchmarks/results says."""

import json
import re
from pathlib import Path

REPO = Path(__file__).parents[2]
RESULTS = REPO / "benchmarks/results"
ROW = re.compile(r"^\| `(?P<table>\S+) (?P<run>\S+)` \| (?P<what>.+?) \| (?P<figures>.+) \|$", re.MULTILINE)


def test_the_table_has_the_measured_figures() -> None:
    rows = list(ROW.finditer((REPO / "docs/performance.md").read_text(encoding="utf-8")))
    assert len(rows) > 10
    for row in rows:
        runs = json.loads((RESULTS / f"train-{row['table']}.json").read_text(encoding="utf-8"))["runs"]
        run = runs[row["run"]]
        figures = [
            f"{round(run['tokens_per_second'], -2):,.0f}",
            f"{run['limit_share']:.0%}",
            f"{run['peak_memory_gib']:.2f}",
            f"{run['startup_seconds']:.0f}",
        ]
        assert row["figures"].split(" | ") == figures, row[0]
        if speed_up := re.search(r"([\d.]+) times as fast", row["what"]):
            one = runs["ours-1-card"]["tokens_per_second"]
            assert speed_up[1] == f"{run['tokens_per_second'] / one:.2f}"


def test_the_price_of_fp8_is_the_measured_one() -> None:
    page = " ".join((REPO / "docs/performance.md").read_text(encoding="utf-8").split())
    models = json.loads((RESULTS / "fp8.json").read_text(encoding="utf-8"))["models"]
    for model, name in (("starter-m", "starter-m"), ("pretrained", "a model of 140 million parameters")):
        assert f"{models[model]['fp8_over_bf16']:+.2%} for {name}" in page
