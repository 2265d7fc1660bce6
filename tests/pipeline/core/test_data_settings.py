from dataclasses import replace
from typing import Any

import pytest

from common.errors import UserError
from pipeline.core.data_settings import NO_CLEANING, DataSettings, SourceSettings, each_source, validate

FILE = SourceSettings(files=["a"])


def settings(**changes: Any) -> DataSettings:
    return DataSettings(**({"name": "local", "source": "files", "files": ["data/raw/**/*"]} | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"source": "hub", "path": "owner/chats", "files": []},
        {"columns": {"Frage": "question"}, "roles": {"Lehrer": "assistant"}, "max_dropped": 0, "max_bad_lines": 0},
        {"validation": 0, "test": 0},  # where files bring them
        {"test": 0, "own_splits": False, "test_files": ["a.jsonl"]},
        {
            "files": [],
            "sources": {"own": replace(FILE, weight=0.5, cap=1), "hub": SourceSettings(path="a/b")},
        },
        {
            "files": [],
            "test": 0,
            "sources": {"own": replace(FILE, test_files=["b"])},
            "own_splits": False,
        },
        {"source": "hub", "path": "a/b", "files": [], "split": ["train", "test"]},
        {"source": "hub", "path": "a/b", "files": [], "split": None},
        {"format": "sharegpt", "max_rows": 3, "validation": 1, "test": 500.0, "seed": 7},
    ],
)
def test_settings_in_range_pass(changes: dict[str, Any]) -> None:
    validate(settings(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"clean": replace(NO_CLEANING, max_tokens=9)},
            "data.clean.max_tokens counts tokens, and data.clean.tokenizer is null",
        ),
        ({"clean": replace(NO_CLEANING, languages=["german"])}, "data.clean.languages is 'german'; it may be codes of"),
        ({"source": "disk"}, "data.source is 'disk'; it may be files or hub"),
        ({"files": []}, "data.files is []; it may be a list of at least one path or glob"),
        (
            {"source": "hub", "path": "a/b", "split": []},
            "data.split is []; it may be the name of a split",
        ),
        ({"sources": {}}, "data.sources is {}; it may be null, or at least one source by its name"),
        (
            {"sources": {"a": FILE}},
            "data.files is ['data/raw/**/*']; it may be empty where data.s",
        ),
        (
            {"files": [], "sources": {"a.b": FILE}},
            "data.sources.a.b is 'a.b'; it may be a name of",
        ),
        ({"files": [], "sources": {"a": SourceSettings()}}, "data.sources.a is []; it may be a source with files, or"),
        (
            {"files": [], "sources": {"a": replace(FILE, path="a/b")}},
            "data.sources.a is ['files', 'path']; it may be either files or a path",
        ),
        (
            {"files": [], "sources": {"a": replace(FILE, weight=0)}},
            "data.sources.a.weight is 0; it may be above 0",
        ),
        (
            {"files": [], "sources": {"a": replace(FILE, cap=0)}},
            "data.sources.a.cap is 0; it may be null or at least 1 row",
        ),
        (
            {"files": [], "sources": {"a": replace(FILE, format="csv")}},
            "data.sources.a.format is 'csv'; it may be one of auto",
        ),
        (
            {"files": [], "sources": {"a": replace(FILE, columns={"Frage": "frage"})}},
            "data.sources.a.columns.Frage is 'frage'; it may be one of",
        ),
        ({"source": "hub"}, "data.path is None; it may be the hub's name of a dataset"),
        ({"source": "hub", "path": "a/b", "split": ""}, "data.split is ''; it may be the name of a split"),
        (
            {"format": "csv"},
            "data.format is 'csv'; it may be one of auto, messages, sharegpt, exchanges, alpaca, calls",
        ),
        ({"max_rows": 2}, "data.max_rows is 2; it may be null or at least 3"),
        ({"columns": {"Frage": "frage"}}, "data.columns.Frage is 'frage'; it may be one of messages, conversations"),
        ({"roles": {"Lehrer": "teacher"}}, "data.roles.Lehrer is 'teacher'; it may be one of system, developer, user"),
        ({"preferences": "keep"}, "data.preferences is 'keep'; it may be one of apart, learn, answers, drop"),
        ({"opening": "learn"}, "data.opening is 'learn'; it may be drop or keep"),
        ({"repeated": "first"}, "data.repeated is 'first'; it may be reject or merge"),
        ({"max_dropped": 1.1}, "data.max_dropped is 1.1; it may be a share of the rows, 0 to 1"),
        ({"max_bad_lines": -1}, "data.max_bad_lines is -1; it may be 0 or more lines"),
        ({"answer_after": ""}, "data.answer_after is ''; it may be null or a text that is not empty"),
        ({"duplicates": "some"}, "data.duplicates is 'some'; it may be one of folded, exact, off"),
        ({"near_duplicates": 1.2}, "data.near_duplicates is 1.2; it may be null or from 0.5 to 1"),
        (
            {"common_exchange": 0},
            "data.common_exchange is 0; it may be null or a share of the rows, above 0 and below 1",
        ),
        ({"leak_threshold": 0.2}, "data.leak_threshold is 0.2; it may be null or from 0.5 to 1"),
        ({"seed": -1}, "data.seed is -1; it may be 0 or more"),
        (
            {"validation": 0, "own_splits": False},
            "data.validation is 0; it may be a share above 0 and below 1, a whole",
        ),
        ({"test": 0, "own_splits": False}, "data.test is 0; it may be a share above 0 and below 1, a whole number"),
        (
            {"source": "hub", "path": "a/b", "test_files": ["a"]},
            "data.test_files is ['a']; it may be empty where data.source is hub",
        ),
        ({"validation": -0.1}, "data.validation is -0.1; it may be"),
        ({"test": 1.5}, "data.test is 1.5; it may be"),
        ({"test": float("nan")}, "data.test is nan; it may be"),
        ({"test": float("inf")}, "data.test is inf; it may be"),
        ({"validation": 0.5, "test": 0.5}, "data.validation and data.test take 1 of the rows together"),
    ],
)
def test_a_setting_out_of_range_is_named_with_what_it_may_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        validate(settings(**changes))
    assert str(caught.value).startswith(message)


def test_a_source_is_read_as_data_says_but_for_what_it_says_itself() -> None:
    sources = {"own": FILE, "hub": SourceSettings(path="a/b", ignore=[], split=None)}
    alone = each_source(settings(files=[], sources=sources, ignore=["score"], format="messages", seed=3))
    assert [(one.source, one.files, one.path, one.split) for one in alone.values()] == [
        ("files", ["a"], None, "train"),
        ("hub", [], "a/b", None),
    ]
    assert [(one.ignore, one.format, one.seed, one.sources) for one in alone.values()] == [
        (["score"], "messages", 3, None),
        ([], "messages", 3, None),
    ]
