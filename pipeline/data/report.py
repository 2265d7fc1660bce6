"""The figures of a `prepare` run: reports/prepare.json and the table that closes it."""

import hashlib
import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from typing import Any, TypedDict

from rich.console import Console
from rich.table import Table

from common.words import counted
from pipeline.core.formats import Messages
from pipeline.core.records import ReplayReport
from pipeline.data.questions import Question

VERBS = {"count": "kept; data/clean=strict leaves them out", "drop": "left out"}
LENGTH_BOUNDS = (32, 128, 512, 2048, 8192)  # characters


class SplitFigures(TypedDict):
    """How many rows a split has, and their digest."""

    rows: int
    sha256: str


class ComparedFigures(SplitFigures):
    """The same of the comparisons of a split, which are pairs of answers, and answers judged good or bad."""

    pairs: int
    good: int
    bad: int
    as_conversations: int  # whose good answers are the split's conversations


class SplitDigest:
    """The digest of the rows of a split in their order, not of the Parquet file around them."""

    def __init__(self) -> None:
        """Begin with none."""
        self._rows, self._digest = 0, hashlib.sha256()

    def add(self, rows: Iterable[object]) -> None:
        """Go on with more of them."""
        for row in rows:
            self._rows += 1
            self._digest.update(json.dumps(row, ensure_ascii=False, sort_keys=True).encode() + b"\n")

    def report(self) -> SplitFigures:
        """Return the figures."""
        return {"rows": self._rows, "sha256": self._digest.hexdigest()}


def split_report(rows: Iterable[object]) -> SplitFigures:
    """Return rows and digest of a split."""
    digest = SplitDigest()
    digest.add(rows)
    return digest.report()


class Lengths:
    """For each role how many messages have at most so many characters, and more than the bound before."""

    def __init__(self) -> None:
        """Begin with none."""
        self._counts: Counter[tuple[str, int]] = Counter()

    def add(self, conversations: Iterable[Messages]) -> None:
        """Count the messages of conversations."""
        for messages in conversations:
            places = ((message["role"], bisect_left(LENGTH_BOUNDS, len(message["content"]))) for message in messages)
            self._counts.update(places)

    def report(self) -> dict[str, dict[str, int]]:
        """Return the counts by role and bound."""
        labels = [f"<= {bound}" for bound in LENGTH_BOUNDS] + [f"> {LENGTH_BOUNDS[-1]}"]
        roles = sorted({role for role, _ in self._counts})
        return {role: {label: self._counts[role, place] for place, label in enumerate(labels)} for role in roles}


def question_report(questions: list[Question], kept: list[Question]) -> dict[str, Any]:
    """Return how many questions were given, stood in the training split and were kept, and the kept ones by group."""
    groups = Counter(question["group"] for question in kept)
    return {
        "given": len(questions),
        "in_training": len(questions) - len(kept),
        "kept": len(kept),
        "groups": dict(sorted(groups.items())),
    }


def print_table(report: dict[str, Any], seconds: float) -> None:
    """Print what was read, dropped and written."""
    table = Table(
        "file", "format", "rows", "usable", "dropped", title=f"prepare: {report['data']}", title_justify="left"
    )
    for file in report["files"]:
        dropped = ", ".join(f"{count} {reason}" for reason, count in file["dropped"].items())
        table.add_row(file["file"], file["format"], f"{file['rows']:,}", f"{file['usable']:,}", dropped or "none")
    console = Console(markup=False, emoji=False)  # names of files and keys may have brackets and colons
    console.print(table)
    if preferences := sum(file.get("preferences", 0) for file in report["files"]):
        console.print(f"preferences set apart: {preferences:,}, in data/prepared/preferences.jsonl", highlight=False)
    for file in report["files"]:
        if reordered := ", ".join(f"{rows:,} {what}" for what, rows in file.get("reordered", {}).items()):
            console.print(f"turns in {file['file']}: {reordered}", highlight=False, soft_wrap=True)
        if unused := ", ".join(f"{key} ({rows:,})" for key, rows in file.get("unused", {}).items()):
            console.print(f"keys not used in {file['file']}: {unused}", highlight=False, soft_wrap=True)
    splits = ", ".join(f"{name} {split['rows']:,}" for name, split in report["splits"].items())
    questions = report["questions"]
    for name, rule in report["cleaning"].items():
        if rule["rows"]:
            console.print(f"{name}: {rule['rows']:,} ({VERBS[rule['mode']]})", highlight=False)
    for name, places in report["masked"].items():
        console.print(f"masked: {places:,} of {name}", highlight=False)
    repeated = [f"{count:,} in {name}" for name, count in report["duplicates_by_source"].items() if count]
    listed = f" ({', '.join(repeated)})" if len(report["files"]) > 1 and repeated else ""
    console.print(f"duplicates dropped: {report['duplicates']:,}{listed}", highlight=False, soft_wrap=True)
    console.print(f"splits: {splits}", highlight=False)
    for name, part in report["preferences"].items():
        kinds = f"{counted(part['pairs'], 'pair')}, {part['good']:,} judged good and {part['bad']:,} bad"
        said = "; their good answers are its conversations" if part["as_conversations"] else ""
        console.print(f"preferences of {name}: {kinds}{said}", highlight=False, soft_wrap=True)
    for name, source in report["sources"].items():
        rows = ", ".join(f"{split} {count:,}" for split, count in source["splits"].items())
        weight = f", weight {source['weight']:g}" if source["weight"] != 1 else ""
        console.print(f"source {name}: {rows}{weight}", highlight=False, soft_wrap=True)
    if report["sampled_out"]:
        console.print(f"rows beyond data.max_rows or a cap: {report['sampled_out']:,}", highlight=False)
    if replay := report.get("replay"):
        console.print(f"replayed: {_replayed(replay)}", highlight=False, soft_wrap=True)
    if report["near_duplicates"]:
        console.print(f"near-duplicates dropped: {report['near_duplicates']:,}", highlight=False)
    if report["balanced"]:
        most = ", ".join(f"{count:,} of {what}" for what, count in list(report["balanced"].items())[:3])
        console.print(f"left out for balance: {sum(report['balanced'].values()):,} ({most})", highlight=False)
    if report["common_exchanges"]:
        said = f"exchanges too common to keep rows together: {report['common_exchanges']:,}"
        console.print(said, highlight=False)
    if report["largest_component"] > 1:
        most = f"rows that hang together: {report['largest_component']:,} at most"
        console.print(most, highlight=False)
    for name, files in report["own_splits"].items():
        left_out = f"; left out of train, since they are linked to it: {counted(report['leaks'][name], 'row')}"
        console.print(f"{name} is the set's own: {', '.join(files)}{left_out}", highlight=False, soft_wrap=True)
    if report["shared_by_own_splits"]:
        shared = counted(report["shared_by_own_splits"], "row")
        console.print(f"left out of validation, since they are linked to test: {shared}", highlight=False)
    console.print(
        f"questions: {questions['kept']:,}, {questions['in_training']:,} left out as trained on", highlight=False
    )
    if report["revision"]:
        console.print(f"revision: {report['revision']}", highlight=False, soft_wrap=True)
    for name in report["not_met"]:
        console.print(f"{name}: no row has it", highlight=False, soft_wrap=True)
    for name, reason in report["not_read"].items():
        console.print(f"not read: {name} ({reason})", highlight=False, soft_wrap=True)
    console.print(f"{seconds:.1f} s", highlight=False)


def _replayed(replay: ReplayReport) -> str:
    """Return how much is replayed, and what kept it from being as much as was asked for."""
    short = f", of the {replay.wanted:,} that the share comes to" if replay.taken < replay.wanted else ""
    passed = f"; passed over since they are measured: {replay.measured:,}" if replay.measured else ""
    return f"{counted(replay.taken, 'row')} of {replay.usable:,} usable{short}{passed}"
