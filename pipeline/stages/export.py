"""The adapter becomes GGUF files: merged on the 16-bit base, converted, quantized, and held against the trained model.

Writes models/gguf: <model>-<type>.gguf, the untouched base beside it as <model>-base-<type>.gguf, the adapter alone
where that is asked for, and manifest.json. The folder gets its name when every file in it has passed its checks.
"""

from pipeline.gguf.kernels import fix_kernels
from pipeline.workers.process import prepare_process

if __name__ == "__main__":  # before libraries are loaded
    prepare_process()
    fix_kernels()


import shutil
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from common.errors import UserError
from common.files import atomic_path, sha256
from llama.source import VERSION
from pipeline.core.config import Config, ExportSettings, ModelSettings
from pipeline.core.paths import ADAPTER, GGUF, MANIFEST, TEST, TRAIN
from pipeline.core.records import Lineage, Location, Manifest, ManifestFile, Of
from pipeline.data.prepared import require_prepared
from pipeline.gguf.adapter import make_adapter
from pipeline.gguf.export_set import ROW_TOKENS, ExportContext, ExportSet, make_export_set
from pipeline.gguf.lineage import as_text, file_lineage
from pipeline.gguf.merge import base_folder, link, merge
from pipeline.gguf.verify import Messages
from pipeline.models.chat import encode, is_chat
from pipeline.models.lineage import read_lineage
from pipeline.models.loading import ADAPTER_CONFIG, base_digest, choose_device, read_config
from pipeline.models.packaged import is_packaged
from pipeline.models.turns import RefusedError
from pipeline.stages.run import stage
from pipeline.tracking.run import tracked, training_folder

FIGURES = {"kl": ".2g", "top_1": ".1%", "perplexity": ".3f"}
WEIGHING_ROWS = 64  # training conversations of the importance matrix: 4 minutes for a 1B model on two cores


def run(config: Config, out: Path) -> None:
    """Export models/adapter into `out`/models/gguf."""
    require_prepared(config.data)
    lineage = read_lineage(ADAPTER, config.model)
    require_same_base(lineage, config.model)
    with atomic_path(out / GGUF) as folder:
        work = folder / "work"
        work.mkdir(parents=True)
        context = open_context(folder, work, config.export, choose_device(config.runtime.device))
        files = write_files(config.model, config.export, context, lineage)
        shutil.rmtree(work)
        Manifest(
            base=Location(path=config.model.path, revision=revision_of(config.model)),
            fingerprint=lineage.fingerprint,
            adapter=sha256(ADAPTER),
            llama_cpp_python=VERSION,
            method=config.train.method,
            files=tuple(files),
        ).write(folder / MANIFEST)
    journal = training_folder(config, lineage.fingerprint)
    with tracked(config, journal, "export", lineage.mlflow_run) as tracking:
        tracking.params(config, ("export",))
        tracking.artifact(out / GGUF / MANIFEST)
        tracking.metrics({"gguf": {file.type: {"bytes": file.bytes} for file in files if file.of == "tuned"}})
    print_files(files)


def open_context(folder: Path, work: Path, settings: ExportSettings, device: str) -> ExportContext:
    """Return the rows that files are tried on.

    Raises:
        UserError: a split is missing or empty, or none of it fits the chat template.
    """
    tokenizer = AutoTokenizer.from_pretrained(str(ADAPTER), trust_remote_code=False)
    chats = read_chats(TEST, settings.verify_rows)
    weighing = read_chats(TRAIN, WEIGHING_ROWS) if settings.importance_matrix else []
    rows, weighing_rows = (read_rows(tokenizer, some) for some in (chats, weighing))
    if not rows:
        raise UserError(f"the chat template takes no conversation of {TEST}, so that no file can be tried on one")
    return ExportContext(folder, work, device, [chat for chat in chats if is_chat(chat)], rows, weighing_rows)


def read_rows(tokenizer: PreTrainedTokenizerBase, chats: list[Messages]) -> list[list[int]]:
    """Return the first row of each conversation that the chat template takes, ROW_TOKENS at most."""
    rows = []
    for chat in chats:
        with suppress(RefusedError):
            rows.append(encode(tokenizer, chat, ROW_TOKENS)[0][0])
    return [ids for ids in rows if len(ids) > 1]


def read_chats(path: Path, most: int) -> list[Messages]:
    """Return the first conversations of a prepared split.

    Raises:
        UserError: it is missing or empty.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; run `dvc repro prepare` first")
    chats: list[Messages] = pq.read_table(path)["messages"].slice(0, most).to_pylist()
    if not chats:
        raise UserError(f"{path} has no conversation to try the files on; raise data.test and run `dvc repro prepare`")
    return chats


def write_files(
    model: ModelSettings, settings: ExportSettings, context: ExportContext, lineage: Lineage
) -> list[ManifestFile]:
    """Make and check every file, and describe each as the manifest does.

    Each says in its metadata where it comes from: `lineage` is the adapter's.

    Raises:
        UserError: weights cannot be loaded or do not fit, llama.cpp or the disk refuses, or a file fails a check.
    """
    whole = not (ADAPTER / ADAPTER_CONFIG).is_file()  # a full fine-tune
    if whole and settings.adapter:
        raise UserError("export.adapter is true, and a full fine-tune has no adapter; set it to false")

    def told(of: Of) -> str:
        return as_text(file_lineage(of, lineage, ADAPTER, model, revision_of(model), settings))

    weights = (str(ADAPTER), None, None) if whole else (*model.merge_base, ADAPTER)
    tuned = ExportSet("tuned", model.name, weights, settings.quantizations, told("tuned"))
    base = ExportSet("base", f"{model.name}-base", (*model.merge_base, None), settings.base, told("base"))
    merge(model, ADAPTER, context.work / tuned.name)
    files = make_export_set(tuned, context.work / tuned.name, context)
    if settings.base or settings.adapter:
        link(base_folder(*model.merge_base), ADAPTER, context.work / base.name)
        files += make_export_set(base, context.work / base.name, context)
    if settings.adapter:
        files.append(make_adapter(ADAPTER, tuned, base, context, told("adapter")))
    return files


def require_same_base(lineage: Lineage, model: ModelSettings) -> None:
    """Refuse a base, or a chat template, that has changed under its name.

    Raises:
        UserError: it is not the one that was tuned.
    """
    recorded = lineage.base.digest
    if recorded is not None and recorded != base_digest(model):
        raise UserError(
            f"{model.path} or its chat template has changed since {ADAPTER} was tuned from it; set model.revision to"
            " the commit that it was, or run `dvc repro train`"
        )


def revision_of(model: ModelSettings) -> str | None:
    """Return the base's commit on the hub, or the hash of its package; None for a folder."""
    if is_packaged(model.path):
        return model.revision
    return None if Path(model.path).is_dir() else str(read_config(model)._commit_hash)


def print_files(files: list[ManifestFile]) -> None:
    """Print the exported files as a table."""
    table = Table("file", "MB", "KL in nats", "top 1", "perplexity", title="export")
    for file in files:
        figures = (getattr(file, key) for key in FIGURES)
        shown = (
            "" if value is None else f"{value:{form}}" for value, form in zip(figures, FIGURES.values(), strict=True)
        )
        table.add_row(file.file, f"{file.bytes / 1e6:,.1f}", *shown)
    Console().print(table)


main = stage(run)

if __name__ == "__main__":
    main()
