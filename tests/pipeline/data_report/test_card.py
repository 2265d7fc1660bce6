"""The card of a set that is made of several, and of one from the Hub."""

import pytest
from raw_rows import local

from pipeline.core.data_settings import DataSettings, SourceSettings
from pipeline.core.records import PrepareReport
from pipeline.data_report.card import hub_sets, languages
from pipeline.data_report.record import AnswerFigures, DataReport, SplitFigures

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def report(**changes: object) -> PrepareReport:
    split = {"rows": 0, "sha256": ""}
    empty: dict[str, object] = {"data": "d", "revision": None, "files": [], "not_read": {}, "duplicates": 0, "seed": 0}
    empty |= {"splits": dict.fromkeys(("train", "validation", "test"), split), "characters": {}}
    empty |= {"questions": {"given": 0, "in_training": 0, "kept": 0, "groups": {}}}
    return PrepareReport.model_validate(empty | changes)


def mix() -> DataSettings:
    talk = SourceSettings(path="owner/talk", revision="main")
    return local(files=[], sources={"talk": talk, "own": SourceSettings(files=["a.jsonl"]), "not": None})


def test_sets_of_the_hub_are_named_with_the_commit_that_was_read() -> None:
    told = {"weight": 1, "usable": 3, "sampled_out": 0, "splits": {}}
    sources = {"talk": told | {"revision": COMMIT}, "own": told | {"revision": None}}
    assert hub_sets(mix(), report(sources=sources)) == {"owner/talk": COMMIT}
    alone = local(source="hub", files=[], path="owner/chats")
    assert hub_sets(alone, report(revision=COMMIT)) == {"owner/chats": COMMIT}
    assert hub_sets(local(), report()) == {}


@pytest.mark.parametrize(
    ("told", "spoken"),
    [({"en": 80, "de": 15, "fr": 2, "unknown": 50}, ["en", "de"]), ({"unknown": 9}, []), ({}, [])],
)
def test_languages_are_those_of_a_good_part_of_train(told: dict[str, int], spoken: list[str]) -> None:
    answers = AnswerFigures(answers=0, different=0, short=0, most=())
    train = SplitFigures(rows=0, roles={}, answers=answers, sources={}, drawn=0, languages=told, topics={}, quality={})
    assert languages(DataReport(data="d", steps=(), splits={"train": train}, tokens=None, groups={})) == spoken
