"""A canary in a real MLflow registry, on sqlite: how it begins, what decides it, and what it leaves."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from evaluated import evaluation, write_model
from mlflow import MlflowClient
from said import keep, thumb, vote

from pipeline import cli
from pipeline.canary.record import CanaryRecord
from serve.feedback import ModelVersion

FILES = {"Q8_0": {"accuracy": 0.8, "loss": 0.2, "bytes": 2000}}
FAST = ["canary.level=0.2", "canary.per_visitor=1"]
Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """A command: what it prints, or the line that it ends with."""

    def command(*arguments: str, refused: bool = False, verb: str = "canary") -> str:
        capsys.readouterr()
        status = cli.run([*verb.split(), *arguments])
        printed = capsys.readouterr()
        assert status == (1 if refused else 0), printed.err
        return printed.err.splitlines()[-1] if refused else printed.out

    return command


@pytest.fixture
def tried(place: Path, run: Run) -> Run:
    """A champion, version 1, and a candidate, version 2, of which nobody has said anything."""
    write(place)
    run(verb="promote")
    write(place, b"two")
    run("start", "--quantization", "Q8_0")
    (place / "feedback").mkdir()
    return run


def write(place: Path, content: bytes = b"one", **more: Any) -> None:
    write_model(place, evaluation("starter-s", FILES, **more), content)


def client() -> MlflowClient:
    return MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db")


def aliases() -> dict[str, str]:
    return {alias: str(number) for alias, number in client().get_registered_model("tunesmith").aliases.items()}


def tags(number: int) -> dict[str, str]:
    return dict(client().get_model_version("tunesmith", str(number)).tags)


def of(number: int) -> ModelVersion:
    return ModelVersion("whatever", digest=tags(number)["sha256"])


def votes(won: int, lost: int, first: int = 0) -> None:
    """Blind votes for and against version 2, in turn as far as they go, each of another visitor."""
    models, count = (of(2), of(1)), won + lost
    sides = ["left" if (n + 1) * won // count > n * won // count else "right" for n in range(count)]
    keep(
        Path("feedback"),
        *(vote(f"v{first + n}", f"{n}?", "x", "y", side, models=models) for n, side in enumerate(sides)),
    )


def record() -> CanaryRecord:
    return CanaryRecord.read(Path("reports/canary.json"))


def test_a_candidate_is_the_evaluated_file_with_the_lineage_that_a_champion_has(tried: Run) -> None:
    assert aliases() == {"champion": "1", "candidate": "2"}
    known = tags(2)
    assert known["canary_champion"] == f"1 {tags(1)['sha256']}"
    own, champions = ("sha256", "adapter_digest"), tags(1)
    assert all(known[name] != champions[name] for name in own)
    assert {name: value for name, value in known.items() if name not in own and "canary" not in name} == {
        name: value for name, value in champions.items() if name not in own
    }
    told = tried("status")
    assert "version 2 against version 1 of tunesmith" in told
    assert "0 won, 0 lost, 0 for neither, of 0 visitors: win rate 50.0% (0.0% to 100.0%)" in told
    assert "cannot tell yet, after 0 votes, nor would more of them; it ends undecided after 2,000, or on 2" in told


def test_a_better_one_becomes_the_champion_by_itself_and_a_record_says_why(tried: Run) -> None:
    votes(won=40, lost=4)
    assert "version 2 is the champion of tunesmith" in tried("watch", *FAST)
    assert aliases() == {"champion": "2"}
    assert tags(2)["previous"] == "1"
    kept = record()
    assert kept == CanaryRecord.parse_text(tags(2)["canary"], "the tag")
    assert (kept.found, kept.action, kept.candidate.version, kept.champion.version) == ("better", "promoted", "2", "1")
    assert kept.outcome.win_rate.low > 0.5
    assert kept.outcome.records == kept.outcome.votes.candidate + kept.outcome.votes.champion < 44
    assert kept.why.startswith(f"the candidate is better; blind votes {kept.outcome.votes.candidate} won, ")
    assert "no candidate of tunesmith is tried" in tried("watch", refused=True)
    tried("--rollback", verb="promote")
    assert aliases() == {"champion": "1"}


def test_a_worse_one_is_withdrawn_and_the_champion_stays(tried: Run) -> None:
    votes(won=4, lost=40)
    assert "version 2 of tunesmith is withdrawn, and no champion is moved" in tried("watch", *FAST)
    assert aliases() == {"champion": "1"}
    assert (record().found, record().action) == ("worse", "withdrawn")
    assert record().outcome.win_rate.high < 0.5


def test_records_that_nobody_understands_are_said_while_it_is_watched(tried: Run) -> None:
    votes(won=2, lost=1)
    (path,) = Path("feedback").iterdir()
    first, second, _ = path.read_text().splitlines()
    others = first.replace('"schema": 2', '"schema": 9'), second.replace(f'"{tags(2)["sha256"]}"', "null")
    path.write_text("".join(f"{line}\n" for line in (*others, "{")))
    left_out = "1 record of another schema, 1 record whose model is unknown, 1 record cannot be read, or is no record"
    assert tried("watch", "--once", *FAST).endswith(f"; left out: {left_out}\n")


def test_what_cannot_be_told_yet_says_about_how_many_more_votes_would(tried: Run) -> None:
    votes(won=8, lost=4)
    told = tried("watch", "--once", *FAST)
    assert "cannot tell yet, about " in told
    assert "more votes as these would" in told
    assert aliases() == {"champion": "1", "candidate": "2"}
    assert not Path("reports/canary.json").exists()


def test_it_ends_undecided_after_the_most_votes_and_after_the_last_day(tried: Run) -> None:
    votes(won=8, lost=8)
    assert "it ends undecided" in tried("watch", "canary.max_votes=16", *FAST)
    assert aliases() == {"champion": "1"}
    assert (record().found, record().action, record().outcome.records) == ("undecided", "withdrawn", 16)
    tried("start", "--version", "2")
    assert "canary" not in tags(2)  # a new one, for which nothing was said
    assert "it ends undecided" in tried("watch", "canary.max_days=1e-9", *FAST)
    assert record().outcome.records == 0


def test_thumbs_of_a_share_of_conversations_decide_it_too(tried: Run) -> None:
    two, one = of(2), of(1)
    keep(Path("feedback"), *(thumb(f"c{n}", f"{n}?", "x", "good", model=two) for n in range(30)))
    keep(Path("feedback"), *(thumb(f"d{n}", f"{n}?", "x", "bad", model=one) for n in range(30)))
    assert "conversations of the candidate: 30 good, 0 bad" in tried("status")
    assert "version 2 is the champion" in tried("watch", *FAST)
    assert record().outcome.conversations.candidate == record().outcome.visitors == record().outcome.records / 2


def test_asked_to_tell_it_moves_nothing_and_a_user_decides(tried: Run) -> None:
    votes(won=40, lost=4)
    told = tried("watch", *FAST, "canary.on_better=tell")
    assert "nothing moves: `tunesmith canary end --promote` makes version 2 the champion" in told
    assert aliases() == {"champion": "1", "candidate": "2"}
    assert record().action == "told"
    tried("end", "--promote", *FAST)
    assert aliases() == {"champion": "2"}
    assert (record().found, record().action) == ("better", "promoted")
    assert record().why.startswith("ended by hand; ")


def test_ended_by_hand_the_candidate_is_withdrawn(tried: Run) -> None:
    votes(won=2, lost=2)
    assert "version 2 of tunesmith is withdrawn" in tried("end")
    assert aliases() == {"champion": "1"}
    assert (record().found, record().action) == ("ended", "withdrawn")


CALLS = ("set_model_version_tag", "set_registered_model_alias", "delete_registered_model_alias")


@pytest.mark.parametrize("after", range(5))
def test_killed_after_any_step_and_started_again_it_ends_in_the_same_decision(
    tried: Run, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """The steps that change the registry; votes that come in between count for nothing once it is decided."""
    votes(won=40, lost=4)
    left = [after]

    class Dying(MlflowClient):
        pass

    def dying(name: str) -> Any:
        def call(self: Dying, *arguments: Any, **named: Any) -> Any:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return getattr(MlflowClient, name)(self, *arguments, **named)

        return call

    for name in CALLS:
        setattr(Dying, name, dying(name))
    with monkeypatch.context() as patch:
        patch.setattr(mlflow, "MlflowClient", Dying)
        assert cli.run(["canary", "watch", *FAST]) == (130 if after < 4 else 0)
    assert aliases()["champion"] in ("1", "2")  # on a whole version
    if after:
        votes(won=0, lost=60, first=100)
    if after < 4:
        assert "version 2 is the champion" in tried("watch", *FAST)
    assert aliases() == {"champion": "2"}
    assert record() == CanaryRecord.parse_text(tags(2)["canary"], "the tag")
    assert record().outcome.votes.champion <= 4


def test_a_champion_that_somebody_moved_ends_it_without_a_decision(tried: Run, place: Path) -> None:
    votes(won=40, lost=4)
    write(place, b"three")
    tried("--force", verb="promote")
    assert "the champion is another one than" in tried("end", "--promote", refused=True)
    assert "version 2 of tunesmith is withdrawn" in tried("watch", *FAST)
    assert aliases() == {"champion": "3"}
    assert (record().found, record().action) == ("ended", "withdrawn")


def test_a_champion_that_vanished_ends_it_without_a_decision(tried: Run) -> None:
    votes(won=40, lost=4)
    client().delete_registered_model_alias("tunesmith", "champion")
    assert "the champion, version 1, is gone from MLflow's registry; " in tried("end", "--promote", refused=True)
    assert "version 1, is gone from MLflow's registry\nversion 2 of tunesmith is withdrawn" in tried("watch", *FAST)
    assert aliases() == {}


def test_what_is_no_candidate_is_refused_in_one_line(place: Path, run: Run) -> None:
    write(place)
    assert "tunesmith has no champion that `tunesmith promote` made" in run("start", refused=True)
    run(verb="promote")
    assert "starter-s-Q8_0.gguf is the champion's own file, version 1" in run("start", refused=True)
    assert "tunesmith has no version 9" in run("start", "--version", "9", refused=True)
    write(place, b"two", failed="gain")
    assert "starter-s-Q8_0.gguf is not shown to visitors: the check gain failed" in run("start", refused=True)
    run("--force", verb="promote")
    run("--rollback", verb="promote")
    assert "version 2 of tunesmith did not pass its evaluation" in run("start", "--version", "2", refused=True)
    client().set_model_version_tag("tunesmith", "2", "passed", "true")
    for file in place.glob("mlartifacts/**/*.gguf"):
        if file.read_bytes().startswith(b"two"):
            file.unlink()
    assert "is to have starter-s-Q8_0.gguf, but MLflow does not have it" in run("start", "--version", "2", refused=True)
    client().delete_model_version_tag("tunesmith", "2", "file")
    assert "version 2 of tunesmith has no GGUF that" in run("start", "--version", "2", refused=True)
    client().set_registered_model_alias("tunesmith", "candidate", "2")
    assert "version 2 of tunesmith has the alias candidate, but no canary was started" in run("status", refused=True)
    assert aliases() == {"champion": "1", "candidate": "2"}


def test_one_runs_at_a_time_and_a_file_is_registered_once(tried: Run) -> None:
    assert "version 2 of tunesmith is tried since 2" in tried("start", "--quantization", "Q8_0", refused=True)
    tried("end")
    tried("start", "--quantization", "Q8_0")
    assert aliases() == {"champion": "1", "candidate": "2"}
    assert len(client().search_model_versions("name='tunesmith'")) == 2


def test_while_the_registry_or_the_records_are_away_it_says_so_once_and_asks_again(
    tried: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    votes(won=8, lost=4)
    database, records, away = Path("mlflow.db"), Path("feedback"), Path("away")
    between_looks: list[list[Callable[[], Any]]] = [
        [lambda: database.rename(away)],
        [],
        [lambda: away.rename(database), lambda: records.rename(away)],
        [lambda: away.rename(records), lambda: votes(won=40, lost=0, first=100)],
        [],
    ]

    def pass_time(_: float) -> None:
        for act in between_looks.pop(0):
            act()

    monkeypatch.setattr("time.sleep", pass_time)
    lines = tried("watch", *FAST).splitlines()
    assert lines[0].startswith("cannot tell yet, about ")
    assert re.match("MLflow has no .*mlflow.db yet; .*; asking again in 60 s", lines[1])
    assert re.match("no feedback-.* in feedback: .*; asking again in 60 s", lines[2])
    assert lines[3] == "version 2 against version 1 of tunesmith"
    assert between_looks == []
    assert aliases() == {"champion": "2"}
