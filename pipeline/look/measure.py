"""The figures of a split's conversations, which are kept for the next time that somebody looks."""

import hashlib
from pathlib import Path

from datasets import Dataset, Features, List, Value

from pipeline.core.code import code_digest
from pipeline.look.rows import Reading
from pipeline.look.summary import Measured, measured
from pipeline.models.turns import Message
from pipeline.training.rows import cache_name

CODE = ("pipeline/look/measure.py", "pipeline/look/rows.py", "pipeline/look/summary.py")
FEATURES = Features(
    {
        "rows": Value("int64"),
        "tokens": Value("int64"),
        "longest": Value("int64"),
        "learnt": Value("int64"),
        "kept": Value("int64"),
        "learns": Value("bool"),
        "refused": Value("string"),
        "controls": List(Value("string")),
    }
)


def measure(path: Path, reading: Reading) -> list[Measured]:
    """Return a prepared split in figures, a conversation each; kept for the next time by all that they depend on."""

    def figures(row: dict[str, list[Message]]) -> Measured:
        return measured(reading, row["messages"])

    conversations = Dataset.from_parquet(str(path))
    rows = cache_name(path, reading.tokenizer, reading.max_length, reading.loss_on)
    table = conversations.map(
        figures,
        remove_columns=conversations.column_names,
        features=FEATURES,
        new_fingerprint=hashlib.sha256(f"{rows} {code_digest(*CODE)}".encode()).hexdigest()[:16],
        desc=f"reading {path.stem}",
    )
    return list(table)
