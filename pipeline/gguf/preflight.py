"""A base is tried for export before it is trained: with tiny weights of its kind, in seconds, in a process of its own.

What imports nothing heavy stands here, so that the trial (trial.py) runs while training's own libraries are imported.
What has passed is kept by what it depends on: the jobs of a sweep, and a training that is gone on with, pay once.
"""

import hashlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from common.errors import UserError
from common.files import sha256, write_json
from common.package_index import cache_root
from llama.source import VERSION
from pipeline.core.code import code_digest
from pipeline.core.config import ModelSettings
from pipeline.models.packaged import located
from pipeline.workers.ranks import rank

logger = logging.getLogger(__name__)

OUTCOME = "outcome: "  # begins the line in which the trial says what came of it
CODE = ("llama", "pipeline/gguf", "pipeline/models")  # that the outcome depends on
DESCRIBING = (".json", ".jinja", ".model", ".txt")  # files of a model's folder that are no weights
NOT_OURS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")  # the trial is none of those that train together
# The trial computes on the CPU, and where there is no index, does not ask it again and again: pip's own take minutes.
ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "", "PIP_RETRIES": "0", "PIP_DEFAULT_TIMEOUT": "5"}


@contextmanager
def preflight(model: ModelSettings, enabled: bool) -> Iterator[Callable[[], None]]:
    """Begin to try a model's export, in the first of the processes that train together.

    Args:
        model: the base.
        enabled: whether to; if not, nothing is done.

    Yields:
        What waits for the outcome, and raises a `UserError` where an export would be refused.
    """
    mark = marker(model) if enabled and rank() == 0 else None
    if mark is None or mark.is_file():
        yield lambda: None
        return
    begun = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline.gguf.trial", json.dumps(asdict(model)), str(os.getpid())],
        env={key: value for key, value in os.environ.items() if key not in NOT_OURS} | ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as trial:
        try:
            yield lambda: require_exportable(model, trial, mark, begun)
        finally:
            trial.terminate()  # so that it takes its folder away


def require_exportable(model: ModelSettings, trial: subprocess.Popen[bytes], mark: Path, begun: float) -> None:
    """Wait for the outcome of a trial, and say it.

    Args:
        model: that is tried.
        trial: the process.
        mark: the file that is to say that it has passed.
        begun: when it was, by the monotonic clock.

    Raises:
        UserError: an export would be refused.
    """
    outcome = outcome_of(trial.communicate()[0].decode("utf-8", errors="replace"))
    if refusal := outcome.get("refused"):
        raise UserError(
            f"{model.name} could not be exported, as a trial with tiny weights shows: {refusal}; nothing was trained"
            " yet; train.check_export=false trains it all the same"
        )
    if reason := outcome.get("unknown"):
        logger.warning(f"whether {model.name} can be exported was not to be tried ({reason}); training goes on")
        return
    logger.info(f"{model.name} can be exported, as a trial with tiny weights shows ({time.monotonic() - begun:.0f} s)")
    with suppress(OSError):  # it is tried again then
        mark.parent.mkdir(parents=True, exist_ok=True)
        write_json(mark, {"model": model.path, "at": time.strftime("%Y-%m-%d %H:%M:%S")})


def marker(model: ModelSettings) -> Path | None:
    """Return the file that says that a model has passed; None where the model cannot be found, which training says."""
    key_parts = [VERSION, version("transformers"), code_digest(*CODE)]
    try:
        if model.chat_template:
            key_parts.append(sha256(Path(model.chat_template)))
        for base in ((model.path, model.revision), model.merge_base):
            key_parts += _described(*located(*base))
    except (OSError, ValueError, UserError):
        return None
    return cache_root() / "exportable" / f"{hashlib.sha256(' '.join(key_parts).encode()).hexdigest()[:16]}.json"


def outcome_of(output: str) -> dict[str, str]:
    """Return what came of a trial by all that it said; `unknown`, with its last line, where it ended before that."""
    lines = output.splitlines() or ["it ended without a word"]
    outcome = next((line for line in lines if line.startswith(OUTCOME)), None)
    return {"unknown": lines[-1].strip()} if outcome is None else json.loads(outcome.removeprefix(OUTCOME))


def _described(path: str, revision: str | None) -> list[str]:
    """Return what tells a model's configuration and tokenizer from others.

    Their files' digests, or the hub's commit.
    """
    if Path(path).is_dir():
        return [f"{file.name} {sha256(file)}" for file in _files(Path(path), "*") if file.suffix in DESCRIBING]
    from huggingface_hub import hf_hub_download  # takes a moment to import

    return [path, Path(hf_hub_download(path, "config.json", revision=revision)).parent.name]


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if path.is_file())
