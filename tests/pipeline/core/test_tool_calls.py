"""Tools, calls and results in the shapes that data has them."""

import json
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from pipeline.core import tool_calls
from pipeline.core.formats import Turns, UnusableRowError, convert, detect, read_row
from pipeline.core.messages import Messages, said
from pipeline.core.preferences import compare
from pipeline.core.tool_calls import mapped

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"name": "weather", "description": "The weather of a city.", "parameters": PARAMETERS}
TOOL = {"type": "function", "function": WEATHER}
ARGUMENTS = {"city": "Köln", "days": [1, 2]}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}}
BARE = {"type": "function", "function": CALL["function"]}
ASKED = {"role": "user", "content": "Wie ist das Wetter?"}


def read(row: dict[str, Any]) -> Messages:
    return convert(row, str(detect(row)))


def calls(message: Any) -> Any:
    return json.loads(message["tool_calls"])


def conversation(**call: Any) -> dict[str, Any]:
    """A row whose assistant calls, is answered, and answers."""
    called = {"role": "assistant", "content": None, **call}
    result = {"role": "tool", "tool_call_id": "call_1", "name": "weather", "content": "rain"}
    return {"messages": [ASKED, called, result, {"role": "assistant", "content": "Es regnet."}], "tools": [TOOL]}


@pytest.mark.parametrize("key", ["tools", "functions", "available_tools", "Tools"])
@pytest.mark.parametrize(
    "tools", [[TOOL], [WEATHER], json.dumps([TOOL]), json.dumps([WEATHER]), TOOL, [json.dumps(TOOL)]]
)
def test_tools_come_first_in_one_form(key: str, tools: Any) -> None:
    first, *others = read({"question": "Who?", "answer": "Ann", "system": "S", key: tools})
    assert first["role"] == "tools"
    assert json.loads(first["content"]) == [TOOL]
    assert [message["role"] for message in others] == ["system", "user", "assistant"]


@pytest.mark.parametrize("nothing", [None, [], "", "[]", "null"])
def test_a_row_may_have_no_tools(nothing: Any) -> None:
    row = {"question": "Who?", "answer": "Ann"}
    assert read({**row, "tools": nothing}) == read(row)


@pytest.mark.parametrize(
    "tools", ["a hammer", ["search"], [7], [{"description": "no name"}], {"name": ""}, {"name": 3}, "[half"]
)
def test_what_is_no_tool_is_refused_with_a_way_out(tools: Any) -> None:
    with pytest.raises(UnusableRowError, match=r"^tools are no list of function schemas; data\.ignore=\[tools\] "):
        read({"question": "Who?", "answer": "Ann", "tools": tools})


def test_schemas_that_a_table_filled_up_with_null_lose_it() -> None:
    filled = {"type": "function", "function": {**WEATHER, "strict": None}, "id": None}
    filled["function"]["parameters"] = {
        **PARAMETERS,
        "properties": {"city": {"type": "string", "enum": None}, "b": None},
    }
    first = read({"question": "Who?", "answer": "Ann", "tools": [filled]})[0]
    assert json.loads(first["content"]) == [TOOL]


@pytest.mark.parametrize(
    "call",
    [
        {"tool_calls": [CALL]},
        {"tool_calls": json.dumps([CALL])},
        {"tool_calls": [{**CALL, "function": {"name": "weather", "arguments": json.dumps(ARGUMENTS)}}]},
        {"tool_calls": [{**CALL, "function": {"name": "weather", "arguments": json.dumps(json.dumps(ARGUMENTS))}}]},
        {"tool_calls": [{"id": "call_1", "name": "weather", "arguments": ARGUMENTS}], "function_call": None},
        {"tool_calls": [CALL], "content": "", "function_call": {}},
    ],
)
def test_calls_are_kept_in_one_form_with_their_results(call: dict[str, Any]) -> None:
    converted = read_row(conversation(**call), "messages")
    _, asked, called, result, answer = converted.messages
    assert (asked["content"], answer["content"]) == ("Wie ist das Wetter?", "Es regnet.")
    assert called["content"] == ""
    assert calls(called) == [CALL]
    assert "Köln" in said(called)
    assert result == {"role": "tool", "content": "rain", "name": "weather", "tool_call_id": "call_1"}
    assert converted.unused == frozenset()


def test_an_old_call_beside_words_is_kept_with_both() -> None:
    row = conversation(content="Einen Moment.", function_call={"name": "weather", "arguments": json.dumps(ARGUMENTS)})
    row["messages"][2] = {"role": "function", "name": "weather", "content": "rain"}
    _, _, called, result, _ = read(row)
    assert called["content"] == "Einen Moment."
    assert calls(called) == [BARE]
    assert result == {"role": "tool", "content": "rain", "name": "weather"}


@pytest.mark.parametrize("text", [json.dumps(BARE["function"]), json.dumps([BARE["function"]]), json.dumps(BARE)])
@pytest.mark.parametrize("role", ["function_call", "tool_call", "Function-Call", "tool call"])
def test_sharegpts_calls_are_calls_where_the_row_has_tools(role: str, text: str) -> None:
    said_by = (("human", "?"), (role, text), ("observation", "rain"), ("gpt", "It rains."))
    row = {"conversations": [{"from": name, "value": value} for name, value in said_by]}
    assert read(row)[1] == {"role": "assistant", "content": text}
    called = read({**row, "tools": json.dumps([WEATHER])})[2]
    assert (called["content"], calls(called)) == ("", [BARE])
    row["conversations"][1]["value"] = "now()"
    assert read({**row, "tools": [TOOL]})[2]["content"] == "now()"


@pytest.mark.parametrize("content", [{"sky": "grey", "rain": True}, [1, 2], [{"sky": "grey"}], True])
def test_a_result_that_is_no_text_is_its_json(content: Any) -> None:
    row = conversation(tool_calls=[CALL])
    row["messages"][2]["content"] = content
    assert json.loads(read(row)[3]["content"]) == content


def test_a_result_may_come_in_parts_and_is_no_picture() -> None:
    row = conversation(tool_calls=[CALL])
    row["messages"][2]["content"] = [{"type": "text", "text": "ra"}, {"type": "text", "text": "in"}]
    assert read(row)[3]["content"] == "rain"
    row["messages"][2]["content"] = [{"type": "image_url", "image_url": {"url": "x"}}]
    with pytest.raises(UnusableRowError, match="content is not text"):
        read(row)


UNREADABLE = [
    {"tool_calls": [{}]},
    {"tool_calls": [{"function": {"name": " "}}]},
    {"tool_calls": [{"function": {"name": "weather", "arguments": "[1]"}}]},
    {"tool_calls": [{"function": {"name": "weather", "arguments": "{half"}}]},
    {"tool_calls": "weather()"},
    {"function_call": "auto"},
]


@pytest.mark.parametrize("call", UNREADABLE)
def test_a_call_that_cannot_be_read_is_refused(call: dict[str, Any]) -> None:
    with pytest.raises(UnusableRowError, match=f"^{tool_calls.CALL_NOT_READ}$"):
        read(conversation(**call))


def test_calls_stand_in_an_assistants_turn_and_once() -> None:
    twice = conversation(tool_calls=[CALL], function_call=CALL["function"])
    by_a_user = {"messages": [{**ASKED, "tool_calls": [CALL]}, {"role": "assistant", "content": "Yo"}]}
    for row in (twice, by_a_user):
        with pytest.raises(UnusableRowError, match=r"^tool calls outside"):
            read(row)


def test_arguments_may_be_left_out_and_null_ones_of_other_tools_are() -> None:
    for nothing in ({}, {"arguments": None}, {"arguments": ""}, {"arguments": {}}):
        called = read(conversation(tool_calls=[{"function": {"name": "now", **nothing}}]))[2]
        assert calls(called)[0]["function"] == {"name": "now", "arguments": {}}
    for name, kept in (("weather", {"city": None}), ("other", {"city": None, "days": None})):
        call = {"function": {"name": name, "arguments": {"city": None, "days": None}}}
        assert calls(read(conversation(tool_calls=[call]))[2])[0]["function"]["arguments"] == kept


def test_a_question_with_calls_for_its_answer_is_read() -> None:
    row = {"id": 3, "query": "Wetter?", "tools": json.dumps([WEATHER]), "answers": json.dumps([BARE["function"]] * 2)}
    assert detect(row) == "calls"
    converted = read_row(row, "calls")
    assert [message["role"] for message in converted.messages] == ["tools", "user", "assistant"]
    assert calls(converted.messages[2]) == [BARE, BARE]
    assert converted.unused == {"id"}
    with pytest.raises(UnusableRowError, match=f"^{tool_calls.CALL_NOT_READ}$"):
        convert({**row, "answers": "It rains."}, "calls")


def test_tools_that_the_system_message_has_are_not_said_twice() -> None:
    row = conversation(tool_calls=[CALL])
    row["messages"].insert(0, {"role": "system", "content": f"<tools>{json.dumps(TOOL)}</tools>"})
    converted = read_row(row, "messages")
    assert converted.messages[0]["role"] == "system"
    assert converted.reordered == [tool_calls.IN_SYSTEM]
    row["messages"][0]["content"] = 'Ask for the "weather" of a "city".'  # names alone
    assert read(row)[0]["role"] == "tools"


def test_reasoning_before_a_call_is_kept() -> None:
    called = read(conversation(tool_calls=[CALL], reasoning_content="Rain?"))[2]
    assert called["content"] == "<think>\nRain?\n</think>\n\n"


def test_words_and_a_call_of_two_turns_are_merged_where_it_is_asked_for() -> None:
    row = conversation(tool_calls=[CALL])
    row["messages"].insert(1, {"role": "assistant", "content": "Einen Moment."})
    with pytest.raises(UnusableRowError, match="roles do not alternate"):
        read(row)
    merged = read_row(row, "messages", Turns(repeated="merge")).messages
    assert (merged[2]["content"], calls(merged[2])) == ("Einen Moment.", [CALL])


def test_what_compares_answers_keeps_tools_and_calls() -> None:
    chosen = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    row = {
        "messages": [ASKED],
        "chosen": [chosen],
        "rejected": [{"role": "assistant", "content": "?"}],
        "tools": [TOOL],
    }
    comparison, unused, _ = compare(row)
    assert [message["role"] for message in comparison["messages"]] == ["tools", "user"]
    assert calls(comparison["chosen"][0]) == [CALL]  # type: ignore[typeddict-item]
    assert unused == frozenset()


def test_texts_within_calls_are_changed_and_names_and_schemas_are_not() -> None:
    tools, _, called, *_ = (mapped(message, str.upper) for message in read(conversation(tool_calls=[CALL])))
    assert json.loads(tools["content"]) == [TOOL]
    assert calls(called) == [{**CALL, "function": {"name": "weather", "arguments": {"city": "KÖLN", "days": [1, 2]}}}]


def test_calls_and_results_among_the_parts_of_a_content_are_turns_of_their_own() -> None:
    use = {"type": "tool_use", "id": "t1", "name": "weather", "input": ARGUMENTS}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "rain"}]}
    turns = [
        ASKED,
        {"role": "assistant", "content": ["Mo", {"type": "text", "text": "ment."}, use]},
        {"role": "user", "content": [result]},
        {"role": "assistant", "content": "Es regnet."},
    ]
    row = {"messages": turns, "tools": [{"name": "weather", "description": "d", "input_schema": PARAMETERS}]}
    converted = read_row(row, "messages")
    tools, _, called, answered, _ = converted.messages
    function = {"name": "weather", "description": "d", "parameters": PARAMETERS}
    assert json.loads(tools["content"]) == [{"type": "function", "function": function}]
    assert called["content"] == "Moment."
    assert calls(called) == [{**CALL, "id": "t1"}]
    assert answered == {"role": "tool", "content": "rain", "tool_call_id": "t1"}
    assert converted.unused == frozenset()
    asked_too = [*turns[:2], {"role": "user", "content": [result, {"type": "text", "text": "And?"}]}, turns[3]]
    with pytest.raises(UnusableRowError, match="roles do not alternate"):  # a question behind the result
        read({**row, "messages": asked_too})


def test_calls_of_other_ids_say_the_same() -> None:
    one, other = (read(conversation(tool_calls=[{**CALL, "id": number}]))[2] for number in ("call_1", "call_2"))
    assert one != other
    assert said(one) == said(other)
    assert calls(read(conversation(tool_calls=[{**CALL, "id": 7}]))[2])[0]["id"] == "7"


DEEP: dict[str, Any] = {}
for _ in range(500):
    DEEP = {"a": DEEP}


@pytest.mark.parametrize("odd", [DEEP, {"at": datetime(2026, 1, 1)}, {"at": b"x"}, {"at": Decimal(1)}])
def test_what_is_no_json_or_nested_too_deeply_is_refused(odd: dict[str, Any]) -> None:
    results = conversation(tool_calls=[CALL])
    results["messages"][2]["content"] = odd
    schema = {"question": "Who?", "answer": "Ann", "tools": [{**WEATHER, "parameters": odd}]}
    for row in (conversation(tool_calls=[{"function": {"name": "a", "arguments": odd}}]), results, schema):
        with pytest.raises(UnusableRowError, match=f"^{tool_calls.NOT_JSON}$|^nested too deeply$"):
            read(row)


def test_half_a_surrogate_pair_anywhere_is_refused() -> None:
    half = "\ud83d"
    rows = [conversation(tool_calls=[CALL]) for _ in range(5)]
    rows[0]["tools"][0] = {**TOOL, "function": {**WEATHER, "description": half}}
    rows[1]["messages"][1]["tool_calls"] = [{**CALL, "id": half}]
    rows[2]["messages"][1]["tool_calls"] = [{"function": {"name": "a", "arguments": {"a": half}}}]
    rows[3]["messages"][2]["tool_call_id"] = half
    rows[4]["messages"][2]["name"] = half
    for row in rows:
        with pytest.raises(UnusableRowError, match="not valid Unicode"):
            read(row)


def test_tools_may_stand_in_the_system_turn() -> None:
    for key in ("tools", "functions"):
        told = {"role": "system", "content": "S", key: json.dumps([WEATHER])}
        row = {"messages": [told, ASKED, {"role": "assistant", "content": "Yo"}]}
        converted = read_row(row, "messages")
        assert [message["role"] for message in converted.messages] == ["tools", "system", "user", "assistant"]
        assert converted.unused == frozenset()
    asked = {"messages": [{**ASKED, "tools": [WEATHER]}, {"role": "assistant", "content": "Yo"}]}
    assert read_row(asked, "messages").unused == {"tools"}


@pytest.mark.parametrize(
    "thought",
    [
        {"type": "thinking", "thinking": "It may rain.", "signature": "x"},
        {"type": "thinking", "thinking": [{"type": "text", "text": "It may rain."}]},
        {"type": "reasoning", "value": "It may rain."},
        {"type": "reasoning", "text": "It may rain."},
    ],
)
def test_reasoning_and_calls_may_be_parts_of_a_content(thought: dict[str, Any]) -> None:
    words = {"type": "text", "text": "Einen Moment."}
    parts = [thought, words, {"type": "tool_call", "value": json.dumps(BARE["function"])}]
    called = read(conversation(content=parts))[2]
    assert called["content"] == "<think>\nIt may rain.\n</think>\n\nEinen Moment."
    assert calls(called) == [BARE]
    for wrong, reason in (([words, thought], "behind what is said"), ([thought], "empty message")):
        with pytest.raises(UnusableRowError, match=reason):
            read(conversation(content=wrong))
    row = conversation(tool_calls=[CALL])
    row["messages"][0] = {**row["messages"][0], "content": [thought, words]}
    with pytest.raises(UnusableRowError, match="outside an assistant's turn"):
        read(row)
