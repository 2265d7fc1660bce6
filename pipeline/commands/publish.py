"""Puts the model on the Hub: GGUF files, adapter, merged weights, with a README.md that says what was measured.

    tunesmith publish OWNER/NAME                       # GGUF files and adapter, in a private repository
    tunesmith publish OWNER/NAME --gguf --public       # the GGUF files alone, for everybody
    tunesmith publish OWNER/NAME --adapter --merged    # for PEFT and for Transformers

What the export has not checked, or what has changed since, is not sent. All of it becomes one commit, once everything
has arrived: the repository never holds half a model. The same command goes on with an upload that broke off.
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import get_token
from huggingface_hub.utils import disable_progress_bars
from securesystemslib.signer import CryptoSigner

from common.errors import UserError
from common.files import atomic_path, sha256
from common.words import counted
from pipeline.core.paths import ADAPTER, EVALUATION, GGUF, LINEAGE, MANIFEST
from pipeline.core.records import Lineage, Manifest
from pipeline.provenance.artifacts import BUNDLE
from pipeline.provenance.bundles import sign
from pipeline.provenance.signing import OWN, own_signer
from pipeline.publishing.card import model_readme, published_files, usual_parts
from pipeline.publishing.hub import README, RepositoryFile, check_name, earlier_files, open_repository, send, told
from pipeline.publishing.usage import path_in_repo
from pipeline.report.record import Evaluation, Verdict
from pipeline.report.verdict import summed_up

PARTS = ("gguf", "adapter", "merged")


@dataclass(frozen=True)
class Recorded:
    """What the stages have written of one training."""

    evaluation: Evaluation
    manifest: Manifest
    lineage: Lineage


def run(
    repository: str, parts: Sequence[str] = (), public: bool = False, failed: bool = False, force: bool = False
) -> None:
    """Publish the model; an upload that Ctrl-C ends can be gone on with.

    Args:
        repository: OWNER/NAME, made where there is none.
        parts: of PARTS; without any, what is usual for the model.
        public: make a repository that everybody sees.
        failed: publish although the model did not pass its evaluation.
        force: publish into a repository that holds something else, beside that.

    Raises:
        UserError: as for `publish`.
    """
    if not sys.stderr.isatty():  # a log would have a line for each per cent
        disable_progress_bars()
    try:
        publish(repository, parts, public, failed, force)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on with it") from None


def publish(repository: str, requested_parts: Sequence[str], public: bool, failed: bool, force: bool) -> None:
    """Check everything that is here, then the repository, then send.

    Raises:
        UserError: something is missing, was not checked or has changed, or the Hub refuses or is away.
    """
    check_access(repository)
    recorded = read_recorded()
    check_verdict(recorded.evaluation.verdict, failed)
    parts = [part for part in PARTS if part in requested_parts] or usual_parts(recorded.manifest)
    files = checked_files(recorded.manifest, parts)
    signer = own_signer()
    if signer is not None:
        files += bundles(files, signer)
    with told(repository):
        found = open_repository(repository, not public)
        earlier = earlier_files(found, force)
    title = f"{recorded.evaluation.model} ({recorded.evaluation.fingerprint})"
    with ExitStack() as stack:
        if "merged" in parts:
            files += stack.enter_context(merged_files(recorded.lineage))
        with told(repository):
            commit = send(found, files, texts(recorded, repository, parts, files), earlier, title)
    size = sum(file.entry["bytes"] for file in files)
    print(f"published {counted(len(files), 'file')}, {size / 1e6:,.1f} MB: {commit.commit_url}")
    print(signed_or_not(signer, "merged" in parts))
    if "gguf" in parts:
        print(f"to chat with it: SERVE_MODELS=hf://{repository}@{commit.oid} tunesmith serve")


def check_access(repository: str) -> None:
    """Raise a `UserError` for a name that no repository can have, or where there is no token."""
    check_name(repository)
    if not get_token():
        raise UserError(f"HF_TOKEN is not set; set it to a token that may write to {repository}")


def read_recorded() -> Recorded:
    """Return what there is to publish, all of one training.

    Raises:
        UserError: a stage has not run, or not since an earlier one ran again.
    """
    lineage = Lineage.read(ADAPTER / LINEAGE)
    manifest = Manifest.read(GGUF / MANIFEST)
    evaluation = Evaluation.read(EVALUATION)
    if not lineage.fingerprint == manifest.fingerprint == evaluation.fingerprint:
        raise UserError(f"{ADAPTER}, {GGUF} and {EVALUATION} are not of one training; run `dvc repro`")
    if sha256(ADAPTER) != manifest.adapter:
        raise UserError(
            f"{ADAPTER} has changed since {GGUF} was made of it; run `dvc checkout {ADAPTER}`, or `dvc repro`"
        )
    for file in published_files(manifest, ("gguf",)):
        evaluated = evaluation.gguf.get(file.key)
        if evaluated is None or not evaluated.is_of(file):
            raise UserError(f"{EVALUATION} does not know {GGUF / file.file}; run `dvc repro evaluate`")
    return Recorded(evaluation, manifest, lineage)


def check_verdict(verdict: Verdict, failed_too: bool) -> None:
    """Raise a `UserError` for a model that has not passed its evaluation, unless that is wanted."""
    if not verdict.passed and not failed_too:
        raise UserError(
            f"the evaluation says {summed_up(verdict)}; --failed publishes the model and says so in its {README}"
        )


def checked_files(manifest: Manifest, parts: Sequence[str]) -> list[RepositoryFile]:
    """Return the GGUF files and the adapter's, as far as they are asked for, all of them as the export left them.

    Raises:
        UserError: a file is missing, or is another than the one that was checked, or there is one that never was.
    """
    listed = {file.file for file in manifest.files}
    for path in sorted(GGUF.rglob("*.gguf")):
        if path.relative_to(GGUF).as_posix() not in listed:
            raise UserError(f"{path} is not in {MANIFEST}, so nothing has checked it; take it away, or export it")
    files = [
        RepositoryFile(GGUF / file.file, {**file.tree(), "file": path_in_repo(file)})
        for file in published_files(manifest, parts)
    ]
    for file in files:
        if not file.source.is_file() or sha256(file.source) != file.entry["sha256"]:
            raise UserError(f"{file.source} is not the file that was checked ({MANIFEST}); run `dvc repro export`")
    if "adapter" in parts:
        files += adapter_files(manifest)
    return files


def adapter_files(manifest: Manifest) -> list[RepositoryFile]:
    """Return those of the adapter, below adapter/.

    Raises:
        UserError: it is a whole model.
    """
    if manifest.method == "full":
        raise UserError("a full fine-tune has no adapter; publish --merged")
    return [described(path, f"adapter/{path.name}", "adapter") for path in contents(ADAPTER)]


def bundles(files: Sequence[RepositoryFile], signer: CryptoSigner) -> list[RepositoryFile]:
    """Sign the GGUF files and the adapter, and return what stands beside each.

    Raises:
        UserError: one does not say where it comes from.
    """
    ggufs = [file for file in files if file.source.parent == GGUF]
    found = [described(sign(file.source, signer), f"{file.path}{BUNDLE}", "signature") for file in ggufs]
    if any(file.source.parent == ADAPTER for file in files):
        found.append(described(sign(ADAPTER, signer), f"{ADAPTER.name}{BUNDLE}", "signature"))
    return found


def signed_or_not(signer: CryptoSigner | None, merged: bool) -> str:
    """Return what is said of signatures."""
    if signer is None:
        return f"unsigned: {OWN} names no key, and `tunesmith keygen` makes one"
    others = ", but for the merged weights" if merged else ""
    return f"signed by {signer.public_key.keyid[:16]}{others}"


@contextmanager
def merged_files(lineage: Lineage) -> Iterator[list[RepositoryFile]]:
    """Yield those of the merged model, at the repository's root; they are there until the block ends.

    Raises:
        UserError: the base cannot be loaded, or there is no room for the model in the folder for temporary files.
    """
    import torch  # both take seconds to import, and are needed here alone

    from pipeline.gguf.merge import merge

    with tempfile.TemporaryDirectory(prefix="tunesmith-merged-") as temporary:
        with atomic_path(Path(temporary) / "merged") as folder:
            merge(lineage.base, ADAPTER, folder, torch.bfloat16)
        yield [described(path, path.name, "merged") for path in contents(Path(temporary) / "merged")]


def contents(folder: Path) -> list[Path]:
    """Return the files of a model's folder; the README.md that PEFT makes is an empty form."""
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name != README)


def described(source: Path, path: str, of: str) -> RepositoryFile:
    """Return a file as the manifest describes those that it has."""
    return RepositoryFile(source, {"file": path, "of": of, "bytes": source.stat().st_size, "sha256": sha256(source)})


def texts(recorded: Recorded, repository: str, parts: Sequence[str], files: list[RepositoryFile]) -> dict[str, str]:
    """Return the README.md, and the manifest of what is published."""
    manifest = {**recorded.manifest.tree(), "files": [file.entry for file in files]}
    return {
        README: model_readme(recorded.evaluation, recorded.manifest, recorded.lineage, repository, parts),
        MANIFEST: json.dumps(manifest, indent=2, ensure_ascii=False) + "\n",
    }
