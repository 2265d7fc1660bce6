"""A tokenizer's files that Transformers does not write, and that llama.cpp's converter reads."""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx
from huggingface_hub import snapshot_download

from common.errors import UserError
from pipeline.models.chat import unreadable
from pipeline.models.packaged import located

# Transformers puts all that it needs into tokenizer.json. The converter reads the scores and kinds of SentencePiece's
# tokens, as Gemma's, Phi-3's and Mistral's, from the file that tokenizer.json was made of.
VOCABULARIES = (
    "tokenizer.model", "tokenizer.model.v3", "spiece.model", "sentencepiece.bpe.model", "rwkv_vocab_v20230424.txt",
)  # fmt: skip


def model_folder(path: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """Return a model's folder.

    `path` itself, or a package's or the hub's in the cache, fetched where it is not there yet.

    Args:
        path: a folder, a package, or a name on the hub.
        revision: branch, tag or commit on the hub.
        patterns: names or patterns of the files to fetch.

    Raises:
        UserError: neither gives it.
    """
    path, revision = located(path, revision)
    if Path(path).is_dir():
        return Path(path)
    fetch = partial(snapshot_download, path, revision=revision, allow_patterns=list(patterns))
    try:
        return Path(fetch())
    except (OSError, ValueError, httpx.HTTPError) as error:
        with suppress(OSError, ValueError):  # without a network, what training has fetched will do
            return Path(fetch(local_files_only=True))
        raise UserError(unreadable(path, error)) from error


def copy_vocabulary(source: Path, folder: Path) -> None:
    """Put the files of VOCABULARIES that `source` has, if any, into `folder`."""
    for name in VOCABULARIES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
