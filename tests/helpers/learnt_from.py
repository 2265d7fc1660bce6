"""The stages of a small repository that learns from feedback: prepare is the real one, train leaves a real lineage.

python tests/helpers/learnt_from.py prepare|train
"""

import sys
from pathlib import Path

from pipeline.core.data_settings import DataSettings
from pipeline.core.paths import ADAPTER, LINEAGE, PREPARE_REPORT, REPORTS
from pipeline.core.records import Lineage, PrepareReport, TunedBase
from pipeline.data.prepared import origin
from pipeline.stages.prepare import prepare

FILES = ["data/feedback/pairs/*.jsonl"]
BASE = TunedBase(
    name="none", path="none", revision=None, merge_path=None, merge_revision=None, chat_template=None,
    load_in_4bit=False, digest="0" * 64,
)  # fmt: skip


def main(stage: str) -> None:
    if stage == "prepare":
        settings = DataSettings(
            name="feedback", source="files", files=FILES, preferences="learn", leak_threshold=None, max_dropped=1
        )
        prepare(settings, Path(), Path())
        return
    report = PrepareReport.read(PREPARE_REPORT)
    digest = report.compared_digest  # as of train=dpo
    ADAPTER.mkdir(parents=True)
    (ADAPTER / "weights.bin").write_text(digest)
    lineage = Lineage(fingerprint=fingerprint(digest), mlflow_run=None, base=BASE, data=origin(report))
    lineage.write(ADAPTER / LINEAGE)
    REPORTS.mkdir(exist_ok=True)
    (REPORTS / "evaluation.html").write_text(Path("data/examples.json").read_text())  # as a report shows rows


def fingerprint(digest: str) -> str:
    """A training's name, which another data digest changes."""
    return digest.replace("+", "")[:16]


if __name__ == "__main__":
    main(sys.argv[1])
