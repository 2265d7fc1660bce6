import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.core import formats
from pipeline.core.formats import FORMATS, Messages, Turns, UnusableRowError, convert, detect, keys_of, read_row
from pipeline.core.messages import NOT_TEXT

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
    ("exchanges", {"conversations": ["Hi", "Hello"]}, chat("Hi", "Hello")),
    ("exchanges", {"conversation": [{"input": "Hi", "output": "Yo"}] * 2}, chat("Hi", "Yo", "Hi", "Yo")),
    ("exchanges", {"system": "S", "conversation": [{"Human": "Hi", "Assistant": "Yo"}]}, chat("Hi", "Yo", system="S")),
    ("exchanges", {"conversation": [{"system": "S", "input": "Hi", "output": "Yo"}]}, chat("Hi", "Yo", system="S")),
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
    ("pairs", {"input": "Who?", "target": "Ann"}, chat("Who?", "Ann")),
    ("pairs", {"inputs": "Who?", "targets": "Ann"}, chat("Who?", "Ann")),
    (
        "pairs",
        {"inputs": [7], "inputs_pretokenized": "Who?", "targets": [8], "targets_pretokenized": "Ann"},
        chat("Who?", "Ann"),
    ),
    ("messages", messages(("Prompter", "Hi"), ("Chatbot", "Hello")), chat("Hi", "Hello")),
    (
        "messages",
        {
            "system": {"role": "system", "content": [{"text": "S"}]},
            **messages(("user", "Hi"), ("model", [{"text": "Yo"}])),
        },
        chat("Hi", "Yo", system="S"),
    ),
    ("messages", {"system": [{"text": "S"}], **messages(("user", "Hi"), ("AI", "Yo"))}, chat("Hi", "Yo", system="S")),
]


@pytest.mark.parametrize(("name", "row", "expected"), CONVERTED)
def test_a_row_is_detected_and_becomes_messages(name: str, row: dict[str, Any], expected: Messages | None) -> None:
    found = detect(row)
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
    (formats.MISSING_FIELD, "exchanges", {"conversation": ["Hi", {"input": "Hi", "output": "Yo"}]}),
    (formats.EMPTY_MESSAGE, "exchanges", {"conversation": [{"input": "", "output": "Once upon a time."}]}),
    (formats.MISSING_FIELD, "pairs", {"question": "Who?", "reply": "Ann"}),
    (NOT_TEXT, "messages", messages(("user", [{"type": "image"}]), ("assistant", "A cat"))),
    (NOT_TEXT, "pairs", {"question": "Is it?", "answer": True}),
    (formats.NOT_UNICODE, "pairs", {"question": "Who?", "answer": "\ud83d"}),
    (formats.EMPTY_MESSAGE, "messages", messages(("user", "Hi"), ("assistant", " \n"))),
    (formats.EMPTY_MESSAGE, "pairs", {"question": None, "answer": "Ann"}),
    (formats.EMPTY_MESSAGE, "pairs", {"question": "Who?", "answer": NAN}),
    (formats.EMPTY_MESSAGE, "alpaca", {"instruction": "", "input": "1, 2", "output": "3"}),
    (formats.UNKNOWN_ROLE, "messages", messages(("user", "Hi"), ("narrator", "A pause."))),
    (formats.UNKNOWN_ROLE, "sharegpt", sharegpt((None, "Hi"), ("gpt", "Hello"))),  # type: ignore[arg-type]
    (formats.NO_ASSISTANT_TURN, "messages", messages(("user", "Hi"))),
    (formats.NO_ASSISTANT_TURN, "messages", {"messages": []}),
    (formats.ROLES_DO_NOT_ALTERNATE, "messages", messages(("user", "Hi"), ("user", "?"), ("assistant", "Yo"))),
    (formats.ROLES_DO_NOT_ALTERNATE, "messages", messages(("user", "Hi"), ("system", "S"), ("assistant", "Yo"))),
    (formats.ROLES_DO_NOT_ALTERNATE, "messages", messages(("user", "Hi"), ("tool", "1"), ("assistant", "Yo"))),
    (formats.NO_ASSISTANT_TURN, "messages", messages(("system", "S"), ("assistant", "Yo"))),
    (formats.HISTORY_NO_PAIRS, "pairs", {"prompt": "Hi", "response": "Yo", "history": "a text"}),
    (formats.HISTORY_NO_PAIRS, "pairs", {"prompt": "Hi", "response": "Yo", "history": [["a", "b", "c"]]}),
    (formats.NOT_AN_OBJECT, "pairs", {"prompt": ["Hi"], "completion": "Yo"}),
]


@pytest.mark.parametrize(("reason", "name", "row"), UNUSABLE)
def test_an_unusable_row_has_its_reason(reason: str, name: str, row: Any) -> None:
    with pytest.raises(UnusableRowError) as caught:
        convert(row, name)
    assert caught.value.args == (reason,)


def test_an_exchange_may_have_a_weight_and_what_it_has_besides_is_known() -> None:
    pairs = [{"input": "Hi", "output": "Yo", "loss": False}, {"input": "?", "output": "!", "output_with_loss": False}]
    messages, unused, _ = read_row({"conversation": pairs}, "exchanges")
    assert [message.get("weight") for message in messages] == [None, 0, None, None]
    assert unused == {"output_with_loss"}
    assert unused <= formats.CHANGES_MEANING


def test_turns_have_their_weight_by_several_names_and_parts_their_text() -> None:
    turns = [
        {"role": "user", "content": [{"type": "text", "value": "Hi"}], "loss_weight": 0.0},
        {"role": "assistant", "content": [{"type": "text", "value": "Yo", "text": None}], "loss_weight": 1.0},
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "!", "loss": False},
    ]
    expected = chat("Hi", "Yo", "?", "!")
    expected[-1]["weight"] = 0
    assert read_row({"messages": turns}, "messages") == (expected, frozenset(), [])


def test_parts_of_a_system_prompt_have_no_keys_that_are_missed() -> None:
    row = {"system": [{"text": "S"}], **messages(("user", "Hi"), ("assistant", "Yo")), "rejected_response": "No"}
    assert read_row(row, "messages").unused == {"rejected_response"}
    with pytest.raises(UnusableRowError, match=NOT_TEXT):
        convert({**row, "system": {"role": "system"}}, "messages")


def test_a_figure_of_a_row_is_no_weight() -> None:
    assert read_row({"prompt": "Hi", "response": "Yo", "loss": 0.53}, "pairs").unused == {"loss"}


def test_reasoning_may_stand_beside_the_answer() -> None:
    thought = chat("2 + 2?", "<think>\nTwo and two.\n</think>\n\n4")
    row = {"question": "2 + 2?", "Reasoning": "Two and two.", "answer": 4}
    assert read_row(row, "pairs") == (thought, frozenset(), [])
    assert convert({"instruction": "2 + 2?", "thinking": "Two and two.", "output": "4"}, "alpaca") == thought
    assert convert({**row, "answer": thought[1]["content"]}, "pairs") == thought
    assert convert({"prompt": "2 + 2?", "thinking": None, "response": "4"}, "pairs") == chat("2 + 2?", "4")


@pytest.mark.parametrize("word", ["on", "off", "high", 3, True])
def test_a_word_about_reasoning_is_none(word: object) -> None:
    row = {"input": "2 + 2?", "reasoning": word, "output": "4"}
    assert read_row(row, "pairs") == (chat("2 + 2?", "4"), {"reasoning"}, [])


@pytest.mark.parametrize(
    "key", ["A", "option_d", "opa", "answer_choices", "helpfulness", "reward", "train_detail", "Complex_CoT"]
)
def test_choices_and_grades_change_what_a_row_means(key: str) -> None:
    unused = read_row({"question": "Which?", key: "x", "answer": "B"}, "pairs").unused
    assert unused == {key.lower()}
    assert unused <= formats.CHANGES_MEANING


def test_rows_of_no_known_shape_have_no_format() -> None:
    rows: list[Any] = [{"text": "once upon a time", "label": 1}, ["a"], {"messages": []}, "text", None, {}]
    assert [detect(row) for row in rows] == [None] * 6


def test_plain_text_is_detected_where_it_stands_alone_and_taken_where_it_is_asked_for() -> None:
    assert detect({"text": "Once upon a time."}) == "text"
    labelled = {"text": " Once upon a time.\n", "label": 1}
    assert convert(labelled, "text") == [{"role": "text", "content": " Once upon a time.\n"}]


@pytest.mark.parametrize("nothing", [None, "", " ", NAN, [], {}])
def test_of_several_pairs_the_one_that_is_filled_is_read(nothing: Any) -> None:
    row = {"question": nothing, "answer": nothing, "prompt": "Who?", "response": "Ann", "messages": nothing}
    assert detect(row) == "pairs"
    assert convert(row, "pairs") == chat("Who?", "Ann")
    told = {"messages": chat("Hi", "Yo"), "question": nothing, "answer": nothing, "instruction": nothing}
    assert detect(told) == "messages"
    alpaca = {"instruction": "Greet.", "output": nothing, "response": "Hello", "question": nothing}
    assert convert(alpaca, str(detect(alpaca))) == chat("Greet.", "Hello")


@pytest.mark.parametrize("key", ["system", "system_prompt", "System_Prompt"])
def test_a_system_prompt_beside_the_turns_comes_first(key: str) -> None:
    row = {"id": "flan.1", key: "Be brief.", "question": "Who?", "response": "Ann"}
    assert convert(row, "pairs") == chat("Who?", "Ann", system="Be brief.")
    both = {key: "B", "messages": chat("Hi", "Hello", system="A")}
    assert convert(both, "messages") == chat("Hi", "Hello", system="A")


EARLIER = [
    [["One?", "1"], ["Two?", "2"]],
    [("One?", "1"), ("Two?", "2")],
    '[["One?", "1"], ["Two?", "2"]]',
    [{"question": "One?", "answer": "1"}, {"prompt": "Two?", "response": "2"}],
    chat("One?", "1", "Two?", "2"),
    sharegpt(("human", "One?"), ("gpt", "1"), ("human", "Two?"), ("gpt", "2"))["conversations"],
]


@pytest.mark.parametrize("history", EARLIER)
def test_a_history_is_the_earlier_turns(history: Any) -> None:
    row = {"instruction": "Three?", "input": "", "output": "3", "system": "S", "history": history}
    assert convert(row, "alpaca") == chat("One?", "1", "Two?", "2", "Three?", "3", system="S")
    assert convert({"prompt": "Three?", "response": "3", "history": history}, "pairs")[-2:] == chat("Three?", "3")
    assert convert({"prompt": "Three?", "response": "3", "history": []}, "pairs") == chat("Three?", "3")


def test_parts_of_a_content_are_joined_if_all_are_text() -> None:
    parts = [{"type": "text", "text": "Who "}, {"type": "text", "text": "ran?", "image_url": None}]
    row = messages(("user", parts), ("assistant", [{"type": "output_text", "text": "Ann"}]))
    assert convert(row, "messages") == chat("Who ran?", "Ann")
    for other in ({"type": "image_url", "image_url": {"url": "x"}}, {"type": "text"}, {"text": "x", "image": "y"}, 7):
        with pytest.raises(UnusableRowError, match="content is not text"):
            convert(messages(("user", [*parts, other]), ("assistant", "Ann")), "messages")


def test_a_prompt_and_its_completion_may_be_messages() -> None:
    whole = chat("Hi", "Hello", "Who?", system="S")
    expected = chat("Hi", "Hello", "Who?", "Ann", system="S")
    expected[2]["weight"] = 0  # part of the prompt
    for completion in ("Ann", [{"role": "assistant", "content": "Ann"}], {"role": "assistant", "content": "Ann"}):
        assert convert({"prompt": whole, "completion": completion}, "pairs") == expected
    turns = [{"from": "human", "value": "Who?"}], [{"from": "gpt", "value": "Ann"}]
    assert convert(dict(zip(("prompt", "completion"), turns, strict=True)), "pairs") == chat("Who?", "Ann")
    assert convert({"prompt": "Who?", "completion": chat("", "Ann")[1:]}, "pairs") == chat("Who?", "Ann")


@pytest.mark.parametrize("mark", [{"weight": 0}, {"weight": 0.0}, {"train": False}])
def test_a_row_that_is_not_to_be_learnt_says_so(mark: dict[str, Any]) -> None:
    for row in ({"messages": chat("Hi", "Yo")}, {"question": "Who?", "answer": "Ann"}, {"text": "Once."}):
        name = str(detect(row))
        assert convert({**row, "weight": 1, "train": True}, name) == convert(row, name)
        with pytest.raises(UnusableRowError, match="not to be learnt"):
            convert({**row, **mark}, name)


OPENED = sharegpt(("system", "S"), ("gpt", "Welcome"), ("human", "Hi"), ("gpt", "Yo"))


def test_an_opening_by_the_assistant_is_dropped_or_kept_as_context() -> None:
    dropped = read_row(OPENED, "sharegpt")
    assert (dropped.messages, dropped.reordered) == (chat("Hi", "Yo", system="S"), ["opening dropped"])
    kept = read_row(OPENED, "sharegpt", Turns(opening="keep"))
    opening: Messages = [{"role": "assistant", "content": "Welcome", "weight": 0}]
    assert kept.messages == [*chat(system="S"), *opening, *chat("Hi", "Yo")]
    assert kept.reordered == ["opening kept, not learnt"]
    alone = sharegpt(("gpt", "Hello"), ("gpt", "Welcome"))
    for turns, reason in ((Turns(), "no assistant turn"), (Turns(opening="keep"), "no assistant turn that is learnt")):
        with pytest.raises(UnusableRowError, match=f"^{reason}$"):
            read_row(alone, "sharegpt", turns)
    twice = sharegpt(("gpt", "Hello"), ("gpt", "Welcome"), ("human", "Hi"), ("gpt", "Yo"))
    with pytest.raises(UnusableRowError, match="roles do not alternate"):
        read_row(twice, "sharegpt", Turns(opening="keep"))
    merged = read_row(twice, "sharegpt", Turns(opening="keep", repeated="merge"))
    assert merged.messages[0]["content"] == "Hello\n\nWelcome"
    assert len(merged.reordered) == 2
    assert read_row(messages(("user", "Hi"), ("assistant", "Yo")), "messages").reordered == []


def test_turns_of_a_role_in_a_row_are_merged_where_it_is_asked_for() -> None:
    row = messages(("user", "Hi"), ("user", "There?"), ("assistant", "Yes."), ("assistant", "And?"), ("user", "Bye"))
    merged = read_row(row, "messages", Turns(repeated="merge"))
    assert merged.messages == chat("Hi\n\nThere?", "Yes.\n\nAnd?", "Bye")
    assert merged.reordered == ["repeated turns merged", "closing turns unanswered, not read"]
    tools = messages(("user", "?"), ("assistant", "a, b"), ("tool", "1"), ("tool", "2"), ("assistant", "3"))
    assert len(read_row(tools, "messages", Turns(repeated="merge")).messages) == 5
    other = {"messages": [*chat("Hi", "Bad"), {"role": "assistant", "content": "Good", "weight": 0}]}
    with pytest.raises(UnusableRowError, match="roles do not alternate"):  # one is learnt, one is not
        read_row(other, "messages", Turns(repeated="merge"))


def test_closing_turns_that_nobody_answers_are_said() -> None:
    for last in (("user", "Bye"), ("tool", "1")):
        row = messages(("user", "Hi"), ("assistant", "Yo"), last)
        assert read_row(row, "messages").reordered == ["closing turns unanswered, not read"]


def test_a_developer_speaks_as_the_system() -> None:
    assert convert(messages(("developer", "S"), ("user", "Hi"), ("assistant", "Yo")), "messages") == chat(
        "Hi", "Yo", system="S"
    )


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
