from typing import Any

import pytest

from pipeline.core.data_settings import DataSettings
from pipeline.core.formats import convert, detect
from pipeline.data.mapping import Mapping


def mapping(**settings: Any) -> Mapping:
    return Mapping(DataSettings("local", "files", ["a"], **settings))


@pytest.mark.parametrize("row", [{"Frage": "Wer?", "Antwort": "Ann"}, {" frage": "Wer?", "ANTWORT ": "Ann"}])
def test_columns_are_read_under_the_names_that_they_are_mapped_to(row: dict[str, str]) -> None:
    mapped = mapping(columns={"Frage": "question", "antwort": "answer"}).apply(row)
    assert mapped == {"question": "Wer?", "answer": "Ann"}


@pytest.mark.parametrize("written", [False, True])
def test_keys_and_roles_of_turns_are_mapped_too(written: bool) -> None:
    turns: Any = [{"speaker": "Lehrer", "said": "Who?"}, {"speaker": "kind ", "said": "Ann"}]
    if written:
        turns = '[{"speaker": "Lehrer", "said": "Who?"}, {"speaker": "kind", "said": "Ann"}]'
    row = mapping(
        columns={"speaker": "role", "said": "content", "talk": "messages"},
        roles={"Lehrer": "user", "Kind": "assistant"},
    ).apply({"talk": turns})
    assert detect(row) == "messages"
    assert [message["role"] for message in convert(row, "messages")] == ["user", "assistant"]


def test_a_column_that_has_the_name_already_is_set_aside() -> None:
    mapped = mapping(columns={"text": "question"}).apply({"text": "a", "question": "b", "answer": "c"})
    assert mapped == {"question": "a", "question (not mapped)": "b", "answer": "c"}


def test_ignored_keys_are_read_as_if_they_were_not_there_and_known() -> None:
    ignoring = mapping(ignore=["Score", "name"])
    row = {"score": 3, "messages": [{"role": "user", "content": "Hi", "name": "Ann"}], "id": 1}
    assert ignoring.apply(row) == {"messages": [{"role": "user", "content": "Hi"}], "id": 1}
    assert ignoring.ignored_in(row) == {"score", "name"}
    assert mapping().ignored_in(row) == set()


def test_without_settings_a_row_is_as_it_is() -> None:
    row = {"Frage": 1}
    assert not mapping()
    assert mapping().apply(row) is row
    assert mapping(ignore=["a"]).apply(["no row"]) == ["no row"]


def test_schemas_of_tools_keep_their_keys() -> None:
    row = {"Tools": [{"name": "add", "description": "d"}], "name": "Who?", "answer": "Ann", "description": "x"}
    mapped = mapping(columns={"name": "question"}, ignore=["description"]).apply(row)
    assert mapped == {"Tools": row["Tools"], "question": "Who?", "answer": "Ann"}
