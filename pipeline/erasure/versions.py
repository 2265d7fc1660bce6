"""What DVC keeps of earlier runs: objects in its cache and its remotes, by what stages were made from what.

Stages are known by dvc.lock, as it is and as each commit has it, and by DVC's run-cache.
"""

import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from common.errors import UserError
from common.words import counted
from pipeline.core.paths import ADAPTER, LINEAGE, PREPARE_REPORT, PREPARED
from pipeline.core.records import Lineage, PrepareReport
from pipeline.data.lines import one_line
from pipeline.data.prepared import MADE_FROM
from pipeline.erasure.outcome import Outcome
from pipeline.learning.forgotten import Traces

if TYPE_CHECKING:  # seconds to import
    from dvc.repo import Repo
    from dvc_objects.db import ObjectDB

LOCK = "dvc.lock"
FOLDER = ".dir"  # at the end of a folder's digest
MODELS = "models/"  # outputs that are named, and not deleted
RUNS = "runs"  # of the run-cache, below a cache


@dataclass(frozen=True)
class Ran:
    """A stage as it ran once: the digests of what it read and made, by path."""

    deps: dict[str, str]
    outs: dict[str, str]
    run_cache: str | None = None  # its file there, below the cache


@contextmanager
def opened(root: Path) -> Iterator["Repo | None"]:
    """Yield DVC's repository; None where the folder is none. Raises UserError where DVC cannot read it."""
    if not (root / ".dvc").is_dir():
        yield None
        return
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo, repo.lock:
            yield repo
    except DvcException as error:
        raise UserError(f"DVC fails ({one_line(error)}); see to it, then run again") from error


class Versions:
    """The runs of stages that a repository knows, and their objects."""

    def __init__(self, repo: "Repo", root: Path) -> None:
        """Read what ran. Raises UserError for a file that is damaged."""
        self._stores = [("DVC's cache", repo.cache.local, repo.cache.legacy)]
        self._failed: list[str] = []
        self._absent: list[str] = []
        for name in repo.config["remote"]:
            try:
                store = repo.cloud.get_remote_odb(name)
                if store.fs.isdir(store.path):
                    old = repo.cloud.get_remote_odb(name, hash_name="md5-dos2unix")
                    self._stores.append((f"DVC's remote {name}", store, old))
                else:
                    self._absent.append(f"DVC's remote {name}: there is nothing at {store.path} now")
            except Exception as error:  # each kind of remote has its own
                self._failed.append(f"DVC's remote {name} ({one_line(error)})")
        self._ran = [*_of_locks(root), *self._of_run_caches()]

    def traces(self, traces: Traces) -> Traces:
        """Return the prepared data and the trainings of all that ran, which were made of files with the records."""
        found = traces
        for ran in self._ran:
            folder = ran.outs.get(str(PREPARED))
            if folder and self._is_made_of(folder, found):
                text = self._text(ran.outs.get(str(PREPARE_REPORT)))
                report = PrepareReport.parse_text(text, str(PREPARE_REPORT)) if text else None
                prepared = report.data_digests if report else ()
                found = found.with_more(Traces(folders=(folder,), prepared=prepared))
        for ran in self._ran:
            lineage = self._lineage(ran.outs.get(str(ADAPTER)))
            if lineage and found.learnt_by(lineage):
                found = found.with_more(Traces(fingerprints=(lineage.fingerprint,)))
        return found

    def models(self, traces: Traces) -> list[str]:
        """Return the adapters of earlier runs that learnt the records, by their digests."""
        found = {}
        for ran in self._ran:
            digest = ran.outs.get(str(ADAPTER))
            if (lineage := self._lineage(digest)) and traces.learnt_by(lineage):
                found[digest] = f"{ADAPTER} in DVC's cache: training {lineage.fingerprint}, MD5 {digest}"
        return [found[digest] for digest in sorted(filter(None, found))]

    def forget(self, traces: Traces, outcome: Outcome) -> None:
        """Delete what was made of the records, but models, where nothing else has it; and their run-cache."""
        touched = self._touched(traces)
        kept = self._members(_outs(ran for ran in self._ran if ran not in touched))
        texts = {out for ran in touched for path, out in ran.outs.items() if not path.startswith(MODELS)}
        models = self._members(out for ran in touched for path, out in ran.outs.items() if path.startswith(MODELS))
        # A folder's list comes last: by it what is in the folder is found again.
        doomed = sorted(self._members(texts) - kept - models, key=lambda digest: digest.endswith(FOLDER))
        runs = [ran.run_cache for ran in touched if ran.run_cache]
        for name, store, old in self._stores:
            try:
                gone = [digest for digest in doomed if _delete(store, store.oid_to_path(digest))]
                gone += [run for run in runs if _delete(old, _run_path(old, run))]
            except Exception as error:  # each kind of remote has its own
                outcome.failed.append(f"{name} ({one_line(error)})")
                continue
            if gone:
                outcome.deleted.append(f"{name}: {counted(len(gone), 'object')}")
        outcome.failed += self._failed
        outcome.beyond += self._absent

    def _touched(self, traces: Traces) -> list[Ran]:
        """Return the runs that made prepared data of the records, and all that read what only such runs made."""
        touched = [ran for ran in self._ran if ran.outs.get(str(PREPARED)) in traces.folders]
        while True:
            others = [ran for ran in self._ran if ran not in touched]
            made = _outs(touched) - _outs(others)
            more = [ran for ran in others if made & set(ran.deps.values())]
            if not more:
                return touched
            touched += more

    def _is_made_of(self, folder: str, traces: Traces) -> bool:
        text = self._text(folder, MADE_FROM)
        return bool(text and traces.made(**json.loads(text)))

    def _lineage(self, digest: str | None) -> Lineage | None:
        text = self._text(digest, LINEAGE)
        try:
            return Lineage.parse_text(text, LINEAGE) if text else None
        except UserError:  # of a version before
            return None

    def _members(self, digests: Iterable[str]) -> set[str]:
        """Return objects with those that are in them."""
        found = set(digests)
        for digest in [one for one in found if one.endswith(FOLDER)]:
            found |= {entry["md5"] for entry in self._listing(digest)}
        return found

    def _listing(self, digest: str) -> list[dict[str, str]]:
        text = self._text(digest)
        return json.loads(text) if text else []

    def _text(self, digest: str | None, inner: str | None = None) -> str | None:
        """Return an object's text, or that of a file in a folder; None where no store has it."""
        if digest is None:
            return None
        if inner is not None:
            entry = next((entry for entry in self._listing(digest) if entry["relpath"] == inner), None)
            return self._text(entry["md5"]) if entry else None
        for _, store, _ in self._stores:
            path = store.oid_to_path(digest)
            if store.fs.exists(path):
                with store.fs.open(path, "r", encoding="utf-8") as file:
                    return str(file.read())
        return None

    def _of_run_caches(self) -> Iterator[Ran]:
        for _, _, old in self._stores:
            place = old.fs.join(old.path, RUNS)
            for path in old.fs.find(place) if old.fs.exists(place) else ():
                with old.fs.open(path, "r", encoding="utf-8") as file:
                    content = yaml.safe_load(file)
                if isinstance(content, dict):
                    yield _ran(content, "/".join(old.fs.parts(path)[-3:]))


def _of_locks(root: Path) -> Iterator[Ran]:
    """Yield the stages of dvc.lock, as it is and as commits have it, those of experiments among them."""
    texts = {(root / LOCK).read_text(encoding="utf-8")} if (root / LOCK).is_file() else set()
    commits = _git(root, "log", "--all", "--reflog", "--format=%H", "--", LOCK).split()
    texts |= {_git(root, "show", f"{commit}:{LOCK}") for commit in commits}
    for text in sorted(texts):
        content = yaml.safe_load(text)
        for stage in (content or {}).get("stages", {}).values():
            yield _ran(stage)


def _ran(stage: Mapping[str, list[dict[str, str]]], run_cache: str | None = None) -> Ran:
    deps, outs = (
        {entry["path"]: entry["md5"] for entry in stage.get(key) or () if "md5" in entry} for key in ("deps", "outs")
    )
    return Ran(deps, outs, run_cache)


def _outs(runs: Iterable[Ran]) -> set[str]:
    return {out for ran in runs for out in ran.outs.values()}


def _run_path(store: "ObjectDB", run_cache: str) -> str:
    return str(store.fs.join(store.path, RUNS, *run_cache.split("/")))


def _delete(store: "ObjectDB", path: str) -> bool:
    if not store.fs.exists(path):
        return False
    store.fs.remove(path)
    return True


def _git(root: Path, *arguments: str) -> str:
    """Return what git says; nothing where there is no repository, or no such file in a commit."""
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""
