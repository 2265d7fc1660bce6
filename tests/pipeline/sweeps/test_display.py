"""A sweep as one watches it, in a log and on a terminal."""

import fcntl
import os
import pty
import re
import struct
import termios
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from fake_sweep import FakeSweep

from pipeline.sweeps.display import Display, print_ranking, showing
from pipeline.sweeps.job import output_in
from pipeline.sweeps.record import SWEEP, Trial
from pipeline.sweeps.standings import standings

RATES = {"train.lr": ["4", "3", "2", "1"]}
PATIENCE = 30  # seconds


def by_rate(values: dict[str, str], step: int) -> float:
    """Return a loss that falls with the rate, and with each step."""
    return float(values["train.lr"]) + 1 / step


@pytest.fixture
def sweep(tmp_path: Path) -> FakeSweep:
    """Return a sweep of four trials and three rungs, that has not begun."""
    return FakeSweep(tmp_path / "rates", RATES, loss=by_rate)


def wait_for(happened: Callable[[], object]) -> None:
    """Wait until something has happened.

    Raises:
        AssertionError: it does not.
    """
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_log_has_a_line_for_each_job_and_each_rung(sweep: FakeSweep, capfd: pytest.CaptureFixture[str]) -> None:
    with showing(sweep.folder, sweep.record):
        sweep.play()
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == f"{sweep.folder.path}: 4 trials, rungs 2/4/8"
    assert sum(" finished " in line for line in lines) == 4 + 2 + 1
    assert [line.partition(":")[0] for line in lines if "go on" in line] == ["rung 1 of 3", "rung 2 of 3"]


def test_what_was_done_before_is_counted_and_not_said_again(
    sweep: FakeSweep, capfd: pytest.CaptureFixture[str]
) -> None:
    sweep.play(rungs=1)
    with showing(sweep.folder, sweep.record):
        sweep.play()
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].endswith("; 4 jobs done before")
    assert sum(line.startswith("rung 1") for line in lines) == 0


def test_it_is_seen_while_jobs_of_this_process_have_their_output_in_a_file(
    sweep: FakeSweep, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = ""
    with showing(sweep.folder, sweep.record), output_in(tmp_path / "log.txt"):
        os.write(1, b"a job's own\n")
        sweep.finish(0, 2)

        def seen() -> bool:
            nonlocal said
            said += capfd.readouterr().out
            return "trial 0 of 4" in said

        wait_for(seen)
    assert "a job's own" not in said
    assert (tmp_path / "log.txt").read_text() == "a job's own\n"


def test_what_cannot_be_shown_ends_no_sweep(sweep: FakeSweep, capfd: pytest.CaptureFixture[str]) -> None:
    with showing(sweep.folder, sweep.record):
        (sweep.folder.path / SWEEP).write_text("{")
    assert "the sweep goes on, and cannot be shown: UnreadableError" in capfd.readouterr().out


def test_an_error_of_the_sweep_passes_through(sweep: FakeSweep) -> None:
    with pytest.raises(ZeroDivisionError), showing(sweep.folder, sweep.record):
        raise ZeroDivisionError


def drawn(sweep: FakeSweep, rows: int, columns: int, act: Callable[[], None]) -> str:
    """Return what a terminal of this size is sent while something happens to a sweep."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    sent = bytearray()
    reader = threading.Thread(target=read_all, args=(ours, sent))
    reader.start()
    with os.fdopen(theirs, "w", encoding="utf-8") as file:
        display = Display(sweep.folder, file)
        display.start(sweep.record)
        act()
        display.stop()
    reader.join()
    os.close(ours)
    return sent.decode()


def read_all(descriptor: int, sent: bytearray) -> None:
    """Add what a terminal is sent, until its other side is closed."""
    with suppress(OSError):  # of a terminal, which has no end of file
        while some := os.read(descriptor, 4096):
            sent += some


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have terminals of a kind that can be drawn on."""
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.mark.usefixtures("terminal")
def test_a_terminal_has_a_table_with_the_cursor_in_sight(sweep: FakeSweep) -> None:
    sent = drawn(sweep, 24, 100, sweep.play)
    assert all(word in sent for word in ("rank", "lr", "finished", "dropped 1/3", "best 1.1250"))
    assert sent.rindex("\x1b[?25h") > sent.rindex("\x1b[?25l")


@pytest.mark.usefixtures("terminal")
def test_a_table_is_no_higher_than_its_terminal(tmp_path: Path) -> None:
    sweep = FakeSweep(tmp_path / "many", {"train.lr": [str(rate) for rate in range(1, 61)]}, loss=by_rate)
    sweep.play(rungs=1)
    sent = drawn(sweep, 16, 60, lambda: None)
    picture = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", sent).split("many  ")[-1]
    assert picture.count("\n") < 16
    assert "and 56 more: 30 dropped, 26 passed" in picture


@pytest.mark.usefixtures("terminal")
def test_what_a_sweep_says_as_it_ends_is_not_drawn_over(sweep: FakeSweep, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    sent = bytearray()
    reader = threading.Thread(target=read_all, args=(ours, sent))
    reader.start()
    monkeypatch.setattr(os, "dup", lambda _: theirs)  # the terminal in the place of stdout

    def end() -> None:
        with showing(sweep.folder, sweep.record):
            wait_for(lambda: b"rank" in sent)
            os.write(theirs, b"why it ends\n")
            raise SystemExit

    with pytest.raises(SystemExit):
        end()
    reader.join()
    os.close(ours)
    after = sent.decode().partition("why it ends")[2]
    assert (
        after.partition("\x1b[1A")[0].count("\n") >= after.count("\x1b[1A") / 2 > 0
    )  # drawn twice: at last, and to stop


@pytest.mark.usefixtures("terminal")
def test_a_decision_stays_above_the_table(sweep: FakeSweep) -> None:
    sent = drawn(sweep, 24, 100, sweep.play)
    assert "rung 1 of 3: 2 of 4 go on" in sent


def test_a_terminal_that_cannot_be_drawn_on_has_lines(sweep: FakeSweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    sent = drawn(sweep, 24, 100, sweep.play)
    assert "rung 1/3  trial 0 of 4" in sent
    assert "\x1b" not in sent


def test_the_ranking_has_the_best_and_says_how_many_more_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = FakeSweep(tmp_path / "many", {"train.lr": [str(rate) for rate in range(1, 31)]}, loss=by_rate)
    sweep.play()
    print_ranking(sweep.folder, sweep.record, standings(*sweep.parts))
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"and 10 more in {sweep.folder.path}"
    assert lines[3].split() == ["1", "0", "1", "8", "1.1250", "finished"]


def test_reasons_are_said_once_with_their_trials_and_where_to_read_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = [Trial(number=n, bracket=0, values={"train.lr": str(n)}) for n in range(3)]
    trials.append(Trial(number=3, bracket=0, values={"train.lr": "x"}, refused="train.lr is [no] number"))
    sweep = FakeSweep(tmp_path / "ill", RATES, loss=by_rate, trials=trials)
    for number in (0, 2):
        sweep.finish(number, 2, status="failed", reason="out of memory")
    print_ranking(sweep.folder, sweep.record, standings(*sweep.parts))
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [
        f"failed: trials 0, 2: out of memory ({sweep.folder.path / '0' / 'step-2' / 'log.txt'})",
        "refused: trial 3: train.lr is [no] number",
    ]


def test_reasons_that_differ_in_numbers_alone_are_said_once(
    sweep: FakeSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, loss in enumerate((7.1, 9.25)):
        sweep.finish(number, 2, status="ended", reason=f"diverged: loss {loss}")
    print_ranking(sweep.folder, sweep.record, standings(*sweep.parts))
    assert "ended: trials 0, 1, the first: diverged: loss 7.1 (" in capsys.readouterr().out


def test_a_sum_is_shown_beside_the_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objective = ["validation_loss", "-0.01*tokens_per_second"]
    sweep = FakeSweep(tmp_path / "sum", RATES, loss=by_rate, objective=objective)
    sweep.play()
    print_ranking(sweep.folder, sweep.record, standings(*sweep.parts))
    head, _, first = capsys.readouterr().out.splitlines()[1:4]
    assert head.split()[-4:] == ["step", "loss", "score", "state"]
    assert first.split()[-4:] == ["8", "1.1250", "0.1250", "finished"]
