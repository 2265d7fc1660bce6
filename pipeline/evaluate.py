"""Base against tuned on the same held-out rows, questions and prompts; every GGUF on the same; and the verdict.

Writes reports/evaluation.{json,md,html} with its plots, reports/metrics.json, and what people are told of the model:
models/card.json for the chat, models/README.md for a Hub repository. An interrupted evaluation goes on with what it has
measured; a verdict of fail is a result like any other, and no error.
"""

import functools
import gc
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hydra
import torch

from pipeline.config import Config
from pipeline.data.prepared import require_prepared
from pipeline.evaluation.card import file_key, model_card, model_readme
from pipeline.evaluation.figures import file_figures, gain, lengths, metrics, model_figures, shown_answers
from pipeline.evaluation.gate import judge, verdict_lines
from pipeline.evaluation.harness import check_installed
from pipeline.evaluation.inputs import (
    QUESTIONS,
    TEST,
    Material,
    read_curve,
    read_manifest,
    read_material,
)
from pipeline.evaluation.kept import Kept
from pipeline.evaluation.measure import Measured, Part, measure_file, measure_model
from pipeline.evaluation.report import write
from pipeline.export import ADAPTER, GGUF, MANIFEST, read_lineage
from pipeline.files import read_made, sha256, write_json, write_text
from pipeline.gguf.score import end_tokens
from pipeline.stage import stage
from pipeline.tracking import tracked, training_folder
from pipeline.training.engines import ADAPTER_CONFIG, choose_device, load_base, merge_adapter, read_config
from pipeline.training.requirements import context_holds

REPORTS = Path("reports")
PREPARED, TRAINED, CURVE = REPORTS / "prepare.json", REPORTS / "train.json", REPORTS / "loss.csv"
EVALUATION, METRICS = REPORTS / "evaluation.json", REPORTS / "metrics.json"
CARD = Path("models/card.json")  # the chat looks for it beside its GGUF files, and in the folder above
README = Path("models/README.md")


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
@stage
def main(config: Config, out: Path) -> None:
    """Evaluates models/adapter and models/gguf against the base, into `out`/reports and `out`/models."""
    require_prepared(config.data)
    lineage, manifest = read_lineage(ADAPTER, config.model), read_manifest(GGUF / MANIFEST)
    check_installed(config.evaluate.tasks)
    context_holds("evaluate.max_length", config.evaluate.max_length, read_config(config.model))
    exported = ggufs(manifest)
    given = read_material(ADAPTER, config.evaluate, config.train.loss_on, answer_ends(exported))
    folder = training_folder(config, lineage["fingerprint"])
    kept = Kept(folder, dependencies(config, manifest))
    models = measure_models(config, given, kept.part)
    files = {key: measure_file(key, GGUF / file["file"], given, kept.part) for key, file in exported.items()}
    with tracked(config, folder, config.model.name, lineage["mlflow_run"]) as run:
        evaluation = {
            "model": config.model.name,
            "fingerprint": lineage["fingerprint"],
            "base": manifest["base"],
            "mlflow_run": run.id or lineage["mlflow_run"],
            **evaluated(config, manifest, given, models, files),
        }
        written = write_reports(out, evaluation, manifest, lineage)
        run.params(config, ("evaluate",))
        run.metrics(metrics(evaluation))
        for path in written:
            run.artifact(path)
    kept.remove()
    print("\n".join(verdict_lines(evaluation["verdict"])), flush=True)


def measure_models(config: Config, given: Material, part: Part) -> dict[str, Measured]:
    """What is found of base and tuned model in Transformers, one after the other in memory."""
    measured = {}
    for name in ("base", "tuned"):
        model = functools.cache(functools.partial(load_model, config, tuned=name == "tuned"))
        measured[name] = measure_model(name, model, given, part)
        del model
        gc.collect()
    return measured


def load_model(config: Config, tuned: bool) -> Any:
    """The 16-bit base, or the tuned model: the adapter merged onto it, or a full fine-tune as it is.

    Raises:
        UserError: the weights cannot be loaded, or adapter and base do not fit.
    """
    device = choose_device(config.runtime.device)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    if tuned and not (ADAPTER / ADAPTER_CONFIG).is_file():
        return load_base(str(ADAPTER), None, device, dtype).eval()
    base = load_base(*config.model.merge_base, device, dtype)
    return (merge_adapter(base, ADAPTER) if tuned else base).eval()


def evaluated(
    config: Config,
    manifest: dict[str, Any],
    given: Material,
    models: dict[str, Measured],
    files: dict[str, Measured],
) -> dict[str, Any]:
    """All that was found, as reports/evaluation.json has it."""
    listed = ggufs(manifest)
    counts = {
        "rows": len(given.conversations),
        "tokens": sum(given.scored),
        "questions": len(given.questions),
    }
    figures = {
        "base_model": model_figures(models["base"], given),
        "tuned_model": model_figures(models["tuned"], given),
        "gain": gain(models["base"], models["tuned"], given),
        "gguf": {key: file_figures(listed[key], measured, given) for key, measured in files.items()},
    }
    return {
        **counts,
        "verdict": judge(counts | figures, config.evaluate.gate),
        **figures,
        "prompts": list(config.evaluate.prompts),
        "answers": {name: shown_answers(measured) for name, measured in (models | files).items()},
        "lengths": lengths(models, given.rows),
        "training": read_made(TRAINED) if TRAINED.is_file() else None,
        "curve": read_curve(CURVE) if CURVE.is_file() else [],
        "prepared": read_made(PREPARED) if PREPARED.is_file() else None,
        "settings": {group: asdict(getattr(config, group)) for group in ("export", "evaluate", "train", "data")},
    }


def write_reports(
    out: Path, evaluation: dict[str, Any], manifest: dict[str, Any], lineage: dict[str, Any]
) -> list[Path]:
    """Writes the reports and what goes with the model; returns those that MLflow keeps."""
    write_json(out / EVALUATION, evaluation)
    write_json(out / METRICS, metrics(evaluation))
    shown = write(evaluation, out / REPORTS)
    write_json(out / CARD, model_card(evaluation, manifest, lineage))
    write_text(out / README, model_readme(evaluation, manifest, lineage))
    pages = [path for path in shown if path.stem == EVALUATION.stem]
    return [out / EVALUATION, out / METRICS, *pages, out / CARD, out / README]


def ggufs(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The exported models by what the figures call them, in the manifest's order; adapters are none."""
    return {file_key(file): file for file in manifest["files"] if file["of"] != "adapter"}


def answer_ends(exported: dict[str, dict[str, Any]]) -> frozenset[int]:
    """The token ids that end an answer of the exported files: all have one vocabulary, that of the adapter's tokenizer.

    Raises:
        UserError: the first of them cannot be loaded.
    """
    first = next(iter(exported.values()), None)
    return end_tokens(GGUF / first["file"]) if first else frozenset()


def dependencies(config: Config, manifest: dict[str, Any]) -> dict[str, Any]:
    """All that changes a measurement; the gate does not, nor how much is measured at once."""
    settings = {key: v for key, v in asdict(config.evaluate).items() if key not in ("gate", "batch_size")}
    task_files = [path for path in map(Path, config.evaluate.tasks) if path.is_file()]
    return {
        "base": config.model.merge_base,
        "device": choose_device(config.runtime.device),
        "files": [sha256(path) for path in (ADAPTER, TEST, QUESTIONS, *task_files)],
        "manifest": manifest,
        "settings": {**settings, "loss_on": config.train.loss_on},
    }


if __name__ == "__main__":
    main()
