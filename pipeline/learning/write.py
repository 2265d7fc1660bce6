"""data/feedback, written at once: rows by kind and split, in the layouts that `data=preferences` takes.

pairs/{train,validation,test}.jsonl    {"prompt": [...], "chosen": [...], "rejected": [...], "provenance": {...}}
labels/{train,validation,test}.jsonl   {"prompt": [...], "completion": [...], "label": true, "provenance": {...}}
manifest.json
"""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from common.files import atomic_path, sha256
from pipeline.core.config import LearnSettings
from pipeline.core.paths import FEEDBACK, LEARNT, MANIFEST
from pipeline.learning.divide import Split
from pipeline.learning.manifest import LearnManifest, SplitCounts, Used
from pipeline.learning.sources import Kept
from pipeline.learning.standing import Standing

KINDS = ("pairs", "labels")


def write(
    root: Path,
    kept: Kept,
    digests: Mapping[str, str],
    splits: Mapping[Split, Sequence[Standing]],
    left_out: Counter[str],
    settings: LearnSettings,
) -> LearnManifest:
    """Write the rows and their manifest, which is also kept apart; return it. What was there stays until all is."""
    with atomic_path(root / FEEDBACK) as temporary:
        for kind in KINDS:
            (temporary / kind).mkdir(parents=True)
        for split, rows in splits.items():
            for kind in KINDS:
                some = [row for row in rows if _kind(row) == kind]
                if some:  # a file without a row would end whoever reads it
                    lines = [json.dumps(as_row(row), ensure_ascii=False) + "\n" for row in some]
                    (temporary / kind / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        paths = sorted(path for kind in KINDS for path in (temporary / kind).glob("*.jsonl"))
        manifest = LearnManifest(
            source=kept.name,
            sources=dict(digests),
            settings=json.loads(json.dumps(asdict(settings))),
            files={(FEEDBACK / path.relative_to(temporary)).as_posix(): sha256(path) for path in paths},
            splits={split: _counts(rows) for split, rows in splits.items()},
            left_out={why: count for why, count in sorted(left_out.items()) if count},
            records=_used(splits),
            schema_version=1,
        )
        manifest.write(root / LEARNT / f"{manifest.digest}.json")  # first: no rows without it
        manifest.write(temporary / MANIFEST)
    return manifest


def as_row(row: Standing) -> dict[str, object]:
    """Return a row as it is written: what is said, and whose it is."""
    said = row.statement
    answers = [[{"role": "assistant", "content": text}] for text in said.answers]
    fields: dict[str, object] = {"prompt": said.prompt}
    if said.is_pair:
        fields |= {"chosen": answers[0], "rejected": answers[1]}
    else:
        fields |= {"completion": answers[0], "label": said.label}
    provenance = {
        "record": said.record,
        "visitor": said.visitor,
        "conversation": said.conversation,
        "made": said.made,
        "agreed": list(row.agreed),
    }
    return fields | {"provenance": provenance}


def _kind(row: Standing) -> str:
    return KINDS[0] if row.statement.is_pair else KINDS[1]


def _counts(rows: Sequence[Standing]) -> SplitCounts:
    pairs = sum(row.statement.is_pair for row in rows)
    return SplitCounts(
        pairs=pairs,
        labels=len(rows) - pairs,
        visitors=len({row.statement.visitor for row in rows}),
        conversations=len({row.statement.conversation for row in rows}),
    )


def _used(splits: Mapping[Split, Sequence[Standing]]) -> dict[str, Used]:
    """Return each record that a row is of or that agrees with it, and the files of those rows."""
    files: dict[tuple[str, str], set[str]] = defaultdict(set)
    for split, rows in splits.items():
        for row in rows:
            for said in ((row.statement.record, row.statement.visitor), *row.agreed_by):
                files[said].add((FEEDBACK / _kind(row) / f"{split}.jsonl").as_posix())
    return {record: Used(visitor=visitor, files=sorted(names)) for (record, visitor), names in sorted(files.items())}
