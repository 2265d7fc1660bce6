"""What data/feedback has: which records are in which files, for those who take some out again.

data/feedback/manifest.json       of the rows beside it
data/learnt/<digest>.json         of each set of rows that there was, by which models are known that learnt them
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pipeline.core.paths import FEEDBACK, LEARNT, MANIFEST
from pipeline.core.records import Count, Record


class SplitCounts(Record):
    """What a split has."""

    pairs: Count
    labels: Count
    visitors: Count
    conversations: Count


class Used(Record):
    """Where a record is."""

    visitor: str
    files: list[str]


class LearnManifest(Record):
    """What a set of rows was made of and comes to."""

    made_by: ClassVar[str] = "learn"

    schema_version: int = 1
    source: str  # a folder, or a dataset at its commit
    sources: dict[str, str]  # digests of its files
    settings: dict[str, object]
    files: dict[str, str]  # digests of the rows' files
    splits: dict[str, SplitCounts]
    left_out: dict[str, Count]
    records: dict[str, Used]  # those that a row is of, or that agree with one

    @classmethod
    def remedy(cls) -> str:
        """Return what to do about a file that is damaged, or another version's."""
        return "make it again: the next `tunesmith turn` does, or `tunesmith learn`"

    @property
    def digest(self) -> str:
        """Return what tells its rows from others."""
        return digest_of(self.files)


def digest_of(files: Mapping[str, str]) -> str:
    """Return one digest of files by theirs."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]


def past_manifests(root: Path) -> dict[Path, LearnManifest]:
    """Return the manifests of all sets that there were, by their files. Raises UserError for a damaged one."""
    return {path: LearnManifest.read(path) for path in sorted((root / LEARNT).glob("*.json"))}


def present_manifest(root: Path) -> LearnManifest | None:
    """Return the manifest of the rows that there are. Raises UserError for a damaged one."""
    path = root / FEEDBACK / MANIFEST
    return LearnManifest.read(path) if path.is_file() else None
