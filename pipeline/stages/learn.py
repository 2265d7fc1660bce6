"""What visitors said becomes data: data/feedback, which data=feedback takes, and reports/feedback.html.

Reads what `learn` names, the folder that the server keeps feedback in or a dataset on the hub. Where it names neither,
data/feedback stays as it is.
"""

from pipeline.workers.process import prepare_process

if __name__ == "__main__":  # before libraries are loaded
    prepare_process()

import os
from collections import Counter
from pathlib import Path

from common.words import counted
from pipeline.core.config import Config, LearnSettings
from pipeline.core.paths import FEEDBACK, FEEDBACK_PAGE
from pipeline.data.masking import Masking
from pipeline.learning import report
from pipeline.learning.divide import divide
from pipeline.learning.forgotten import Forgotten
from pipeline.learning.manifest import LearnManifest
from pipeline.learning.sources import Kept, NothingToLearn, kept_by
from pipeline.learning.standing import standing
from pipeline.learning.statements import Statements, read
from pipeline.learning.write import write
from pipeline.stages.run import stage

UNNAMED = "learn.folder and learn.dataset are null, and so nothing is learnt of visitors"


def run(config: Config, out: Path) -> None:
    """Make data/feedback below `out` of what `learn` names, from the working folder.

    Raises:
        UserError: as for `learn`; by hand, nothing is named.
    """
    kept = kept_by(config.learn)
    if kept is not None:
        learn(kept, config.learn, Path(), out)
    elif "DVC_STAGE" in os.environ:
        (out / FEEDBACK).mkdir(parents=True, exist_ok=True)  # which DVC wants to be there
        print(f"{UNNAMED}: {FEEDBACK} stays as it is")
    else:
        raise NothingToLearn(f"{UNNAMED}; name one, as `tunesmith learn learn.folder=feedback`")


def learn(kept: Kept, settings: LearnSettings, root: Path, out: Path) -> LearnManifest:
    """Write rows and report, and print what came of the records.

    Args:
        kept: files of records.
        settings: how records become data.
        root: below which is noted who is forgotten.
        out: below which all is written.

    Raises:
        UserError: records cannot be read, nothing of them can be learnt, or they are too few visitors'.
    """
    digests, masking = kept.digests(), Masking(settings.mask)
    statements = read(kept.rows(), masking, Forgotten.there(root).digests)
    say(statements)
    stands, not_standing = standing(statements.found, settings)
    left_out = not_standing + statements.left_out
    if not stands:
        why = ", ".join(f"{count:,} {why}" for why, count in left_out.most_common() if count) or "there are none"
        raise NothingToLearn(f"nothing is left to learn of {counted(statements.records, 'record')}: {why}")
    splits = divide(stands, settings)
    manifest = write(out, kept, digests, splits, left_out, settings)
    figures = report.report(manifest, statements.found, splits, statements.records, masking.places)
    report.write(out, figures, splits["train"])
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


main = stage(run)

if __name__ == "__main__":
    main()
