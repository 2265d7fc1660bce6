"""What a model says of itself: models/card.json for the chat, and the README.md of its repository on the Hub."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from common.words import counted
from pipeline.core.records import Lineage, Manifest, ManifestFile
from pipeline.publishing.licences import terms_of_base, terms_of_data
from pipeline.publishing.usage import on_hub, path_in_repo, shown, ways_to_load
from pipeline.report.formats import Figures
from pipeline.report.markdown import section
from pipeline.report.metrics import HEADLINES, megabytes, metric
from pipeline.report.record import CARD_SETTINGS, Evaluation, ModelFigures
from pipeline.report.tables import RESULTS, Cell, Table, tables, words
from pipeline.report.verdict import outcome

FILE_FIGURES = ("bytes", *HEADLINES, "tokens_per_second")
HUB = "https://huggingface.co"
UNNAMED = "OWNER/NAME"  # of a repository that is still to be made
LIBRARIES = {
    "gguf": "llama-cpp-python",
    "merged": "transformers",
    "adapter": "peft",
}  # the Hub's names; the first counts
METHODS = {
    "lora": "Tuned with LoRA",
    "qlora": "Tuned with LoRA on the base in 4 bit (QLoRA)",
    "full": "All weights tuned",
}
CAUTIONS = {
    "pass": "",
    "fail": "**This model failed its evaluation.** ",
    "too few to tell": "**This model was evaluated on too little to tell.** ",
}
MEASURED = ("engine", "steps", "epochs", "tokens", "seconds", "peak_memory_gib", "train_loss", "validation_loss")


def model_card(evaluation: Evaluation, manifest: Manifest, lineage: Lineage) -> dict[str, Any]:
    """Return where the model comes from, how it and its files were evaluated, and the prompts that it was asked.

    Args:
        evaluation: what reports/evaluation.json holds.
        manifest: of the GGUF files.
        lineage: of the adapter.
    """
    path, revision = lineage.base.merge_base
    card: dict[str, Any] = {"base": {"name": path, "revision": revision}}
    if prepared := evaluation.prepared:
        rows = prepared.splits["train"].rows
        card["data"] = {"name": prepared.data, "revision": prepared.revision, "rows": rows}
    sides = {"base": evaluation.base_model, "tuned": evaluation.tuned_model}
    card["evaluation"] = {name: _some(figures, HEADLINES) for name, figures in sides.items()}
    card["files"] = [
        {"file": file.file, **_some(evaluation.gguf[key], FILE_FIGURES)} for key, file in manifest.models.items()
    ]
    card["prompts"] = list(evaluation.prompts)
    return card


def model_readme(
    evaluation: Evaluation,
    manifest: Manifest,
    lineage: Lineage,
    repository: str = UNNAMED,
    parts: Sequence[str] | None = None,
) -> str:
    """Return the README.md of a repository on the Hub, from what the run has recorded: Markdown under a YAML head.

    Args:
        evaluation: what reports/evaluation.json holds.
        manifest: of the GGUF files.
        lineage: of the adapter.
        repository: owner/name on the Hub.
        parts: what it holds, of gguf, adapter and merged; None for `usual_parts`.
    """
    parts = parts or usual_parts(manifest)
    files = published_files(manifest, parts)
    all_tables = tables(evaluation)
    caution = CAUTIONS[outcome(evaluation.verdict)]
    return "\n".join(
        [
            f"---\n{front_matter(evaluation, manifest, lineage, parts).to_yaml()}\n---\n",
            f"# {evaluation.model}\n",
            f"{caution}{_origin(lineage, manifest.method)}, on {_data_source(evaluation)}.\n",
            _measured_on(evaluation),
            *(section(all_tables[name]) for name in ("models", "harness") if name in all_tables),
            section(_checks(all_tables["checks"])),
            *([section(_files(evaluation, files))] if files else []),
            *(section(all_tables[name]) for name in ("data", "files") if name in all_tables),
            section(_training(evaluation, manifest.method)),
            "## Licences\n",
            _licences(lineage, evaluation.settings["data"]),
            "## How to load it\n",
            *ways_to_load(repository, parts, files, lineage),
        ]
    )


def usual_parts(manifest: Manifest) -> tuple[str, ...]:
    """Return what is published unless something else is asked for; a full fine-tune has no adapter."""
    return ("gguf", "merged" if manifest.method == "full" else "adapter")


def published_files(manifest: Manifest, parts: Sequence[str]) -> list[ManifestFile]:
    """Return the manifest's files that belong to these parts; the base is its owner's to publish."""
    part_of = {"tuned": "gguf", "adapter": "adapter"}
    return [file for file in manifest.files if part_of.get(file.of) in parts]


def front_matter(evaluation: Evaluation, manifest: Manifest, lineage: Lineage, parts: Sequence[str]) -> ModelCardData:
    """Return what the Hub reads of a README; what is not known, or is not on the Hub, is left out."""
    base, _ = lineage.base.merge_base
    data = evaluation.settings["data"]
    terms = terms_of_base(base)
    _, language = terms_of_data(_data_name(data))
    results = _results(evaluation, data)
    return ModelCardData(
        base_model=base if on_hub(base) else None,
        base_model_relation=("adapter" if list(parts) == ["adapter"] else "finetune") if on_hub(base) else None,
        license=terms.identifier if terms else None,
        language=language,
        datasets=[data["path"]] if data["source"] == "hub" else None,
        library_name=next(library for part, library in LIBRARIES.items() if part in parts),
        pipeline_tag="text-generation",
        tags=["conversational", manifest.method, *parts, "tunesmith"],
        model_name=evaluation.model if results else None,
        eval_results=results or None,
    )


def _results(evaluation: Evaluation, data: dict[str, Any]) -> list[EvalResult]:
    """Return the tuned model's figures as the Hub shows them beside the page."""
    tuned = evaluation.tuned_model
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=_data_name(data),
            dataset_name=data["name"],
            dataset_split="test",
            metric_type=key,
            metric_value=value,
        )
        for key in HEADLINES
        if (value := getattr(tuned, key)) is not None
    ]


def _origin(lineage: Lineage, method: str) -> str:
    base = lineage.base
    merged = f", merged onto {_linked(*base.merge_base)}" if base.merge_path else ""
    return f"{METHODS[method]}, from {_linked(base.path, base.revision)}{merged}"


def _linked(path: str, revision: str | None) -> str:
    if not on_hub(path):
        return f"`{shown(path)}`"
    return f"[{path}]({HUB}/{path}) at " + (f"revision `{revision}`" if revision else "its main branch")


def _measured_on(evaluation: Evaluation) -> str:
    questions = f" and {counted(evaluation.questions, 'question')} with known answers" if evaluation.questions else ""
    scored = f"{counted(evaluation.rows, 'conversation')} ({counted(evaluation.tokens, 'token')} of the assistant)"
    return f"Measured on {scored}{questions} that it was not trained on.\n"


def _checks(table: Table) -> Table:
    """Return those of single tasks only where they failed: there can be hundreds."""
    rows = [row for row in table.rows if not (str(row[0]).startswith("task ") and row[1] == RESULTS[True])]
    rest = len(table.rows) - len(rows)
    return replace(table, rows=rows, note=f"Passed as well: {counted(rest, 'check')} of single tasks." if rest else "")


def _files(evaluation: Evaluation, files: list[ManifestFile]) -> Table:
    figures = Figures(evaluation)
    shown = [metric(name) for name in ("kl", "top_1", "perplexity", "accuracy")]
    rows: list[list[Cell]] = [
        [
            path_in_repo(file),
            megabytes(file.bytes),
            *(figures("gguf", file.key, one.name) for one in shown),
            file.sha256,
        ]
        for file in files
    ]
    note = (
        "Before it got its name, each file was loaded, and its vocabulary, template, tokens and logits were held "
        "against the trained model's. KL divergence and top-1 agreement: of an unquantized file from the trained "
        "model, of a quantized one from the unquantized. Perplexity and accuracy: as above, with llama.cpp."
    )
    return Table("GGUF files", ["file", "MB", *(one.head for one in shown), "sha256"], rows, note)


def _data_source(evaluation: Evaluation) -> str:
    data, prepared = evaluation.settings["data"], evaluation.prepared
    if data["source"] != "hub":
        return f"the files of `{data['name']}`"
    revision = prepared.revision if prepared else None
    return f"[{data['path']}]({HUB}/datasets/{data['path']})" + (f" at revision `{revision}`" if revision else "")


def _training(evaluation: Evaluation, method: str) -> Table:
    settings, figures = evaluation.settings["train"], Figures(evaluation)
    lora = {} if method == "full" else settings["lora"]
    others = {key: settings[key] for key in CARD_SETTINGS["train"] if key != "lora"}
    setup = {**{f"LoRA {key}": value for key, value in lora.items()}, **others}
    rows: list[list[Cell]] = [["method", method]]
    rows += [
        [words(key), ", ".join(map(str, value)) if isinstance(value, list) else str(value)]
        for key, value in setup.items()
    ]
    measured = ((key, figures("training", key)) for key in MEASURED)
    rows += [[words(key), figure] for key, figure in measured if figure.value is not None]
    return Table("Training", ["", ""], rows)


def _licences(lineage: Lineage, data: dict[str, Any]) -> str:
    base, _ = lineage.base.merge_base
    of_base, (of_data, _) = terms_of_base(base), terms_of_data(_data_name(data))
    unknown = "not recorded; see the {}'s own page"
    lines = [
        f"- base: {of_base.name if of_base else unknown.format('base')}",
        f"- data: {of_data.name if of_data else unknown.format('data set')}",
    ]
    return "\n".join(lines) + (f"\n\n{of_base.notice}\n" if of_base and of_base.notice else "\n")


def _data_name(settings: dict[str, Any]) -> str:
    name: str = settings["path"] if settings["source"] == "hub" else settings["name"]
    return name


def _some(figures: ModelFigures, keys: Sequence[str]) -> dict[str, float | None]:
    return {key: getattr(figures, key) for key in keys if key in figures.model_fields_set}
