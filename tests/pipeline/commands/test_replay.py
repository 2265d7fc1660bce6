"""The least share that holds: which experiments are run, when it ends, and what it says."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from evaluated import evaluation

from common.errors import UserError
from pipeline.commands import replay

REPO = Path(__file__).parents[3]
ASKED = ["data=starter-replay", "evaluate.gate.max_forgetting=0.1"]

Passed = tuple[bool | None, ...]
Experiment = Callable[[list[str]], int]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(REPO / "conf", tmp_path / "conf")
    (tmp_path / "reports").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def experiments(results: dict[str, Passed], run: list[list[str]]) -> Experiment:
    """What writes an evaluation whose checks of forgetting pass as the share's results say."""

    def experiment(arguments: list[str]) -> int:
        run.append(arguments)
        passed = results[arguments[-1].partition("=")[2]]
        found = evaluation("starter-s", {})
        found["verdict"]["checks"] += [
            {"name": f"forgetting set-{number}", "what": "lost", "figure": 0.05, "limit": 0.1, "passed": one}
            for number, one in enumerate(passed)
        ]
        found["verdict"]["passed"] = all(passed)
        Path("reports/evaluation.json").write_text(json.dumps(found), encoding="utf-8")
        return 0

    return experiment


def test_shares_are_tried_from_the_least_on_until_one_holds_on_every_set(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run: list[list[str]] = []
    results: dict[str, Passed] = {"0.05": (True, False), "0.1": (None, True), "0.2": (True, True)}
    replay.run([0.3, 0.05, 0.2, 0.1], ASKED, experiments(results, run))
    assert capsys.readouterr().out.splitlines() == [
        "share 0.05: gain 1.6000 nats; set-0 holds (+0.0500 nats), set-1 forgets too much (+0.0500 nats)",
        "share 0.1: gain 1.6000 nats; set-0 cannot tell (+0.0500 nats), set-1 holds (+0.0500 nats)",
        "share 0.2: gain 1.6000 nats; set-0 holds (+0.0500 nats), set-1 holds (+0.0500 nats)",
        "the least share that holds: 0.2; `tunesmith adopt data.replay.share=0.2` makes it last",
    ]
    assert [arguments[-2:] for arguments in run] == [["-S", f"data.replay.share={share}"] for share in results]
    level = f"evaluate.gate.level={0.05 / 4:g}"  # of four shares
    assert all(arguments[:-2] == ["-S", ASKED[0], "-S", ASKED[1], "-S", level] for arguments in run)


def test_where_no_share_holds_it_ends_with_an_error(folder: Path) -> None:
    with pytest.raises(UserError, match=r"^no share up to 0.1 is known to hold"):
        replay.run([0.05, 0.1], ASKED, experiments({"0.05": (False,), "0.1": (None,)}, []))


def test_an_experiment_that_fails_ends_it(folder: Path) -> None:
    with pytest.raises(UserError, match=r"^the experiment with data.replay.share=0.05 ended with status 3; see above"):
        replay.run([0.1, 0.05], ASKED, lambda _: 3)


def test_an_evaluation_without_texts_enough_is_an_error(folder: Path) -> None:
    with pytest.raises(UserError, match=r"evaluate.gate.min_rows texts that it takes to tell"):
        replay.run([0.1], ASKED, experiments({"0.1": ()}, []))


@pytest.mark.parametrize(
    ("shares", "overrides", "message"),
    [
        ([1.0], ASKED, "shares are of the rows of train"),
        ([0.1], ["data=starter-replay"], "evaluate.gate.max_forgetting is null"),
        ([0.1], [*ASKED, "evaluate.general.statements=null", "evaluate.general.transcripts=null"], "evaluate.general"),
        ([0.1], ASKED[1:], "data.replay is null"),
    ],
)
def test_what_cannot_be_tried_is_refused_before_anything_runs(
    folder: Path, shares: list[float], overrides: list[str], message: str
) -> None:
    run: list[list[str]] = []
    with pytest.raises(UserError) as raised:
        replay.run(shares, overrides, experiments({}, run))
    assert str(raised.value).startswith(message)
    assert not run
