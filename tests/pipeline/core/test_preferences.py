from typing import Any

import pytest

from pipeline.core.formats import Messages, Turns, UnusableRowError
from pipeline.core.preferences import answered, compare, is_comparison


def user(text: str) -> Messages:
    return [{"role": "user", "content": text}]


def assistant(text: str) -> Messages:
    return [{"role": "assistant", "content": text}]


SYSTEM: Messages = [{"role": "system", "content": "S"}]
EARLIER = [{"from": "human", "value": "One?"}, {"from": "gpt", "value": "1"}, {"from": "human", "value": "Two?"}]
ASKED = [*user("One?"), *assistant("1"), *user("Two?")]
TEXTS = {"chosen": "Good", "rejected": "Bad"}
WHOLE = {"chosen": [*user("Hi"), *assistant("Good")], "rejected": [*user("Hi"), *assistant("Bad")]}
PAIRS = [
    ({"prompt": "Hi", **TEXTS}, user("Hi")),
    ({"Question": "Hi", "System": "S", **TEXTS}, [*SYSTEM, *user("Hi")]),
    ({"instruction": "Add.", "input": "1, 2", **TEXTS}, user("Add.\n\n1, 2")),
    ({"input": "Hi", "prompt": None, **TEXTS}, user("Hi")),
    ({"prompt": "Two?", "history": [["One?", "1"]], **TEXTS}, ASKED),
    (
        {
            "conversations": EARLIER,
            "chosen": {"from": "gpt", "value": "Good"},
            "rejected": {"from": "gpt", "value": "Bad"},
        },
        ASKED,
    ),
    ({"messages": ASKED, "chosen": assistant("Good"), "rejected": assistant("Bad")[0]}, ASKED),
    ({"prompt": [*SYSTEM, *ASKED], **TEXTS}, [*SYSTEM, *ASKED]),
    ({"prompt": "Hi", **WHOLE}, user("Hi")),
    (WHOLE, user("Hi")),
    ({"system_prompt": "S", "messages": WHOLE["chosen"], **WHOLE}, [*SYSTEM, *user("Hi")]),
]


@pytest.mark.parametrize(("row", "prompt"), PAIRS)
def test_a_pair_is_the_prompt_with_a_better_and_a_worse_answer(row: dict[str, Any], prompt: Messages) -> None:
    assert is_comparison(row)
    comparison, *_ = compare(row)
    assert comparison == {"messages": prompt, "chosen": assistant("Good"), "rejected": assistant("Bad")}
    context = [{**message, "weight": 0} if message["role"] == "assistant" else message for message in prompt]
    assert answered(comparison) == [*context, *assistant("Good")]


@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize("write", [bool, int, float, str, lambda said: str(said).lower()])
@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "completion": "Yo"},
        {"prompt": user("Hi"), "completion": assistant("Yo")},
        {"messages": [*user("Hi"), *assistant("Yo")]},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]},
        {"instruction": "Hi", "input": "", "output": "Yo"},
    ],
)
@pytest.mark.parametrize("key", ["label", "kto_tag"])
def test_a_judgement_is_the_prompt_with_an_answer_and_a_verdict(
    key: str, row: dict[str, Any], write: Any, said: bool
) -> None:
    labelled = {**row, key: write(said)}
    assert is_comparison(labelled)
    comparison, unused, _ = compare(labelled)
    assert comparison == {"messages": user("Hi"), "completion": assistant("Yo"), "label": said}
    assert unused == frozenset()
    if said:
        assert answered(comparison) == [*user("Hi"), *assistant("Yo")]
    else:
        with pytest.raises(UnusableRowError, match="judged as a bad answer"):
            answered(comparison)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "completion": "Yo"},
        {"prompt": "Hi", "completion": "Yo", "label": 3},
        {"prompt": "Hi", "completion": "Yo", "label": "greeting"},
        {"prompt": "Hi", "completion": "Yo", "label": None},
        {"prompt": "Hi", "chosen": "Yo"},
        {"prompt": "Hi", "completion": "Yo", "chosen": "", "rejected": None},
        {"text": "Once.", "label": 1},
        ["chosen", "rejected"],
    ],
)
def test_other_rows_compare_nothing(row: Any) -> None:
    assert not is_comparison(row)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (TEXTS, "missing field"),
        ({"prompt": "Hi", "chosen": "Same", "rejected": "Same"}, "chosen and rejected are the same"),
        ({"prompt": "Hi", "chosen": ["Good"], "rejected": "Bad"}, "not an object"),
        ({"messages": WHOLE["chosen"], **TEXTS}, "roles do not alternate"),
        ({"prompt": "Hi", **TEXTS, "weight": 0}, "not to be learnt"),
        ({"messages": [*user("Hi"), *assistant("Yo"), *user("Bye")], "label": True}, "no assistant turn"),
    ],
)
def test_a_comparison_that_is_none_has_its_reason(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnusableRowError, match=reason):
        compare(row)


def test_an_opening_of_the_prompt_goes_as_that_of_a_conversation_does() -> None:
    row = {"messages": [*assistant("Welcome"), *user("Hi")], **TEXTS}
    comparison, _, done = compare(row)
    assert (comparison["messages"], done) == (user("Hi"), ["opening dropped"])
    comparison, _, done = compare(row, Turns(opening="keep"))
    assert (comparison["messages"], done) == (row["messages"], ["opening kept, not learnt"])


def test_pairs_of_openai_have_their_conversation_in_the_input() -> None:
    tools = [{"type": "function", "function": {"name": "now"}}]
    row = {
        "input": {"messages": [*SYSTEM, *ASKED], "tools": tools, "parallel_tool_calls": True},
        "preferred_output": assistant("Good"),
        "non_preferred_output": assistant("Bad"),
    }
    assert is_comparison(row)
    comparison, unused, _ = compare(row)
    assert [message["role"] for message in comparison["messages"][:1]] == ["tools"]
    assert answered(comparison)[-1:] == assistant("Good")
    assert comparison["messages"][1:] == [*SYSTEM, *ASKED]
    assert unused == {"parallel_tool_calls"}


def test_whole_conversations_may_be_called_messages() -> None:
    row = {"chosen_messages": WHOLE["chosen"], "rejected_messages": WHOLE["rejected"]}
    assert is_comparison(row)
    assert compare(row) == compare(WHOLE)
    assert not is_comparison({"preferred_output": assistant("Good"), "id": 1})


def test_keys_that_had_no_part_are_known() -> None:
    assert compare({"prompt": "Hi", "id": 1, "rating": [9, 2], **TEXTS}).unused == {"id", "rating"}


TOLD = "\n\nHuman: One?\n\nAssistant: 1\n\nHuman: Two?\nOr three?\n\nAssistant:"


def test_texts_that_are_whole_conversations_are_read_as_such() -> None:
    row = {"chosen": f"{TOLD} Good\n\nas Human: may say", "rejected": f"{TOLD} Bad"}
    comparison, unused, _ = compare(row)
    prompt = [*user("One?"), *assistant("1"), *user("Two?\nOr three?")]
    assert comparison == {
        "messages": prompt,
        "chosen": assistant("Good\n\nas Human: may say"),
        "rejected": assistant("Bad"),
    }
    assert unused == frozenset()
    assert answered(comparison)[-1] == assistant("Good\n\nas Human: may say")[0]


def test_beside_a_prompt_such_texts_are_answers_and_others_have_no_prompt() -> None:
    told = {"prompt": "Hi", "chosen": f"{TOLD} Good", "rejected": "Bad"}
    assert compare(told).comparison["chosen"] == assistant(told["chosen"])  # type: ignore[typeddict-item]
    for chosen in ("Good", "Assistant: Good", "He said:\n\nHuman: Hi\n\nAssistant: Good"):
        with pytest.raises(UnusableRowError, match=r"^missing field$"):
            compare({"chosen": chosen, "rejected": "Bad"})
    with pytest.raises(UnusableRowError, match=r"^empty message$"):
        compare({"chosen": TOLD, "rejected": f"{TOLD} Bad"})


def test_conversations_that_part_before_an_answer_are_no_pair() -> None:
    row = {"chosen": f"{TOLD} Good", "rejected": TOLD.replace("Two", "Four") + " Bad"}
    with pytest.raises(UnusableRowError, match=r"^chosen and rejected part before an answer$"):
        compare(row)
