"""Puts the model on the Hub: GGUF files, adapter, merged weights, with a README.md that says what was measured.

    python -m pipeline.publish OWNER/NAME                       # GGUF files and adapter, in a private repository
    python -m pipeline.publish OWNER/NAME --gguf --public       # the GGUF files alone, for everybody
    python -m pipeline.publish OWNER/NAME --adapter --merged    # for PEFT and for Transformers

What the export has not checked, or what has changed since, is not sent. All of it becomes one commit, once everything
has arrived: the repository never holds half a model. The same command goes on with an upload that broke off.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from huggingface_hub import get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import disable_progress_bars, validate_repo_id

from pipeline.config import ModelSettings
from pipeline.errors import UserError
from pipeline.evaluation.card import file_key, model_readme, published_files, usual_parts
from pipeline.evaluation.gate import summed_up
from pipeline.evaluation.loading import path_in_repo
from pipeline.files import atomic_path, read_made, sha256
from pipeline.hub import MANIFEST, README, File, earlier_files, open_repository, send, told
from serve.words import counted

ADAPTER, GGUF, EVALUATION = Path("models/adapter"), Path("models/gguf"), Path("reports/evaluation.json")
LINEAGE = "lineage.json"
PARTS = ("gguf", "adapter", "merged")


@dataclass(frozen=True)
class Recorded:
    """What the stages have written of one training."""

    evaluation: dict[str, Any]
    manifest: dict[str, Any]
    lineage: dict[str, Any]


def main() -> None:
    """Publishes what the command line asks for, or says in one line why not."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.publish", description="Puts the model on the Hub.")
    parser.add_argument("repository", metavar="OWNER/NAME", help="made where there is none")
    parser.add_argument("--gguf", action="store_true", help="the GGUF files of models/gguf, but for the base's")
    parser.add_argument("--adapter", action="store_true", help="for PEFT; gguf and adapter are what is usual")
    parser.add_argument("--merged", action="store_true", help="base and adapter as one 16-bit model, for Transformers")
    visibility = parser.add_mutually_exclusive_group()
    visibility.add_argument("--private", action="store_true", help="for those with access alone: the default")
    visibility.add_argument("--public", action="store_true", help="for everybody")
    parser.add_argument("--failed", action="store_true", help="although it did not pass; README.md says so")
    parser.add_argument("--force", action="store_true", help="into a repository that holds something else, beside that")
    arguments = parser.parse_args()
    if not sys.stderr.isatty():  # a log would have a line for each per cent
        disable_progress_bars()
    try:
        publish(arguments)
    except UserError as error:
        sys.exit(f"publish: {error}")
    except KeyboardInterrupt:
        print("publish: interrupted; the same command goes on with it", file=sys.stderr)
        sys.exit(130)


def publish(arguments: argparse.Namespace) -> None:
    """Checks everything that is here, then the repository, then sends.

    Raises:
        UserError: something is missing, was not checked or has changed, or the Hub refuses or is away.
    """
    check_access(arguments.repository)
    recorded = read_recorded()
    check_verdict(recorded.evaluation["verdict"], arguments.failed)
    parts = [part for part in PARTS if getattr(arguments, part)] or usual_parts(recorded.manifest)
    files = checked_files(recorded.manifest, parts)
    with told(arguments.repository):
        found = open_repository(arguments.repository, not arguments.public)
        earlier = earlier_files(found, arguments.force)
    title = f"{recorded.evaluation['model']} ({recorded.evaluation['fingerprint']})"
    with ExitStack() as stack:
        if "merged" in parts:
            files += stack.enter_context(merged_files(recorded.lineage))
        with told(arguments.repository):
            commit = send(found, files, texts(recorded, arguments.repository, parts, files), earlier, title)
    size = sum(file.entry["bytes"] for file in files)
    print(f"published {counted(len(files), 'file')}, {size / 1e6:,.1f} MB: {commit.commit_url}")
    if "gguf" in parts:
        print(f"to chat with it: SERVE_MODELS=hf://{arguments.repository}@{commit.oid} python -m serve")


def check_access(repository: str) -> None:
    """Raises a `UserError` for a name that no repository can have, or where there is no token."""
    try:
        validate_repo_id(repository)
    except HFValidationError:
        repository = ""
    if repository.count("/") != 1:
        raise UserError("the repository must be named OWNER/NAME, of letters, digits, '-', '_' and '.'")
    if not get_token():
        raise UserError(f"HF_TOKEN is not set; set it to a token that may write to {repository}")


def read_recorded() -> Recorded:
    """What there is to publish, all of one training.

    Raises:
        UserError: a stage has not run, or not since an earlier one ran again.
    """
    lineage = read_made(ADAPTER / LINEAGE, "train")
    manifest = read_made(GGUF / MANIFEST, "export")
    evaluation = read_made(EVALUATION, "evaluate")
    if not manifest.get("adapter"):
        raise UserError(f"{GGUF / MANIFEST} is an older export's, whose files were not checked; run `dvc repro export`")
    if not lineage["fingerprint"] == manifest["fingerprint"] == evaluation["fingerprint"]:
        raise UserError(f"{ADAPTER}, {GGUF} and {EVALUATION} are not of one training; run `dvc repro`")
    if sha256(ADAPTER) != manifest["adapter"]:
        raise UserError(
            f"{ADAPTER} has changed since {GGUF} was made of it; run `dvc checkout {ADAPTER}`, or `dvc repro`"
        )
    for file in published_files(manifest, ("gguf",)):
        evaluated = evaluation["gguf"].get(file_key(file), {})
        if any(evaluated.get(key) != file[key] for key in ("bytes", "kl", "top_1")):
            raise UserError(f"{EVALUATION} does not know {GGUF / file['file']}; run `dvc repro evaluate`")
    return Recorded(evaluation, manifest, lineage)


def check_verdict(verdict: dict[str, Any], failed_too: bool) -> None:
    """Raises a `UserError` for a model that has not passed its evaluation, unless that is wanted."""
    if not verdict["passed"] and not failed_too:
        raise UserError(
            f"the evaluation says {summed_up(verdict)}; --failed publishes the model and says so in its {README}"
        )


def checked_files(manifest: dict[str, Any], parts: Sequence[str]) -> list[File]:
    """The GGUF files and the adapter's, as far as they are asked for, all of them as the export left them.

    Raises:
        UserError: a file is missing, or is another than the one that was checked, or there is one that never was.
    """
    listed = {file["file"] for file in manifest["files"]}
    for path in sorted(GGUF.rglob("*.gguf")):
        if path.relative_to(GGUF).as_posix() not in listed:
            raise UserError(f"{path} is not in {MANIFEST}, so nothing has checked it; take it away, or export it")
    files = [
        File(GGUF / file["file"], {**file, "file": path_in_repo(file)}) for file in published_files(manifest, parts)
    ]
    for file in files:
        if not file.source.is_file() or sha256(file.source) != file.entry["sha256"]:
            raise UserError(f"{file.source} is not the file that was checked ({MANIFEST}); run `dvc repro export`")
    if "adapter" in parts:
        files += adapter_files(manifest)
    return files


def adapter_files(manifest: dict[str, Any]) -> list[File]:
    """Those of the adapter, below adapter/.

    Raises:
        UserError: it is a whole model.
    """
    if manifest["method"] == "full":
        raise UserError("a full fine-tune has no adapter; publish --merged")
    return [described(path, f"adapter/{path.name}", "adapter") for path in contents(ADAPTER)]


@contextmanager
def merged_files(lineage: dict[str, Any]) -> Iterator[list[File]]:
    """Those of the merged model, at the repository's root; they are there until the block ends.

    Raises:
        UserError: the base cannot be loaded, or there is no room for the model in the folder for temporary files.
    """
    import torch  # both take seconds to import, and are needed here alone

    from pipeline.gguf.merge import merge

    model = ModelSettings(**{field.name: lineage["base"][field.name] for field in fields(ModelSettings)})
    with tempfile.TemporaryDirectory(prefix="tunesmith-merged-") as temporary:
        with atomic_path(Path(temporary) / "merged") as folder:
            merge(model, ADAPTER, folder, torch.bfloat16)
        yield [described(path, path.name, "merged") for path in contents(Path(temporary) / "merged")]


def contents(folder: Path) -> list[Path]:
    """The files of a model's folder; the README.md that PEFT makes is an empty form."""
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name != README)


def described(source: Path, path: str, of: str) -> File:
    """A file as the manifest describes those that it has."""
    return File(source, {"file": path, "of": of, "bytes": source.stat().st_size, "sha256": sha256(source)})


def texts(recorded: Recorded, repository: str, parts: Sequence[str], files: list[File]) -> dict[str, str]:
    """The README.md, and the manifest of what is published."""
    manifest = {**recorded.manifest, "files": [file.entry for file in files]}
    return {
        README: model_readme(recorded.evaluation, recorded.manifest, recorded.lineage, repository, parts),
        MANIFEST: json.dumps(manifest, indent=2, ensure_ascii=False) + "\n",
    }


if __name__ == "__main__":
    main()
