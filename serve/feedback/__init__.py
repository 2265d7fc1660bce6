"""What users say of answers: kept so that nothing is lost, pushed to the Hub, turned into rows to train on.

with FeedbackStore(Path("feedback"), repository="owner/name", every_minutes=5) as store:
    record = AnswerRecord(messages=messages, sampling=asdict(sampling), answer=answer, verdict="good")
    store.add(record)
    store.add(replace(record, verdict="bad", time=now()))  # the same id: the later one counts

python -m serve.feedback summary --folder feedback
python -m serve.feedback export --folder feedback --out data/raw/feedback.jsonl --preferences pairs.jsonl
"""

from serve.feedback.reading import Reading, read_records
from serve.feedback.records import (
    COMMENT_CHARS,
    CONSENT,
    REASONS,
    SCHEMA,
    Answer,
    AnswerRecord,
    ComparisonRecord,
    Consent,
    ModelVersion,
    Reason,
    Record,
    Timings,
    Verdict,
    Visit,
    Vote,
    new_id,
    now,
    visitor_of,
    without_judgement,
)
from serve.feedback.rows import COLUMNS, preference_rows, summary, training_rows
from serve.feedback.store import FeedbackStore

__all__ = [
    "COLUMNS",
    "COMMENT_CHARS",
    "CONSENT",
    "REASONS",
    "SCHEMA",
    "Answer",
    "AnswerRecord",
    "ComparisonRecord",
    "Consent",
    "FeedbackStore",
    "ModelVersion",
    "Reading",
    "Reason",
    "Record",
    "Timings",
    "Verdict",
    "Visit",
    "Vote",
    "new_id",
    "now",
    "preference_rows",
    "read_records",
    "summary",
    "training_rows",
    "visitor_of",
    "without_judgement",
]
