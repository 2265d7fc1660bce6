"""Takes what a visitor said out of all places, and names the models that have learnt it.

    tunesmith feedback forget --visitor 357f87ea…      # the number that the page shows, or its beginning
    tunesmith feedback forget --visitor 357f87ea… --dataset owner/feedback

Called again, it goes on where it was interrupted.
"""

from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError
from common.words import counted
from pipeline.core.composition import CONF, compose
from pipeline.core.config import Config, load
from pipeline.core.paths import FORGOTTEN
from pipeline.core.paths import root as repository
from pipeline.data.hub import FEEDBACK_FILES
from pipeline.erasure import records, workspace
from pipeline.erasure.outcome import Outcome
from pipeline.erasure.runs import forget_in_runs
from pipeline.erasure.versions import Versions, opened
from pipeline.learning.forgotten import Forgotten, Traces
from pipeline.learning.sources import Kept, of_dataset
from pipeline.learning.turn import RECORDS
from pipeline.tracking.registry import is_there


def run(beginning: str, folder: Path, dataset: str | None, overrides: Sequence[str] = ()) -> None:
    """Forget a visitor in this repository, and print what came of it.

    Args:
        beginning: of the visitor's number.
        folder: that the server keeps feedback in.
        dataset: on the hub; else the one that the folder is pushed to.
        overrides: settings, as in conf/.

    Raises:
        UserError: nobody has that number, or some place could not be reached; it names those, and the same command
            goes on.
    """
    root = repository()
    outcome = Outcome()
    forget(beginning, folder, dataset, load(compose(CONF, list(overrides))), root, outcome)
    show(outcome)
    if outcome.failed:
        raise UserError(f"not reached: {'; '.join(outcome.failed)}; see to it, then run the same again")


def forget(beginning: str, folder: Path, dataset: str | None, config: Config, root: Path, outcome: Outcome) -> None:
    """Find what there is of the visitor, note it by digests, then delete it. Raises as for `run`."""
    local = Kept(str(folder), sorted(folder.glob(FEEDBACK_FILES)))
    dataset = dataset or records.pushed_to(folder)
    pushed = reached_dataset(dataset, outcome)
    frozen = root / RECORDS  # of a turn that is under way, which then begins anew
    places = [local, Kept(str(frozen), sorted(frozen.glob(FEEDBACK_FILES))), *([pushed] if pushed else [])]
    visitor = records.find_visitor(beginning, places, workspace.manifests(root))
    checkpoints = root / config.runtime.checkpoint_root
    with opened(root) as repo:
        versions = Versions(repo, root) if repo else None
        traces = Traces(
            files=tuple(records.files_with(visitor, places)),
            datasets=(dataset,) if pushed and dataset and records.files_with(visitor, [pushed]) else (),
        )
        traces = traces.with_more(workspace.traces_of_rows(root, visitor))
        traces = Forgotten.there(root).of(visitor).with_more(traces)
        traces = versions.traces(traces) if versions else traces
        traces = workspace.traces_of_prepared(root, traces, checkpoints)
        traces = Forgotten.there(root).remember(root, visitor, traces)
        outcome.models += workspace.models_trained(root, traces, checkpoints)
        for each in (folder, frozen):
            records.forget_in_folder(each, visitor, outcome)
        if dataset and pushed:
            records.forget_on_hub(folder, dataset, pushed, visitor, outcome)
        workspace.forget_rows(root, visitor, outcome)
        if versions:
            outcome.models += versions.models(traces)
            versions.forget(traces, outcome)
    if traces.prepared or traces.fingerprints:
        forget_in_mlflow(config, traces, outcome)
    workspace.forget_prepared(root, traces, checkpoints, outcome)
    workspace.forget_in_manifests(root, visitor)


def reached_dataset(dataset: str | None, outcome: Outcome) -> Kept | None:
    """Return a dataset's files; None where there is none, or it cannot be had, which is then said."""
    try:
        return of_dataset(dataset) if dataset else None
    except UserError as error:
        outcome.failed.append(str(error))
        return None


def forget_in_mlflow(config: Config, traces: Traces, outcome: Outcome) -> None:
    """Forget what MLflow has, if there is one; one that is out of reach keeps nothing else from being deleted."""
    if not is_there(config.tracking):
        return
    try:
        forget_in_runs(config.tracking, traces, outcome)
    except UserError as error:
        outcome.failed.append(str(error))


def show(outcome: Outcome) -> None:
    """Print what was deleted, which models have learnt the records, and where they may still be."""
    print("\n".join(f"deleted: {line}" for line in outcome.deleted) or "nothing is left to delete")
    if outcome.models:
        print(f"{counted(len(outcome.models), 'model')} made of data that had it, which stay until you remove them:")
        print("\n".join(f"  {line}" for line in outcome.models))
        print("the next `tunesmith turn` or `tunesmith learn` makes rows without it")
    for line in outcome.beyond:
        print(f"not in this command's reach: {line}")
    print(f"noted, by digests alone: {FORGOTTEN}")
