import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.core import formats
from pipeline.core.formats import FORMATS, Messages, UnusableRowError, convert, detect, keys_of

NAN = float("nan")


def chat(*texts: str, system: str | None = None) -> Messages:
    """User and assistant in turn, after an optional system message."""
    turns = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
    return turns if system is None else [{"role": "system", "content": system}, *turns]


def sharegpt(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"conversations": [{"from": role, "value": text} for role, text in turns]}


def messages(*turns: tuple[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


CONVERTED = [
    ("messages", {"messages": chat("Hi", "Hello")}, chat("Hi", "Hello")),
    ("messages", {"messages": chat("Hi", "Hello", "Bye", "So long", system="Be brief.")}, None),
    ("messages", {"conversations": chat("Hi", "Hello")}, chat("Hi", "Hello")),
    ("messages", {"conversation": chat("Hi", "Hello"), "id": 7}, chat("Hi", "Hello")),
    ("messages", {"messages": chat("Hi", "Hello"), "system": "Be brief."}, chat("Hi", "Hello", system="Be brief.")),
    ("messages", {"messages": chat("Hi", "Hello", system="A"), "system": "B"}, chat("Hi", "Hello", system="A")),
    ("messages", {"messages": chat("Hi", "Hello", system=" ")}, chat("Hi", "Hello")),
    ("messages", {"messages": '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]'}, None),
    ("messages", {"prompt": "Hi", "response": "x", "messages": chat("Hi", "Hello")}, chat("Hi", "Hello")),
    ("sharegpt", sharegpt(("human", "Hi"), ("gpt", "Hello")), chat("Hi", "Hello")),
    ("sharegpt", sharegpt(("system", "S"), ("user", "Hi"), ("assistant", "Yo")), chat("Hi", "Yo", system="S")),
    ("sharegpt", sharegpt(("Human", "Hi"), ("chatgpt", "Hello")), chat("Hi", "Hello")),
    ("alpaca", {"instruction": "Add.", "input": "1, 2", "output": "3"}, chat("Add.\n\n1, 2", "3")),
    ("alpaca", {"instruction": "Greet.", "input": "", "output": "Hello"}, chat("Greet.", "Hello")),
    ("alpaca", {"instruction": "Greet.", "input": None, "output": "Hello"}, chat("Greet.", "Hello")),
    ("alpaca", {"instruction": "Greet.", "output": "Hello", "system": "S"}, chat("Greet.", "Hello", system="S")),
    ("alpaca", {"instruction": "Who?", "context": "Ann ran.", "response": "Ann"}, chat("Who?\n\nAnn ran.", "Ann")),
    ("pairs", {"question": "2 + 2?", "answer": 4}, chat("2 + 2?", "4")),
    ("pairs", {"Question ": "Who?", " ANSWER": "Ann"}, chat("Who?", "Ann")),
    ("pairs", {"question": "Who?", "context": "Ann ran.", "answer": "Ann"}, chat("Who?\n\nAnn ran.", "Ann")),
    ("pairs", {"prompt": "Who?", "response": "Ann"}, chat("Who?", "Ann")),
    ("pairs", {"prompt": "Who?", "completion": "Ann"}, chat("Who?", "Ann")),
    ("pairs", {"problem": "1 + 1", "solution": "2"}, chat("1 + 1", "2")),
    ("pairs", {"input": "Who?", "output": "Ann", "system": NAN}, chat("Who?", "Ann")),
]


@pytest.mark.parametrize(("name", "row", "expected"), CONVERTED)
def test_a_row_is_detected_and_becomes_messages(name: str, row: dict[str, Any], expected: Messages | None) -> None:
    found = detect([row])
    assert found == name
    converted = convert(row, found)
    assert converted == expected or (expected is None and converted[-1]["role"] == "assistant")


def test_tool_results_follow_the_assistant_who_called() -> None:
    row = sharegpt(("human", "Time?"), ("function_call", "now()"), ("observation", "9"), ("gpt", "Nine."))
    assert [message["role"] for message in convert(row, "sharegpt")] == ["user", "assistant", "tool", "assistant"]
    row = messages(("user", "?"), ("assistant", "a, b"), ("tool", "1"), ("tool", "2"), ("assistant", "3"))
    assert len(convert(row, "messages")) == 5


def test_texts_keep_their_whitespace() -> None:
    row = messages(("user", " a\n\tb "), ("assistant", "\n c"))
    assert convert(row, "messages") == row["messages"]


UNUSABLE = [
    (formats.NOT_AN_OBJECT, "messages", ["a", "b"]),
    (formats.NOT_AN_OBJECT, "messages", {"messages": ["Hi", "Hello"]}),
    (formats.CELLS_DO_NOT_MATCH, "pairs", {"question": "Who?", "answer": "Ann", None: ["more"]}),
    (formats.MISSING_FIELD, "messages", {"text": "Hi"}),
    (formats.MISSING_FIELD, "messages", {"messages": None}),
    (formats.MISSING_FIELD, "messages", {"messages": "[half"}),
    (formats.MISSING_FIELD, "messages", {"messages": [{"role": "user"}]}),
    (formats.MISSING_FIELD, "sharegpt", {"conversations": chat("Hi", "Hello")}),
    (formats.MISSING_FIELD, "alpaca", {"instruction": "Greet."}),
    (formats.MISSING_FIELD, "pairs", {"question": "Who?", "reply": "Ann"}),
    (formats.NOT_TEXT, "messages", messages(("user", [{"type": "image"}]), ("assistant", "A cat"))),
    (formats.NOT_TEXT, "pairs", {"question": "Is it?", "answer": True}),
    (formats.NOT_UNICODE, "pairs", {"question": "Who?", "answer": "\ud83d"}),
    (formats.EMPTY_MESSAGE, "messages", messages(("user", "Hi"), ("assistant", " \n"))),
    (formats.EMPTY_MESSAGE, "pairs", {"question": None, "answer": "Ann"}),
    (formats.EMPTY_MESSAGE, "pairs", {"question": "Who?", "answer": NAN}),
    (formats.EMPTY_MESSAGE, "alpaca", {"instruction": "", "input": "1, 2", "output": "3"}),
    (formats.UNKNOWN_ROLE, "messages", messages(("user", "Hi"), ("narrator", "A pause."))),
    (formats.UNKNOWN_ROLE, "sharegpt", sharegpt((None, "Hi"), ("gpt", "Hello"))),  # type: ignore[arg-type]
    (formats.TOOL_CALLS, "messages", {"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]}),
    (formats.TOOL_CALLS, "messages", {"messages": [{"role": "assistant", "content": "A", "function_call": {"a": 1}}]}),
    (formats.NO_ASSISTANT_TURN, "messages", messages(("user", "Hi"))),
    (formats.NO_ASSISTANT_TURN, "messages", {"messages": []}),
    (formats.ROLES_DO_NOT_ALTERNATE, "messages", messages(("user", "Hi"), ("user", "?"), ("assistant", "Yo"))),
    (formats.ROLES_DO_NOT_ALTERNATE, "sharegpt", sharegpt(("gpt", "Hello"), ("human", "Hi"), ("gpt", "Yo"))),
    (formats.ROLES_DO_NOT_ALTERNATE, "messages", messages(("user", "Hi"), ("system", "S"), ("assistant", "Yo"))),
    (formats.ROLES_DO_NOT_ALTERNATE, "messages", messages(("user", "Hi"), ("tool", "1"), ("assistant", "Yo"))),
    (formats.ROLES_DO_NOT_ALTERNATE, "messages", messages(("system", "S"), ("assistant", "Yo"))),
]


@pytest.mark.parametrize(("reason", "name", "row"), UNUSABLE)
def test_an_unusable_row_has_its_reason(reason: str, name: str, row: Any) -> None:
    with pytest.raises(UnusableRowError) as caught:
        convert(row, name)
    assert caught.value.args == (reason,)


def test_the_format_is_that_of_most_rows() -> None:
    pair = {"question": "Who?", "answer": "Ann"}
    assert detect([{"question": "Who?"}, "text", None, pair, pair, {"messages": chat("Hi", "Hello")}]) == "pairs"


def test_rows_of_no_known_shape_have_no_format() -> None:
    assert detect([{"text": "once upon a time", "label": 1}, ["a"], {"messages": []}]) is None
    assert detect([]) is None


def test_plain_text_is_detected_where_it_stands_alone_and_taken_where_it_is_asked_for() -> None:
    assert detect([{"text": "Once upon a time."}]) == "text"
    labelled = {"text": " Once upon a time.\n", "label": 1}
    assert convert(labelled, "text") == [{"role": "text", "content": " Once upon a time.\n"}]


def test_reasoning_in_a_field_of_its_own_opens_the_content_in_tags() -> None:
    asked = {"role": "user", "content": "5 + 6?"}
    inline = "<think>\nFive, six.\n</think>\n\n11"
    for field in ("reasoning_content", "thinking", "reasoning"):
        answer = {"role": "assistant", "content": "11", field: " Five, six.\n"}
        assert convert({"messages": [asked, answer]}, "messages") == chat("5 + 6?", inline)
    both = {"role": "assistant", "content": inline, "reasoning_content": "Five, six."}
    assert convert({"messages": [asked, both]}, "messages") == chat("5 + 6?", inline)
    assert convert({"messages": [asked, {**both, "content": "11", "thinking": None}]}, "messages") == chat(
        "5 + 6?", inline
    )


@pytest.mark.parametrize("unlearnt", [{"weight": 0}, {"weight": 0.0}, {"train": False}, {"train": 0}])
def test_a_turn_that_is_not_to_be_learnt_has_the_weight_0(unlearnt: dict[str, Any]) -> None:
    turns = [*chat("Hi", "Bad", "No", "Good")]
    turns[1] = {**turns[1], **unlearnt}
    turns[3] = {**turns[3], "weight": 1, "train": True}
    expected = chat("Hi", "Bad", "No", "Good")
    expected[1]["weight"] = 0
    assert convert({"messages": turns}, "messages") == expected
    shared = {"conversations": [{"from": t["role"], "value": t["content"], **unlearnt} for t in turns[:2]]}
    with pytest.raises(UnusableRowError, match="no assistant turn that is learnt"):
        convert(shared, "sharegpt")


@pytest.mark.parametrize("between", [{"weight": 0.5}, {"weight": "0"}, {"train": "no"}])
def test_a_weight_that_is_neither_drops_the_row(between: dict[str, Any]) -> None:
    asked, answer = chat("Hi", "Hello")
    with pytest.raises(UnusableRowError, match="weight is neither 0 nor 1"):
        convert({"messages": [asked, {**answer, **between}]}, "messages")


def test_keys_are_named_once_in_their_order() -> None:
    assert keys_of([{"b": 1, "a": 2}, "text", {"c": 3, "a": 4, None: 5}]) == ["b", "a", "c"]


def test_the_table_of_formats_in_the_docs_is_that_of_the_code() -> None:
    text = (Path(__file__).parents[3] / "docs/models.md").read_text(encoding="utf-8")
    _, _, table = text.partition("|---|---|\n")
    rows = [f"| `{known.name}` | {known.keys} |\n" for known in FORMATS.values()]
    assert table.startswith("".join(rows) + "\n")


def test_formats_are_known_without_libraries_that_take_time() -> None:
    asked = "import sys; import pipeline.core.data_settings; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout.split()
    assert "pipeline.core.formats" in loaded
    assert not {"pyarrow", "torch", "transformers", "numpy"} & set(loaded)
