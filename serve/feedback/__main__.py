"""`python -m serve.feedback`: what users said, as a table or as rows to train on."""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError
from common.words import counted
from serve.feedback.files import replace
from serve.feedback.reading import read_records
from serve.feedback.records import Record
from serve.feedback.rows import preference_rows, summary, training_rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 1, after one line, for what is wrong outside of it."""
    parser = argparse.ArgumentParser(prog="python -m serve.feedback", description="What users said of answers.")
    commands = parser.add_subparsers(dest="command", required=True)
    summary_command = commands.add_parser("summary", help="print a line for each model")
    export_command = commands.add_parser("export", help="the same, and write good answers as rows for data=local")
    for command in (summary_command, export_command):
        command.add_argument("--folder", type=Path, required=True, help="where the server keeps feedback")
    export_command.add_argument("--out", type=Path, required=True, help="JSONL, such as data/raw/feedback.jsonl")
    export_command.add_argument(
        "--preferences", type=Path, help="JSONL of answers that won and lost; not in data/raw: they are no chats"
    )
    options = parser.parse_args(arguments)
    try:
        records = show(options.folder)
        if options.command == "export":
            export(records, options.out, options.preferences)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def show(folder: Path) -> Sequence[Record]:
    """Print a line for each model, and return what was said. Raises UserError where the folder cannot be read."""
    reading = read_records(folder)
    print(f"{summary(reading.records)}\n\n{reading.text}")
    return reading.records


def export(records: Sequence[Record], out: Path, preferences: Path | None = None) -> None:
    """Write the rows, and say how many. Raises UserError where there are none to train on, or the disk refuses."""
    if preferences and preferences.resolve() == out.resolve():
        raise UserError(f"--out and --preferences are both {out}: name two files")
    rows, left_out = training_rows(records)
    if not rows:  # an empty file would only fail later, in the pipeline
        raise UserError(f"no answer was found good ({_counts(left_out)}): {out} is not written")
    _write_rows(out, rows, left_out)
    if preferences:
        _write_rows(preferences, *preference_rows(records))


def _write_rows(path: Path, rows: list[bytes], left_out: Counter[str]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, b"".join(row + b"\n" for row in rows))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; make room or grant access there") from None
    print(f"{path}: {counted(len(rows), 'row')} ({_counts(left_out)})")


def _counts(left_out: Counter[str]) -> str:
    return "left out: " + ", ".join(f"{count} {why}" for why, count in left_out.items())


if __name__ == "__main__":
    sys.exit(main())
