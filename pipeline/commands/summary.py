"""What `tunesmith repro` closes with: the verdict, the figures that matter, where the rest stands, and what to commit.

tunesmith summary
"""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.core.code import git
from pipeline.core.paths import EVALUATION
from pipeline.report.metrics import metric
from pipeline.report.record import Evaluation
from pipeline.report.verdict import verdict_lines

# Where git keeps what a result is known by; the files themselves are in DVC's cache.
COMMITTED = ("conf", "dvc.lock", "inputs", "params.yaml", "reports")
FILE = ("bytes", "perplexity", "answer_seconds", "tokens_per_second")


def run() -> None:
    """Print reports/evaluation.json as two tables and its verdict.

    Raises:
        UserError: nothing has been evaluated here, or by another version.
    """
    evaluation = Evaluation.read(EVALUATION)
    base, tuned = evaluation.base_model, evaluation.tuned_model
    models = Table("", "base", "tuned", title="on the test split")
    for key in ("loss", "perplexity"):
        models.add_row(key, _shown(key, getattr(base, key)), _shown(key, getattr(tuned, key)))
    for group, share in tuned.accuracy_by_group.items():
        shares = (_shown("accuracy", one) for one in (base.accuracy_by_group.get(group), share))
        models.add_row(f"accuracy, {escape(group.replace('_', ' '))}", *shares)
    heads = (metric(name).head for name in FILE)
    files = Table("GGUF", *heads, title="models/gguf")
    for kind, figures in evaluation.gguf.items():
        files.add_row(escape(kind), *(_shown(name, getattr(figures, name)) for name in FILE))
    console = Console()
    console.print(models, files)
    console.print("\n".join(verdict_lines(evaluation.verdict)), markup=False, highlight=False)
    console.print(
        "report: reports/evaluation.html    runs: `tunesmith mlflow`    chat: `tunesmith serve`", highlight=False
    )
    if changed := to_commit():
        console.print(f"keep this result: `git add {' '.join(changed)} && git commit`", markup=False, highlight=False)


def to_commit() -> list[str]:
    """Return of COMMITTED what is otherwise in git, or not yet; nothing outside of a repository."""
    said = git("status", "--porcelain", "-z", "--no-renames", "--", *COMMITTED, folder=Path())
    names = [entry[3:] for entry in said.split("\0")]
    return [place for place in COMMITTED if any(name.partition("/")[0] == place for name in names)]


def _shown(name: str, value: float | None) -> str:
    return "-" if value is None else metric(name).text(value)
