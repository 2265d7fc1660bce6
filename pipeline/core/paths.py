"""Where stages read and write, relative to the workspace or to a job's own folder."""

import os
from pathlib import Path

PREPARED = Path("data/prepared")
TRAIN, TEST = PREPARED / "train.parquet", PREPARED / "test.parquet"
QUESTIONS = PREPARED / "questions.jsonl"
REJECTED = Path("data/rejected.jsonl")
GENERAL = Path("data/forgetting")  # texts on which forgetting is measured
EXAMPLES = Path("data/examples.json")
PREFERENCES = PREPARED / "preferences.jsonl"  # that stand apart
COMPARED = "preferences"  # the folder in PREPARED of those that are learnt, by split
ADAPTER = Path("models/adapter")
LINEAGE = "lineage.json"
GGUF = Path("models/gguf")
MANIFEST = "manifest.json"
FEEDBACK = Path("data/feedback")  # what visitors said, as rows
LEARNT, FORGOTTEN = Path("data/learnt"), Path("data/forgotten.json")  # pipeline/learning/manifest.py
TURN = Path("data/turn")  # the turn of the loop that is under way: its records, as they were when it began
CHAMPION = Path("models/champion")  # the adapter that it goes on from
REPORTS = Path("reports")
PREPARE_REPORT, TRAIN_REPORT = REPORTS / "prepare.json", REPORTS / "train.json"
DATA_PAGE, DATA_REPORT, DATA_CARD = REPORTS / "data.html", REPORTS / "data.json", REPORTS / "dataset_card.md"
FEEDBACK_PAGE, FEEDBACK_REPORT = REPORTS / "feedback.html", REPORTS / "feedback.json"
CANARY_REPORT = REPORTS / "canary.json"
TURN_RECORD = REPORTS / "turn.json"
LOSS_CURVE = REPORTS / "loss.csv"
MEASUREMENTS, EVALUATION, METRICS = (REPORTS / f"{name}.json" for name in ("measurements", "evaluation", "metrics"))
ROWS = REPORTS / "rows.json"  # what was found of each row
HEADLINES = REPORTS / "headlines.json"  # DVC's metrics
CARD = Path("models/card.json")  # the chat looks for it beside its GGUF files, and in the folder above
README = Path("models/README.md")
SIGNATURES = Path("models/signatures")  # of models and images; no stage's, since a key is nobody's but the user's


def root() -> Path:
    """Return the repository: DVC names it, also when it runs a stage in a temporary copy; else the working folder."""
    return Path(os.environ.get("DVC_ROOT", "."))
