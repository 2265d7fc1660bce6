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
    leaks = {f"linked to {name}": rows for name, rows in report.leaks.items()}
    steps = {
        "usable": {reason: rows for reason, rows in dropped.items() if reason not in REASONS},
        "after cleaning": {reason: rows for reason, rows in dropped.items() if reason in REASONS},
        "conversations": {"preferences, set apart": sum(file.preferences for file in report.files)},
        "without duplicates": {"duplicates": report.duplicates},
        "without near-duplicates": {"near-duplicates": report.near_duplicates},
        "balanced": report.balanced,
        "drawn": {"beyond data.max_rows or a source's cap": report.sampled_out},
        "without leaks": leaks | {"validation linked to test": report.shared_by_own_splits},
        "weighted": {"by weights below 1": max(-report.added_by_weight, 0)},
    }
    made = [Step(name=READ, rows=sum(file.rows for file in report.files), left_out=0, reasons={})]
    for name, found in steps.items():
        reasons = {reason: rows for reason, rows in Counter(found).most_common() if rows}
        left_out, added = sum(reasons.values()), max(report.added_by_weight, 0) if name == "weighted" else 0
        rows = made[-1].rows - left_out + added
        made.append(Step(name=name, rows=rows, left_out=left_out, reasons=reasons, added=added))
    return tuple(made)
