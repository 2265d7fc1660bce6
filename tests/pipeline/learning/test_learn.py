"""`tunesmith learn`: what visitors said becomes rows, and what of it does not."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from feedback_hub import DATASET, feedback_hub
from learning import CONF, learnt_from, settings_of
from said import SMALL, asked, chatter, keep, thumb, vote, words

from common.errors import UserError
from common.files import sha256
from pipeline.core.composition import compose
from pipeline.core.config import load
from pipeline.core.data_settings import DataSettings
from pipeline.core.preferences import compare
from pipeline.learning.forgotten import Forgotten, Traces
from pipeline.learning.manifest import LearnManifest
from pipeline.learning.sources import NothingToLearn
from pipeline.stages import learn
from pipeline.stages.prepare import prepare
from serve.feedback import Answer, AnswerRecord, ModelVersion, Record, visitor_of

Learn = Callable[..., LearnManifest]
KINDS = [(kind, split) for kind in ("pairs", "labels") for split in ("train", "validation", "test")]


@pytest.fixture
def learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Learn:
    """Keeps records in a folder and learns from them there."""
    monkeypatch.chdir(tmp_path)

    def run(*records: Record, **settings: Any) -> LearnManifest:
        keep(tmp_path / "feedback", *records)
        return learnt_from(folder="feedback", **settings)

    return run


def rows(kind: str, *splits: str) -> list[Any]:
    """The rows of a kind, of some splits or all."""
    paths = [Path("data/feedback", kind, f"{split}.jsonl") for split in splits or ("train", "validation", "test")]
    return [json.loads(line) for path in paths if path.is_file() for line in path.read_text().splitlines()]


def said(row: Any) -> tuple[str, ...]:
    answers = [row[key][0]["content"] for key in ("chosen", "rejected", "completion") if key in row]
    return (row["prompt"][0]["content"], *answers)


def about(word: str) -> list[Any]:
    """Rows whose prompt has a word."""
    return [row for kind in ("pairs", "labels") for row in rows(kind) if word in row["prompt"][0]["content"]]


def test_votes_edits_and_thumbs_become_rows_with_their_provenance(learnt: Learn) -> None:
    voted = vote("a", "Which colour is the sky?", "blue", "green", "right", talk="first")
    edited = thumb("b", "How far is the moon?", "Near", "bad", edited="384,400 km", talk="second")
    liked = thumb("c", "Who wrote Faust?", "Goethe")
    both = vote("d", "What is a whale?", "a fish", "a bird", "both_bad")
    manifest = learnt(*chatter(8), voted, edited, liked, both)
    (pair,), (edit,), (label,) = about("sky"), about("moon"), about("Faust")
    assert said(pair) == ("Which colour is the sky?", "green", "blue")
    assert pair["provenance"] == {
        "record": voted.id, "visitor": visitor_of("a"), "conversation": "first", "made": "vote", "agreed": [],
    }  # fmt: skip
    assert said(edit) == ("How far is the moon?", "384,400 km", "Near")
    assert (said(label), label["label"]) == (("Who wrote Faust?", "Goethe"), True)
    assert sorted((said(row)[1], row["label"]) for row in about("whale")) == [("a bird", False), ("a fish", False)]
    assert manifest.records[voted.id].visitor == visitor_of("a")
    assert {path: sha256(Path(path)) for path in manifest.files} == manifest.files
    assert Path(f"data/learnt/{manifest.digest}.json").read_bytes() == Path("data/feedback/manifest.json").read_bytes()


def test_rows_are_in_layouts_that_the_pipeline_reads(learnt: Learn) -> None:
    learnt(*chatter(12))
    assert all("chosen" in compare(row).comparison for row in rows("pairs"))
    assert all("label" in compare(row).comparison for row in rows("labels"))
    settings = DataSettings(
        name="feedback",
        source="files",
        files=["data/feedback/pairs/*.jsonl"],
        preferences="answers",
        leak_threshold=None,  # these questions are all alike
    )
    report = prepare(settings, Path(), Path())
    counts = {split: report["splits"][split]["rows"] for split in ("train", "validation", "test")}
    assert counts == {split: len(rows("pairs", split)) for split in counts}


def test_no_visitor_and_no_conversation_is_in_two_splits(learnt: Learn) -> None:
    shared = [
        thumb(f"v{number}", f"Sing of {words(number)}!", "la", talk=f"shared {number // 3}") for number in range(9)
    ]
    manifest = learnt(*chatter(40), *shared)
    for key in ("visitor", "conversation"):
        seen: dict[str, set[str]] = {}
        for kind, split in KINDS:
            for row in rows(kind, split):
                seen.setdefault(row["provenance"][key], set()).add(split)
        assert len(seen) > 30
        assert all(len(splits) == 1 for splits in seen.values())
    assert all(counts.pairs and counts.labels for counts in manifest.splits.values())


def test_who_is_held_out_stays_so_as_more_is_said(learnt: Learn) -> None:
    learnt(*chatter(30))
    before = {row["provenance"]["visitor"] for kind in ("pairs", "labels") for row in rows(kind, "test")}
    learnt(*chatter(60, each=3))
    after = {row["provenance"]["visitor"] for kind in ("pairs", "labels") for row in rows(kind, "test")}
    assert 0 < len(before) < 30
    assert before < after


def test_the_majority_of_visitors_stands_and_a_tie_is_left_out(
    learnt: Learn, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [
        *(thumb(name, "Is the sea salty?", "Yes.") for name in "abc"),
        *(thumb("d", "is the sea  SALTY", "yes", "bad") for _ in range(9)),  # one visitor, however often
        vote("a", "Which is larger?", "an ant", "a whale", "right"),
        vote("b", "Which is larger?", "a whale", "an ant", "right"),
        thumb("a", "Is it late?", "No."),
        replace(thumb("a", "Is it late?", "No."), verdict="bad"),  # the visitor's later word
    ]
    manifest = learnt(*chatter(8), *records)
    (salty,) = about("sea")
    assert salty["label"]
    agreed = {salty["provenance"]["record"], *salty["provenance"]["agreed"]}
    assert agreed == {record.id for record in records[:3]}
    assert about("larger") == []
    assert [row["label"] for row in about("late")] == [False]
    told = capsys.readouterr().out
    for line in (
        "left out: 2 statements on which visitors are divided",
        "left out: 1 statement that more visitors contradict",
        "left out: 9 statements the visitor's own earlier word on the same",
    ):
        assert line in told
    assert manifest.left_out["that say what a row says that is kept"] == 2


def test_near_duplicates_are_collapsed_and_a_visitor_has_a_share(learnt: Learn) -> None:
    text = "a long answer about the sea and the ships that sail on it from one harbour to the next in every weather"
    near = [thumb(f"n{number}", "Tell me of the sea and its ships", f"{text} number {number}") for number in range(4)]
    much = [thumb("busy", f"What about {words(number)} geese?", f"They are {words(number)}.") for number in range(30)]
    manifest = learnt(*chatter(8), *near, *much, per_visitor=5, near_duplicates=0.7)
    assert len(about("ships")) == 1
    assert len(about("geese")) == 5
    assert manifest.left_out["nearly the same as a row that is kept"] >= 3
    assert manifest.left_out["beyond what one visitor's may count"] >= 25


def test_personal_data_is_masked_and_names_stay_out_of_the_report(learnt: Learn) -> None:
    learnt(*chatter(8), thumb("a", "My address is joe@example.org", "Write to joe@example.org or +44 20 7946 0958"))
    (row,) = about("address")
    assert said(row) == ("My address is <EMAIL>", "Write to <EMAIL> or <PHONE>")
    page = Path("reports/feedback.html").read_text()
    figures = json.loads(Path("reports/feedback.json").read_text())
    assert figures["masked"] == {"email": 2, "phone": 1}
    for visitor in map(visitor_of, ["a", "v1"]):
        assert visitor not in page
        assert visitor[:8] in page
    assert figures["models"] == {"large": {"lost": 16}, "small": {"won": 16, "good": 17}}
    assert [one["number"] for one in figures["visitors"]] == list(range(1, 10))


def test_what_cannot_be_learnt_is_left_out_and_counted(
    learnt: Learn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unasked = AnswerRecord(messages=asked("Nobody asked?"), sampling={}, answer=Answer("I did.", SMALL), verdict="good")
    unknown = vote("a", "Whose are these?", "x", "y")
    unknown = replace(unknown, left=replace(unknown.left, model=ModelVersion("gone")))
    taken_back = thumb("a", "Was it good?", "Yes.")
    keep(tmp_path / "feedback", unasked, unknown, taken_back, replace(taken_back, verdict=None, time="9999"))
    (path,) = (tmp_path / "feedback").iterdir()
    record = json.loads(path.read_text().splitlines()[0])
    with path.open("a") as file:
        file.write(json.dumps(record | {"schema": 3, "id": "0" * 32}) + "\n" + '{"schema": 2}\n')
        file.write(json.dumps(record | {"schema": 1, "id": "1" * 32}) + "\n" + "torn")
    manifest = learnt(*chatter(8))
    assert manifest.left_out == {
        "without consent": 2,
        "whose model is unknown": 1,
        "without a judgement, or taken back": 1,
        "replaced by a later version": 1,
        "of another schema": 1,
        "cannot be read, or is no record": 2,
    }
    told = capsys.readouterr().out
    assert f"left out: 1 record of another schema (the first: {path.name}:5)" in told
    assert f"left out: 1 record whose model is unknown (the first: {path.name}:2)" in told
    assert not about("Nobody") + about("Whose") + about("good?")


def test_whoever_is_forgotten_is_learnt_from_no_more(learnt: Learn) -> None:
    Forgotten().remember(Path(), visitor_of("v1"), Traces())
    manifest = learnt(*chatter(8))
    assert manifest.left_out == {"of a visitor who is forgotten": 4}
    assert visitor_of("v1") not in Path("data/feedback/manifest.json").read_text()


@pytest.mark.parametrize(
    ("records", "error"),
    [
        ([], r"no feedback-\*.jsonl in feedback"),
        (chatter(2), "three splits take 3 at least"),
        ([vote("a", "?", "x", "y", "tie")], "nothing is left to learn of 1 record: 1 a vote for neither"),
    ],
)
def test_too_little_ends_in_one_line_and_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: list[Record], error: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = Path("data/feedback/pairs/train.jsonl")
    before.parent.mkdir(parents=True)
    before.write_text("{}\n")
    if records:
        keep(tmp_path / "feedback", *records)
    with pytest.raises(NothingToLearn, match=error) as raised:
        learnt_from(folder="feedback")
    assert "\n" not in str(raised.value)
    assert before.read_text() == "{}\n"


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"held_out": 0.9, "validation": 0.2}, "learn.held_out and learn.validation take 1.1 of the rows together"),
        ({"per_visitor": 0}, "learn.per_visitor is 0; it may be at least 1"),
        ({"near_duplicates": 0}, "learn.near_duplicates is 0.0; it may be above 0 and at most 1"),
        ({"folder": "feedback", "dataset": "a/b"}, "learn.folder is feedback and learn.dataset a/b, of which one"),
        ({"mask": "[name]"}, r"learn.mask\[0\] is 'name'; it may be email"),
    ],
)
def test_settings_that_cannot_be_are_named(settings: dict[str, Any], error: str) -> None:
    with pytest.raises(UserError, match=error):
        settings_of(**settings)


def test_where_nothing_is_named_dvc_finds_what_there_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load(compose(CONF))
    with pytest.raises(NothingToLearn, match=r"learn.folder and learn.dataset are null"):
        learn.run(config, Path())
    assert not Path("data/feedback").exists()
    monkeypatch.setenv("DVC_STAGE", "learn")
    learn.run(config, Path())
    assert list(Path("data/feedback").iterdir()) == []
    Path("data/feedback/mine").write_text("by hand")
    learn.run(config, Path())
    assert Path("data/feedback/mine").read_text() == "by hand"
    assert "data/feedback stays as it is" in capsys.readouterr().out


def test_a_dataset_is_read_as_the_folder_is(learnt: Learn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_folder = learnt(*chatter(8))
    (path,) = (tmp_path / "feedback").iterdir()
    with feedback_hub(monkeypatch, tmp_path, {path.name: path.read_bytes(), "README.md": b"#"}) as hub:
        of_dataset = learnt_from(dataset=DATASET)
        hub.files.clear()  # it went private
        way_out = "check its name, and for a private or gated dataset set HF_TOKEN"
        with pytest.raises(UserError, match=rf"did not give owner/feedback .* {way_out}"):
            learnt_from(dataset=DATASET)
    assert of_dataset.digest == of_folder.digest
    assert of_dataset.source == f"{DATASET}@{1:040x}"


def test_a_dataset_that_cannot_be_had_is_said_in_the_hub_s_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"cannot reach the Hugging Face hub for owner/feedback"):
        learnt_from(dataset="owner/feedback")
