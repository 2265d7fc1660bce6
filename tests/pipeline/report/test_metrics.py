"""What is shown of a run is a row of METRICS each: that they are sound, and that one more row is all that it takes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.core.records import Record, TrainReport
from pipeline.report.metrics import METRICS, Metric, Subject, metric
from pipeline.report.record import FileFigures, GeneralFigures, ModelFigures, ShownAnswer, TextFigures

REPO = Path(__file__).parents[3]
RECORDS: dict[Subject, type[Record]] = {
    "model": ModelFigures,
    "file": FileFigures,
    "answer": ShownAnswer,
    "text": TextFigures,
    "training": TrainReport,
    "general": GeneralFigures,
}
ADDED = {
    "pipeline/report/metrics.py": (
        "METRICS = (\n",
        "METRICS = (\n"
        '    Metric("bits", "bits", "a byte", "{:.3f}".format, ("model", "file"), "lower", headline=True),\n',
    ),
    "pipeline/report/record.py": (
        "    samples_per_second: Amount | None = None\n",
        "    samples_per_second: Amount | None = None\n    bits: float | None = None\n",
    ),
}
# Shows a run of two files, whose models have each one figure more, in every way that there is.
SHOW = """
import json, sys
from pathlib import Path
from records import record
import recorded_run
from pipeline.commands.compare import compared
from pipeline.comparison import report
from pipeline.comparison.runs import EvaluatedRun
from pipeline.core.config import CompareSettings, MarginSettings
from pipeline.core.records import Lineage, Manifest
from pipeline.publishing.card import model_card, model_readme
from pipeline.report.files import write
from pipeline.report.metrics import metric
from pipeline.report.numbers import numbers

out = Path(sys.argv[1])
tree = recorded_run.evaluation()
tree["base_model"]["bits"], tree["tuned_model"]["bits"] = 1.2344, 0.98765
for place, figures in enumerate(tree["gguf"].values()):
    figures["bits"] = 0.5 + place
found = record(tree)
write(found, out)
manifest, lineage = Manifest.parse(recorded_run.manifest(), ""), Lineage.parse(recorded_run.lineage(), "")
(out / "README.md").write_text(model_readme(found, manifest, lineage))
(out / "card.json").write_text(json.dumps(model_card(found, manifest, lineage)))
(out / "metrics.json").write_text(json.dumps(numbers(found)))
MARGIN = MarginSettings(loss=0.01, accuracy=0.02)
LIMITS = {"max_answer_seconds": None, "max_gguf_mb": None, "max_memory_mb": None}
budgets = CompareSettings(quality="loss", **LIMITS, level=0.005, margin=MARGIN)
report.write(out, compared([EvaluatedRun("tiny", "tiny", found)], budgets))
assert metric("bits").goodness(1.0) > metric("bits").goodness(2.0)
"""


@pytest.mark.parametrize("row", METRICS, ids=lambda row: f"{row.name} of {'+'.join(row.of)}")
def test_every_row_names_a_field_of_what_it_is_of(row: Metric) -> None:
    assert row.of
    for subject in row.of:
        assert row.name in RECORDS[subject].model_fields


def test_a_name_stands_once_for_each_subject_and_always_reads_the_same() -> None:
    placed = [(row.name, subject) for row in METRICS for subject in row.of]
    assert len(placed) == len(set(placed))
    for row in METRICS:
        assert row.text is metric(row.name).text, row.name  # figures are told apart by their names alone


def test_unknown_is_worst_and_a_metric_without_a_better_says_so() -> None:
    assert metric("loss").goodness(0.1) > metric("loss").goodness(0.2) > metric("loss").goodness(None)
    assert metric("accuracy").goodness(0.2) > metric("accuracy").goodness(0.1) > metric("accuracy").goodness(None)
    with pytest.raises(ValueError, match="tokens has no better"):
        metric("tokens").goodness(1)


def test_one_row_and_one_field_show_a_metric_everywhere(tmp_path: Path) -> None:
    for place in ("common", "llama", "pipeline"):
        shutil.copytree(REPO / place, tmp_path / place, ignore=shutil.ignore_patterns("__pycache__"))
    for name, (old, new) in ADDED.items():
        text = (tmp_path / name).read_text()
        assert text.count(old) == 1
        (tmp_path / name).write_text(text.replace(old, new))
    out = tmp_path / "out"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{REPO / 'tests/helpers'}"}
    subprocess.run([sys.executable, "-c", SHOW, str(out)], cwd=tmp_path, env=environment, check=True)

    markdown, page = (out / "evaluation.md").read_text(), (out / "evaluation.html").read_text()
    assert "| bits, a byte | 1.234 | 0.988 |" in markdown
    assert "| file | bits, a byte | MB |" in markdown
    assert '<span data-figure="gguf.Q8_0.bits">1.500</span>' in page
    assert (out / "gguf.csv").read_text().splitlines()[0].startswith("type,of,bits,bytes,")
    assert json.loads((out / "metrics.json").read_text())["gguf"]["Q8_0"]["bits"] == 1.5
    assert json.loads((out / "card.json").read_text())["evaluation"]["tuned"]["bits"] == 0.98765
    assert "type: bits" in (out / "README.md").read_text()  # what the Hub shows
    comparison = json.loads((out / "compare.json").read_text())
    assert comparison["runs"][0]["figures"]["bits"] == 0.98765
    assert [file["figures"]["bits"] for file in comparison["files"]] == [0.5, 1.5]
    compared = (out / "compare.md").read_text()
    assert "| bits, a byte | 0.988 |" in compared
    assert "| tiny Q8\\_0 | 1.500 |" in compared
