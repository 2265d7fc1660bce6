"""What a round showed, as a line and as a row of a table."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from chaos_process import tail
from rich.table import Table


@dataclass
class Result:
    """What a round showed: `wrong` says what each failed check saw."""

    name: str
    plan: str
    starts: int = 0
    seconds: float = 0.0
    lost: int = 0
    notes: list[str] = field(default_factory=list)
    wrong: dict[str, list[str]] = field(default_factory=dict)
    skipped: str = ""

    @property
    def verdict(self) -> str:
        """One word."""
        return "skipped" if self.skipped else "FAILED" if self.wrong else "ok"


def print_line(result: Result, folder: Path) -> None:
    """A round in one line; one that failed with what is wrong, where it lies and what it said last."""
    notes = f" ({', '.join(result.notes)})" if result.notes else ""
    print(f"round {result.name}: {result.plan}{notes}: {result.verdict}, {result.starts} starts, {result.seconds} s")
    if result.wrong:
        for check, found in result.wrong.items():
            print(f"  {check}: {'; '.join(found)}")
        print(f"  kept in {folder}/round-{result.name}; its last lines:")
        print(tail(folder / f"round-{result.name}/start-{result.starts}.log"))
    sys.stdout.flush()


def table(results: list[Result], checks: Iterable[str], what: str) -> Table:
    """All rounds, with a column for each check; the title says `what` they are."""
    failed = sum(bool(result.wrong) for result in results)
    made = Table(
        "round", "harm", "starts", "s", "lost", *checks, "", title=f"{len(results)} rounds{what}: {failed} failed"
    )
    for result in results:
        cells = ["-" if result.skipped else "WRONG" if check in result.wrong else "ok" for check in checks]
        harm = "; ".join([result.plan, *result.notes, *([result.skipped] if result.skipped else [])])
        figures = (str(result.starts), f"{result.seconds:.0f}", str(result.lost))
        made.add_row(result.name, harm, *figures, *cells, result.verdict)
    return made
