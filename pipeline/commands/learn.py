"""Makes data of what visitors said: data/feedback, which `data=preferences` takes, and reports/feedback.html.

tunesmith learn                                # what the server keeps in feedback/
tunesmith learn --dataset owner/feedback       # what it pushes to the hub
"""

from collections import Counter
from pathlib import Path

from common.errors import UserError
from common.words import counted
from pipeline.core.paths import FEEDBACK, FEEDBACK_PAGE
from pipeline.data.masking import Masking
from pipeline.learning import report
from pipeline.learning.divide import divide
from pipeline.learning.forgotten import Forgotten
from pipeline.learning.manifest import LearnManifest
from pipeline.learning.settings import LearnSettings
from pipeline.learning.sources import of_dataset, of_folder
from pipeline.learning.standing import standing
from pipeline.learning.statements import Statements, read
from pipeline.learning.write import write


def run(folder: Path | None, dataset: str | None, settings: LearnSettings, root: Path = Path()) -> LearnManifest:
    """Write rows and report, and print what came of the records.

    Args:
        folder: of records; of it and `dataset` one is given.
        dataset: on the hub.
        settings: how records become data.
        root: below which all is written.

    Raises:
        UserError: no records can be had, nothing of them can be learnt, or they are too few visitors'.
    """
    kept = of_dataset(dataset) if dataset else of_folder(folder or Path("feedback"))
    digests, masking = kept.digests(), Masking(settings.mask)
    statements = read(kept.rows(), masking, Forgotten.there(root).digests)
    say(statements)
    stands, not_standing = standing(statements.found, settings)
    left_out = not_standing + statements.left_out
    if not stands:
        why = ", ".join(f"{count:,} {why}" for why, count in left_out.most_common() if count) or "there are none"
        raise UserError(f"nothing is left to learn of {counted(statements.records, 'record')}: {why}")
    splits = divide(stands, settings)
    manifest = write(root, kept, digests, splits, left_out, settings)
    figures = report.report(manifest, statements.found, splits, statements.records, masking.places)
    report.write(root, figures, splits["train"])
    show(manifest, not_standing)
    return manifest


def say(statements: Statements) -> None:
    """Print a line for each reason for which records are left out, with the first place."""
    for why, count in sorted(statements.left_out.items()):
        print(f"left out: {counted(count, 'record')} {why} (the first: {statements.first[why]})")


def show(manifest: LearnManifest, not_standing: Counter[str]) -> None:
    """Print which statements do not stand, what is learnt and what is held out."""
    for why, count in sorted(not_standing.items()):
        if count:
            print(f"left out: {counted(count, 'statement')} {why}")
    for split, counts in manifest.splits.items():
        held = ", held out for judging" if split == "test" else ""
        of = f"{counted(counts.visitors, 'visitor')}, {counted(counts.conversations, 'conversation')}"
        print(f"{split}: {counted(counts.pairs, 'pair')} and {counted(counts.labels, 'label')} of {of}{held}")
    print(f"written: {FEEDBACK} (rows {manifest.digest}), {FEEDBACK_PAGE}")
