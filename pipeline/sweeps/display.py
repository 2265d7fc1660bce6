"""A sweep as one watches it: a live table on a terminal, a line for each job and each rung in a log.

It looks at the sweep's files, from a thread of its own: so it shows jobs in whatever process they run, and nothing that
goes wrong with it touches them.
"""

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from common.harmless import harmless
from common.words import counted
from pipeline.core.trials import LOG
from pipeline.sweeps.names import duration, loss_text, settings_text, short_names, state_text
from pipeline.sweeps.progress import View, decision_line, ended_lines, look, steps_left
from pipeline.sweeps.ranking import VALIDATION
from pipeline.sweeps.record import Folder, SweepRecord
from pipeline.sweeps.settings import read_settings
from pipeline.sweeps.standings import Standing, reasons

EVERY = 0.5  # seconds between two looks, or
REST = 100  # times what a look takes, so that jobs lose 1% at most: one at 108 trials takes about 10 ms
RANKED = 20  # trials in the table at the end
AROUND = 11  # lines of a terminal that are no trial's
VALUE = 12  # letters of a value that are never broken
IN_A_LOG = 160  # columns of a table there
STYLES = {"running": "bold", "failed": "red", "refused": "red", "ended": "yellow", "dropped": "dim", "waiting": "dim"}


@contextmanager
def showing(folder: Folder, record: SweepRecord) -> Iterator[None]:
    """Show a sweep on stdout while it runs.

    Jobs in this process have their output in files meanwhile, so the stdout of before is written to.
    """
    try:
        file = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace", buffering=1)
    except OSError:  # closed
        yield
        return
    with file:
        display = Display(folder, file)
        display.start(record)
        try:
            yield
        except BaseException:
            display.stop()
            raise
        display.live.transient = True  # the ranking follows
        display.stop()


class Display:
    """Looks at a sweep twice a second, in a thread, and says what is new."""

    def __init__(self, folder: Folder, file: TextIO) -> None:
        """Show the sweep of this folder in a file, which may be a terminal."""
        self.folder, self.file = folder, file
        self.console = console_on(file)
        self.is_live = file.isatty() and not self.console.is_dumb_terminal
        # Output of jobs goes to their files, and not through Live.
        self.live = Live(console=self.console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.guarded, args=(self.watch,), name="sweep display", daemon=True)
        self.began = time.monotonic()
        self.first: View | None = None
        self.before: View | None = None
        self.newest = ""

    def start(self, record: SweepRecord) -> None:
        """Say what is to be run, and begin to look."""
        self.guarded(lambda: self.say_what_begins(record))
        self.thread.start()

    def stop(self) -> None:
        """End it, with what happened last shown."""
        self.over.set()
        self.thread.join()

    def guarded(self, show: Callable[[], None]) -> None:
        """Call what shows something; an error ends the showing, and nothing else."""
        try:
            show()
        except Exception as error:
            with suppress(OSError, ValueError):
                print(f"the sweep goes on, and cannot be shown: {type(error).__name__}: {error}", file=self.file)

    def watch(self) -> None:
        """Look until it is over, and once more."""
        try:
            rest = 0.0
            while not self.over.wait(rest):
                began = time.perf_counter()
                self.show()
                rest = max(EVERY, REST * (time.perf_counter() - began))
            self.show()
        finally:
            with suppress(OSError):
                self.live.stop()

    def say_what_begins(self, record: SweepRecord) -> None:
        """Say how many trials there are, how far they go, and what of it was done before."""
        self.first = self.before = look(self.folder)
        brackets = f" in {len(record.rungs)} brackets" if len(record.rungs) > 1 else ""
        rungs = f", rungs {'/'.join(map(str, record.rungs[0]))}{brackets}" if record.rungs[0] else ""
        not_trained = len(record.trials) - len(self.first.own)
        without = f", {not_trained} of them twins of others or refused" if not_trained else ""
        again = f"; {counted(len(self.first.done), 'job')} done before" if self.first.done else ""
        print(f"{self.folder.path}: {counted(len(record.trials), 'trial')}{without}{rungs}{again}", file=self.file)

    def show(self) -> None:
        """Look, and say what is new."""
        view, before = look(self.folder), self.before
        if self.first is None or before is None:
            self.first = before = view
        known = {(decision.bracket, decision.rung) for decision in before.decisions}
        decided = [decision_line(view, each) for each in view.decisions if (each.bracket, each.rung) not in known]
        ended = ended_lines(before, view)
        self.newest, self.before = (ended or [self.newest])[-1], view
        if self.is_live:
            self.draw(view)
            for line in decided:
                self.console.print(Text(line))
        else:
            print(*ended, *decided, sep="\n", end="\n" * bool(ended or decided), file=self.file)

    def draw(self, view: View) -> None:
        """Draw the table; the cursor stays in sight, since a killed process could not bring it back."""
        if all(size := os.get_terminal_size(self.file.fileno())):
            self.console.size = size
        if not self.live.is_started:
            self.live.start()
            self.console.show_cursor()
        self.live.update(self.picture(view), refresh=True)

    def picture(self, view: View) -> Group:
        """Return the table with what stands around it."""
        rows, rest = chosen(view.ranked, max(3, self.console.height - AROUND))
        lines = [self.headline(view), self.times(view)]
        if view.best:
            lines.append(
                f"best {loss_text(view.best.score)}  trial {view.best.trial.number}: "
                f"{settings_text(view.best.trial.values)}"
            )
        counts = Counter(each.state for each in rest)
        more = [f"and {len(rest)} more: " + ", ".join(f"{counts[s]} {s}" for s in sorted(counts))] if rest else []
        newest = [f"newest: {self.newest}"] if self.newest else []
        return Group(*map(one_line, lines), table_of(view.record, rows), *map(one_line, more + newest))

    def headline(self, view: View) -> str:
        """Return which rung is run, and how many trials are in which state."""
        rung = min((each.rung for each in view.own if each.state in ("running", "waiting", "stopped")), default=0)
        counts = Counter(each.state for each in view.own)
        where = f"rung {rung} of {view.rungs}  " if rung and view.rungs > 1 else ""
        return f"{view.record.name}  {where}" + ", ".join(f"{count} {state}" for state, count in counts.most_common())

    def times(self, view: View) -> str:
        """Return how long it has run, and how long it will by what it took since it was started."""
        seconds = time.monotonic() - self.began
        made, left = view.steps - (self.first or view).steps, steps_left(view)
        said = f"{duration(seconds)} so far"
        if left is None or not made:
            return said
        rung, whole = (duration(steps * seconds / made) for steps in (left.rung, left.sweep))
        return f"{said}, {whole} left" + (f", {rung} in this rung" if view.rungs > 1 else "")


def console_on(file: TextIO) -> Console:
    """Return a console that writes to a file; wider than a terminal if it is none."""
    is_terminal = file.isatty()
    return Console(file=file, highlight=False, force_terminal=is_terminal, width=None if is_terminal else IN_A_LOG)


def one_line(text: str) -> Text:
    """Return a text that is cut where its line ends."""
    return Text(text, no_wrap=True, overflow="ellipsis")


def chosen(ranked: list[Standing], room: int) -> tuple[list[Standing], list[Standing]]:
    """Return the trials that there is room for, running ones first and then the best, and all others."""
    running = [each for each in ranked if each.state == "running"]
    others = [each for each in ranked if each.state != "running"]
    ordered = [*running, *others]
    return ordered[:room], ordered[room:]


def table_of(record: SweepRecord, rows: Sequence[Standing]) -> Table:
    """Return trials as a table, a column for each setting that they differ in."""
    names = short_names(record.space)
    known = [Column(name, justify="right", no_wrap=True, min_width=len(name)) for name in ("rank", "trial")]
    differ = [setting_column(name, [each.trial.values.get(key, "-") for each in rows]) for key, name in names.items()]
    has_score = read_settings(record.settings).weights != VALIDATION
    measured = ("step", "loss", "score") if has_score else ("step", "loss")
    found = [Column(name, justify="right", no_wrap=True, min_width=6) for name in measured]
    state = Column("state", overflow="ellipsis", no_wrap=True, min_width=9)
    table = Table(*known, *differ, *found, state, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for each in rows:
        values = [each.trial.values.get(key, "-") for key in names]
        cells = [str(each.place), str(each.trial.number), *values, str(each.step), loss_text(each.loss)]
        cells += [loss_text(each.score)] * has_score
        table.add_row(*map(Text, [*cells, state_text(each, len(record.rungs[0]))]), style=STYLES.get(each.state))
    return table


def setting_column(name: str, values: Sequence[str]) -> Column:
    """Return a setting's column, whose head is broken into words where there is little room."""
    head = name.replace("_", " ")
    least = max(map(len, [*head.split(), *(value[:VALUE] for value in values)]))
    return Column(head, justify="right", overflow="fold", min_width=least)


def print_ranking(folder: Folder, record: SweepRecord, ranked: Sequence[Standing], most: int = RANKED) -> None:
    """Print the best trials, how many more there are, and why trials came to nothing, with where they say more."""
    console = console_on(sys.stdout)
    console.print(table_of(record, ranked[:most]))
    if len(ranked) > most:
        console.print(f"and {len(ranked) - most} more in {folder.path}")
    for (state, reason), these in reasons(ranked).items():
        numbers = ", ".join(str(each.trial.number) for each in these)
        trials = f"trial{'s' * (len(these) > 1)} {numbers}{', the first' * (len({e.reason for e in these}) > 1)}"
        log = folder.job(these[0].trial.number, these[0].stops[-1].step).path / LOG if these[0].stops else None
        console.print(Text(harmless(f"{state}: {trials}: {reason}") + (f" ({log})" if log else "")), soft_wrap=True)
