"""What was measured is judged and shown: the verdict, pages, plots, the model's card and its README.

Reads reports/measurements.json and what earlier stages reported; loads no model, and takes seconds. A verdict of fail
is a result like any other, and no error.
"""

from pipeline.workers.process import prepare_process

if __name__ == "__main__":  # before libraries are loaded
    prepare_process()

from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError

from common.errors import UserError
from common.files import write_json, write_text
from pipeline.core.config import Config, GateSettings
from pipeline.core.paths import (
    ADAPTER,
    CARD,
    DATA_CARD,
    DATA_PAGE,
    DATA_REPORT,
    EVALUATION,
    GGUF,
    HEADLINES,
    LOSS_CURVE,
    MANIFEST,
    MEASUREMENTS,
    METRICS,
    PREPARE_REPORT,
    README,
    REPORTS,
    ROWS,
    TRAIN_REPORT,
)
from pipeline.core.records import Lineage, Manifest, PrepareReport, TrainReport, first_fault
from pipeline.data_report.record import DataReport
from pipeline.models.lineage import read_lineage
from pipeline.publishing.card import model_card, model_readme
from pipeline.report.curve import read_curve
from pipeline.report.files import write
from pipeline.report.numbers import headlines, numbers
from pipeline.report.record import Evaluation, Measurements
from pipeline.report.rows import RowResults
from pipeline.report.verdict import judge, verdict_lines
from pipeline.stages.run import stage
from pipeline.tracking.run import tracked, training_folder


def run(config: Config, out: Path) -> None:
    """Judge and show the measurements, into `out`/reports and `out`/models."""
    lineage, manifest = read_lineage(ADAPTER, config.model), Manifest.read(GGUF / MANIFEST)
    measured, rows = Measurements.read(MEASUREMENTS), RowResults.read(ROWS)
    require_one_training(measured, manifest, lineage)
    require_same_models(measured, rows)
    folder = training_folder(config, lineage.fingerprint)
    with tracked(config, folder, "report", lineage.mlflow_run) as tracking:
        evaluation = judged(measured, rows, config.evaluate.gate, tracking.id or lineage.mlflow_run)
        tracking.params(config, ("evaluate",))
        tracking.metrics(numbers(evaluation))
        if DATA_REPORT.is_file():
            tracking.metrics({"data": DataReport.read(DATA_REPORT).numbers})
        if evaluation.prepared:
            tracking.splits(evaluation.prepared, ["test"])
        shown = filter(Path.is_file, (DATA_REPORT, DATA_PAGE, DATA_CARD, ROWS))
        for path in (*shown, *write_reports(out, evaluation, manifest, lineage)):
            tracking.artifact(path)
    print("\n".join(verdict_lines(evaluation.verdict)), flush=True)


def require_one_training(measured: Measurements, manifest: Manifest, lineage: Lineage) -> None:
    """Refuse what does not belong together.

    Raises:
        UserError: adapter, files and measurements are not all of one training, or other files were measured.
    """
    if not measured.fingerprint == manifest.fingerprint == lineage.fingerprint:
        raise UserError(f"{ADAPTER}, {GGUF} and {MEASUREMENTS} are not of one training; run `dvc repro`")
    for key in {**manifest.models, **measured.gguf}:
        file, figures = manifest.models.get(key), measured.gguf.get(key)
        if file is None or figures is None or not figures.is_of(file):
            raise UserError(f"{MEASUREMENTS} is not of the {key} file that {GGUF} has; run `dvc repro evaluate`")


def require_same_models(measured: Measurements, rows: RowResults) -> None:
    """Refuse rows of another evaluation.

    Raises:
        UserError: they are of other models, or fewer than the figures rest on.
    """
    found = rows.models.values()
    enough = all(len(one.nats) >= measured.rows and len(one.right) >= measured.questions for one in found)
    if rows.models.keys() != measured.models.keys() or not enough:
        raise UserError(f"{MEASUREMENTS} and {ROWS} are not of one evaluation; run `dvc repro -sf evaluate`")


def judged(measured: Measurements, rows: RowResults, gate: GateSettings, mlflow_run: str | None) -> Evaluation:
    """Return the measurements with their verdict, and with what earlier stages reported.

    Raises:
        UserError: what they reported is of other data, or of another training.
    """
    measured_fields = {name: getattr(measured, name) for name in measured.model_fields_set}
    settings = {**measured.settings, "evaluate": {**measured.settings["evaluate"], "gate": asdict(gate)}}
    added = {
        "mlflow_run": mlflow_run,
        "settings": settings,
        "verdict": judge(measured, rows, gate),
        "training": TrainReport.read(TRAIN_REPORT) if TRAIN_REPORT.is_file() else None,
        "curve": read_curve(LOSS_CURVE),
        "prepared": PrepareReport.read(PREPARE_REPORT) if PREPARE_REPORT.is_file() else None,
    }
    try:
        return Evaluation(**measured_fields | added)
    except ValidationError as error:
        raise UserError(
            f"what is in {REPORTS} does not belong together: {first_fault(error)}; run `dvc repro`"
        ) from error


def write_reports(out: Path, evaluation: Evaluation, manifest: Manifest, lineage: Lineage) -> list[Path]:
    """Write the reports and what goes with the model; return those that MLflow keeps."""
    evaluation.write(out / EVALUATION)
    write_json(out / METRICS, numbers(evaluation))
    write_json(out / HEADLINES, headlines(evaluation))
    shown = write(evaluation, out / REPORTS)
    write_json(out / CARD, model_card(evaluation, manifest, lineage))
    write_text(out / README, model_readme(evaluation, manifest, lineage))
    pages = [path for path in shown if path.stem == EVALUATION.stem]
    return [out / EVALUATION, out / METRICS, *pages, out / CARD, out / README]


main = stage(run)

if __name__ == "__main__":
    main()
