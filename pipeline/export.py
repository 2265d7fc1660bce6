"""The adapter becomes GGUF files: merged on the 16-bit base, converted, quantized, and held against the trained model.

Writes models/gguf: <model>-<type>.gguf, the untouched base beside it as <model>-base-<type>.gguf, the adapter alone
where that is asked for, and manifest.json. The folder gets its name when every file in it has passed its checks.
"""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import hydra
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from pipeline.config import Config, ExportSettings, ModelSettings
from pipeline.data.prepared import require_prepared
from pipeline.errors import UserError
from pipeline.files import atomic_path, read_made, sha256, write_json
from pipeline.gguf.adapter import make_adapter
from pipeline.gguf.family import ROW_TOKENS, Bench, Family, make_family
from pipeline.gguf.merge import base_folder, link, merge
from pipeline.gguf.source import VERSION
from pipeline.gguf.verify import Messages
from pipeline.models.packaged import is_packaged
from pipeline.stage import stage
from pipeline.tracking import tracked, training_folder
from pipeline.training.chat import encode, is_text
from pipeline.training.engines import ADAPTER_CONFIG, base_digest, choose_device, read_config
from pipeline.training.turns import RefusedError

ADAPTER = Path("models/adapter")
GGUF = Path("models/gguf")
MANIFEST = "manifest.json"
TEST, TRAIN = Path("data/prepared/test.parquet"), Path("data/prepared/train.parquet")
FIGURES = {"kl": ".2g", "top_1": ".1%", "perplexity": ".3f"}
WEIGHING_ROWS = 64  # training conversations of the importance matrix: 4 minutes for a 1B model on two cores


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
@stage
def main(config: Config, out: Path) -> None:
    """Exports models/adapter into `out`/models/gguf."""
    require_prepared(config.data)
    lineage = read_lineage(ADAPTER, config.model)
    require_same_base(lineage, config.model)
    with atomic_path(out / GGUF) as folder:
        work = folder / "work"
        work.mkdir(parents=True)
        bench = open_bench(folder, work, config.export, choose_device(config.runtime.device))
        files = write_files(config.model, config.export, bench)
        shutil.rmtree(work)
        manifest = {
            "base": {"path": config.model.path, "revision": revision_of(config.model)},
            "fingerprint": lineage["fingerprint"],
            "adapter": sha256(ADAPTER),
            "llama_cpp_python": VERSION,
            "method": config.train.method,
            "files": files,
        }
        write_json(folder / MANIFEST, manifest)
    journal = training_folder(config, lineage["fingerprint"])
    with tracked(config, journal, config.model.name, lineage["mlflow_run"]) as run:
        run.params(config, ("export",))
        run.artifact(out / GGUF / MANIFEST)
        run.metrics({"gguf": {file["type"]: {"bytes": file["bytes"]} for file in files if file["of"] == "tuned"}})
    print_files(files)


def open_bench(folder: Path, work: Path, settings: ExportSettings, device: str) -> Bench:
    """The rows that files are tried on.

    Raises:
        UserError: a split is missing or empty, or none of it fits the chat template.
    """
    tokenizer = AutoTokenizer.from_pretrained(str(ADAPTER))
    chats = read_chats(TEST, settings.verify_rows)
    weighing = read_chats(TRAIN, WEIGHING_ROWS) if settings.importance_matrix else []
    rows, weighing_rows = (read_rows(tokenizer, some) for some in (chats, weighing))
    if not rows:
        raise UserError(f"the chat template takes no conversation of {TEST}, so that no file can be tried on one")
    return Bench(folder, work, device, [chat for chat in chats if not is_text(chat)], rows, weighing_rows)


def read_rows(tokenizer: PreTrainedTokenizerBase, chats: list[Messages]) -> list[list[int]]:
    """The first row of each conversation that the chat template takes, ROW_TOKENS at most."""
    rows = []
    for chat in chats:
        with suppress(RefusedError):
            rows.append(encode(tokenizer, chat, ROW_TOKENS)[0][0])
    return [ids for ids in rows if len(ids) > 1]


def read_chats(path: Path, most: int) -> list[Messages]:
    """The first conversations of a prepared split.

    Raises:
        UserError: it is missing or empty.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; run `dvc repro prepare` first")
    chats: list[Messages] = pq.read_table(path)["messages"].slice(0, most).to_pylist()
    if not chats:
        raise UserError(f"{path} has no conversation to try the files on; raise data.test and run `dvc repro prepare`")
    return chats


def write_files(model: ModelSettings, settings: ExportSettings, bench: Bench) -> list[dict[str, Any]]:
    """Makes and checks every file, and describes each as the manifest does.

    Raises:
        UserError: weights cannot be loaded or do not fit, llama.cpp or the disk refuses, or a file fails a check.
    """
    whole = not (ADAPTER / ADAPTER_CONFIG).is_file()  # a full fine-tune
    if whole and settings.adapter:
        raise UserError("export.adapter is true, and a full fine-tune has no adapter; set it to false")
    weights = (str(ADAPTER), None, None) if whole else (*model.merge_base, ADAPTER)
    tuned = Family("tuned", model.name, weights, settings.quantizations)
    base = Family("base", f"{model.name}-base", (*model.merge_base, None), settings.base)
    merge(model, ADAPTER, bench.work / tuned.name)
    files = make_family(tuned, bench.work / tuned.name, bench)
    if settings.base or settings.adapter:
        link(base_folder(*model.merge_base), ADAPTER, bench.work / base.name)
        files += make_family(base, bench.work / base.name, bench)
    if settings.adapter:
        files.append(make_adapter(ADAPTER, tuned, base, bench))
    return files


def read_lineage(adapter: Path, model: ModelSettings) -> dict[str, Any]:
    """Where an adapter comes from: base, fingerprint, MLflow run.

    Raises:
        UserError: there is no adapter, or another base than `model` was tuned; PEFT would fit what happens to fit.
    """
    lineage = read_made(adapter / "lineage.json", "train")
    if lineage["base"]["path"] != model.path:
        tuned = f"{adapter} was tuned from {lineage['base']['path']}"
        raise UserError(f"{tuned} and model.path is {model.path}; run `dvc repro train` first")
    return lineage


def require_same_base(lineage: dict[str, Any], model: ModelSettings) -> None:
    """Refuses a base, or a chat template, that has changed under its name.

    Raises:
        UserError: it is not the one that was tuned.
    """
    recorded = lineage["base"].get("digest")
    if recorded is not None and recorded != base_digest(model):
        raise UserError(
            f"{model.path} or its chat template has changed since {ADAPTER} was tuned from it; set model.revision to"
            " the commit that it was, or run `dvc repro train`"
        )


def revision_of(model: ModelSettings) -> str | None:
    """The base's commit on the hub, or the hash of its package; None for a folder."""
    if is_packaged(model.path):
        return model.revision
    return None if Path(model.path).is_dir() else str(read_config(model)._commit_hash)


def print_files(files: list[dict[str, Any]]) -> None:
    """The exported files as a table."""
    table = Table("file", "MB", "KL in nats", "top 1", "perplexity", title="export")
    for file in files:
        figures = ["" if file.get(key) is None else f"{file[key]:{form}}" for key, form in FIGURES.items()]
        table.add_row(file["file"], f"{file['bytes'] / 1e6:,.1f}", *figures)
    Console().print(table)


if __name__ == "__main__":
    main()
