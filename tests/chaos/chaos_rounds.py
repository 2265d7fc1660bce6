"""What all rounds have in common: harm, starts until all is done, a comparison; and how many of them are played."""

import json
import shutil
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chaos_disk import can_mount
from chaos_process import ChaosError
from chaos_result import Result, print_line, table
from rich.console import Console


class Round:
    """A round in progress, in a folder of its own."""

    def __init__(self, name: str, plan: object, bench: Path, needs_mount: bool = False) -> None:
        """Have it on the bench; one that needs a file system of its own is passed over where none can be mounted."""
        self.folder = bench / f"round-{name}"
        self.needs_mount = needs_mount
        self.result = Result(name, str(plan))

    def play(self) -> Result:
        """Harm, start again, compare; the folder of a round that went well is removed."""
        began = time.monotonic()
        if self.needs_mount and not can_mount():
            self.result.skipped = "no file system can be mounted: needs root, or `unshare -rm`"
            return self.result
        self.folder.mkdir()
        with ExitStack() as stack:
            try:
                self.set_up(stack)
                self.harm_until_done()
                self.compare()
            except (ChaosError, OSError) as error:  # the second where a result is not there
                self.blame("status", str(error))
        self.result.seconds = round(time.monotonic() - began, 1)
        if not self.result.wrong:
            shutil.rmtree(self.folder)
        return self.result

    def set_up(self, stack: ExitStack) -> None:
        """Make what is to be harmed."""
        raise NotImplementedError

    def harm_until_done(self) -> None:
        """Start and harm it as planned, and start it again until it has ended well."""
        raise NotImplementedError

    def compare(self) -> None:
        """Hold what came out against what comes out when nothing is done to it."""
        raise NotImplementedError

    def next_log(self) -> Path:
        """Count one more start, and return its log."""
        self.result.starts += 1
        return self.folder / f"start-{self.result.starts}.log"

    def blame(self, check: str, what: str) -> None:
        """Note that a check failed."""
        self.result.wrong.setdefault(check, []).append(what)


def numbers(rounds: int, only: int | None) -> Iterable[int]:
    """Return the numbers of the rounds to play."""
    return range(1, rounds + 1) if only is None else [only]


def play_all(
    rounds: Iterable[Round], checks: Iterable[str], what: str, folder: Path, out: Path | None = None, **about: Any
) -> None:
    """Play rounds, print a line for each and a table of all; end with status 1 if one failed.

    Args:
        rounds: made one after the other.
        checks: what each is asked.
        what: they are, for the title.
        folder: removed where all went well.
        out: a file of JSON for the results, below what they are `about`.
    """
    results = []
    for each in rounds:
        results.append(each.play())
        print_line(results[-1], folder)
    Console(width=None if sys.stdout.isatty() else 180).print(table(results, checks, what))
    if out:
        told = [asdict(result) | {"verdict": result.verdict} for result in results]
        out.write_text(json.dumps(about | {"rounds": told}, indent=2) + "\n", encoding="utf-8")
    if any(result.wrong for result in results):
        sys.exit(1)
    shutil.rmtree(folder)
