"""From the rows that were read to those of the splits, step by step."""

from collections import Counter

from pipeline.core.records import PrepareReport
from pipeline.data.cleaning_rules import REASONS
from pipeline.data_report.record import Step

READ = "rows read"


def funnel(report: PrepareReport) -> tuple[Step, ...]:
    """Return what each step leaves and takes out, the first of them all rows; steps that take out nothing are in it."""
    dropped: Counter[str] = Counter()
    for file in report.files:
        dropped.update(file.dropped)
    steps = {
        "usable": {reason: rows for reason, rows in dropped.items() if reason not in REASONS},
        "after cleaning": {reason: rows for reason, rows in dropped.items() if reason in REASONS},
        "conversations": {"preferences, set apart": sum(file.preferences for file in report.files)},
        "without duplicates": {"duplicates": report.duplicates},
        "without near-duplicates": {"near-duplicates": report.near_duplicates},
        "balanced": report.balanced,
        "without leaks": {f"linked to {name}": rows for name, rows in report.leaks.items()},
    }
    made = [Step(name=READ, rows=sum(file.rows for file in report.files), left_out=0, reasons={})]
    for name, reasons in steps.items():
        reasons = {reason: rows for reason, rows in Counter(reasons).most_common() if rows}
        left_out = sum(reasons.values())
        made.append(Step(name=name, rows=made[-1].rows - left_out, left_out=left_out, reasons=reasons))
    kept = sum(split.rows for split in report.splits.values())
    if kept != (rows := made[-1].rows):
        left_out, added = max(rows - kept, 0), max(kept - rows, 0)
        reasons = {"not drawn": left_out} if left_out else {}
        made.append(Step(name="drawn and weighted", rows=kept, left_out=left_out, reasons=reasons, added=added))
    return tuple(made)
