"""Base, tuned model and each GGUF file are measured on what none was trained on: loss, answers, seconds.

Writes reports/measurements.json, and what was found of each row to reports/rows.json. A model is measured until every
gate that needs it is decided; what was measured is kept beside the checkpoints until what it depends on changes.
"""

from pipeline.workers.process import prepare_process

if __name__ == "__main__":  # before libraries are loaded
    prepare_process()

import functools
import gc
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import PreTrainedModel

from common.files import sha256
from pipeline.core.code import code_digest
from pipeline.core.config import Config
from pipeline.core.gguf_types import whole_of
from pipeline.core.paths import ADAPTER, GGUF, MANIFEST, MEASUREMENTS, ROWS
from pipeline.core.records import Lineage, Manifest, ManifestFile
from pipeline.data.prepared import require_general, require_prepared
from pipeline.evaluation.figures import (
    file_figures,
    gain,
    lengths,
    model_figures,
    on_the_same,
    row_results,
    shown_answers,
)
from pipeline.evaluation.general import with_general
from pipeline.evaluation.gguf_scores import end_tokens
from pipeline.evaluation.harness import PACKAGE as HARNESS
from pipeline.evaluation.harness import check_installed
from pipeline.evaluation.inputs import Extent, Material, read_material
from pipeline.evaluation.measure import Measured, measure_file, measure_model
from pipeline.evaluation.measurement_cache import MeasurementCache
from pipeline.evaluation.preferences import with_pairs
from pipeline.evaluation.stopping import measure_until_decided
from pipeline.judging.endpoint import endpoint
from pipeline.judging.judge import judgement
from pipeline.models.lineage import read_lineage
from pipeline.models.loading import (
    ADAPTER_CONFIG,
    choose_device,
    context_holds,
    device_name,
    load_base,
    merge_adapter,
    read_config,
)
from pipeline.report.record import SCHEMA, FileFigures, Judgement, Measurements
from pipeline.stages.run import stage
from pipeline.tracking.run import training_folder

CODE = (  # that measures
    *("llama", "pipeline/data/grading.py", "pipeline/data/word_runs.py", "pipeline/evaluation", "pipeline/models"),
    "pipeline/stages/evaluate.py",
)
# What computes a figure, as it is installed: the manifest has llama.cpp's version of when the files were made.
LIBRARIES = ("llama-cpp-python", "numpy", "peft", "tokenizers", "torch", "transformers")


def run(config: Config, out: Path) -> None:
    """Measure models/adapter and models/gguf against the base, into `out`/reports."""
    require_prepared(config.data)
    require_general(config.evaluate.general)
    lineage, manifest = read_lineage(ADAPTER, config.model), Manifest.read(GGUF / MANIFEST)
    check_installed(config.evaluate.tasks)
    judge = endpoint(config.evaluate.judge)
    context_holds("evaluate.max_length", config.evaluate.max_length, read_config(config.model))
    material = read_material(ADAPTER, config.evaluate, config.train.loss_on, answer_ends(manifest.models))
    material = with_pairs(with_general(material))
    folder = training_folder(config, lineage.fingerprint)
    cache = MeasurementCache(folder, dependencies(config))
    measure = functools.partial(measure_one, config, manifest, material, cache)
    results = functools.partial(row_results, material=material)
    found = measure_until_decided(("base", "tuned", *manifest.models), measure, results, material)
    alike, part = on_the_same(found, material)
    said = judgement(judge, config.evaluate.judge, alike, part, cache) if judge else None
    measurements(config, lineage, manifest, alike, part, said).write(out / MEASUREMENTS)
    results(found).write(out / ROWS)


def measure_one(
    config: Config, manifest: Manifest, material: Material, cache: MeasurementCache, name: str, extent: Extent
) -> Measured:
    """Return what is found of a model; of those in Transformers one at a time is in memory."""
    if name in manifest.models:
        file = manifest.models[name]
        return measure_file(name, GGUF / file.file, file.sha256, material, cache, extent)
    model = functools.cache(functools.partial(load_model, config, tuned=name == "tuned"))
    has_file = any(file.of == name for file in manifest.models.values())
    measured = measure_model(name, model, material, cache, extent, has_file)
    del model
    gc.collect()
    return measured


def load_model(config: Config, tuned: bool) -> PreTrainedModel:
    """Return the 16-bit base, or the tuned model: the adapter merged onto it, or a full fine-tune as it is.

    Raises:
        UserError: the weights cannot be loaded, or adapter and base do not fit.
    """
    device = choose_device(config.runtime.device)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    if tuned and not (ADAPTER / ADAPTER_CONFIG).is_file():
        return load_base(str(ADAPTER), None, device, dtype).eval()
    base = load_base(*config.model.merge_base, device, dtype)
    return (merge_adapter(base, ADAPTER) if tuned else base).eval()


def measurements(
    config: Config,
    lineage: Lineage,
    manifest: Manifest,
    found: dict[str, Measured],
    material: Material,
    judged: Judgement | None = None,
) -> Measurements:
    """Return all that was found, as reports/measurements.json has it."""
    models = {name: found[name] for name in ("base", "tuned")}
    settings = {group: asdict(getattr(config, group)) for group in ("export", "evaluate", "train", "data")}
    del settings["evaluate"]["gate"]  # which judges, and measures nothing

    def figures(key: str, file: ManifestFile) -> FileFigures:
        whole = whole_of(key, found)
        return file_figures(file, found[key], material, models["base"], found[whole] if whole != key else None)

    return Measurements(
        schema_version=SCHEMA,
        model=config.model.name,
        fingerprint=lineage.fingerprint,
        base=manifest.base,
        mlflow_run=lineage.mlflow_run,
        rows=len(material.conversations),
        tokens=sum(material.scored),
        questions=len(material.questions),
        base_model=model_figures(models["base"], material),
        tuned_model=model_figures(models["tuned"], material, models["base"]),
        gain=gain(models["base"], models["tuned"], material),
        gguf={key: figures(key, file) for key, file in manifest.models.items()},
        prompts=tuple(config.evaluate.prompts),
        answers={name: shown_answers(measured) for name, measured in found.items()},
        lengths=lengths(models, material.rows),
        **({"judgement": judged} if judged else {}),
        settings=settings,
    )


def answer_ends(models: Mapping[str, ManifestFile]) -> frozenset[int]:
    """Return the token ids that end an answer of the exported models, whose vocabulary is that of the adapter.

    Raises:
        UserError: the first of them cannot be loaded.
    """
    first = next(iter(models.values()), None)
    return end_tokens(GGUF / first.file) if first else frozenset()


def dependencies(config: Config) -> dict[str, object]:
    """Return what changes every measurement; what changes some is told with those (measure.py)."""
    return {
        "adapter": sha256(ADAPTER),
        "base": config.model.merge_base,
        "code": code_digest(*CODE),
        "device": device_name(choose_device(config.runtime.device)),
        "libraries": libraries(config.evaluate.tasks),
    }


def libraries(tasks: list[str]) -> dict[str, str]:
    """Return the versions of what measures; the harness's only where it is asked."""
    return {name: version(name) for name in (*LIBRARIES, *((HARNESS,) if tasks else ()))}


main = stage(run)

if __name__ == "__main__":
    main()
