"""What a request may have, field by field, and what comes of it."""

import json
import math
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from servers import ROOT, wait_until, whole_app
from thinkers import THOUGHT, write_thinkers
from tiny_gguf import CHAT_TEMPLATE, EOT, FAREWELL, write_random, write_scripted

from llama.thought_format import TAGS
from llama.thoughts import Thinking, Thoughts
from llama.turn import Piece
from llama.types import Sampling
from serve.engine import Engine
from serve.http import api, fields
from serve.http.answers import Writer
from serve.http.requests import ChatMessage, ChatRequest, StreamOptions, TextRequest
from serve.models.registry import Model, find_models
from serve.settings import Settings

JSON = {"Content-Type": "application/json"}
HI: Any = [{"role": "user", "content": "hi"}]
GREEDY: Any = {"model": "random", "messages": HI, "temperature": 0, "max_tokens": 20}
DRAWN: Any = GREEDY | {"temperature": 1, "seed": 7}
TEXT: Any = {"model": "random", "prompt": "hi", "temperature": 0, "max_tokens": 8}


@pytest.fixture(scope="module")
def client(models: dict[str, Model], tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = write_thinkers(tmp_path_factory.mktemp("thinkers"))
    limits = Settings(model="random", max_tokens=64, max_loaded_models=8, rate=0, context=1 << 10)
    with Engine({**models, **find_models(folder)}, limits) as engine:
        yield TestClient(whole_app(engine, limits), raise_server_exceptions=False)


def ask(client: TestClient, body: Any, path: str = "chat/completions") -> Any:
    answer = client.post(f"/v1/{path}", content=json.dumps(body), headers=JSON)
    assert answer.status_code == 200, answer.text
    return answer.json()


def said(client: TestClient, **changed: Any) -> str:
    return ask(client, GREEDY | changed)["choices"][0]["message"]["content"]


def refused(client: TestClient, body: Any, path: str = "chat/completions") -> dict[str, Any]:
    answer = client.post(f"/v1/{path}", content=json.dumps(body), headers=JSON)
    assert answer.status_code == 400, answer.text
    return answer.json()["error"]


def chunks(client: TestClient, body: Any, path: str = "chat/completions") -> list[Any]:
    lines = client.post(f"/v1/{path}", json=body | {"stream": True}).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ({"max_tokens": 8.0}, {"max_tokens": 8}),
        ({"max_tokens": 1_000_000}, {"max_tokens": 64}),
        ({"max_tokens": -1}, {"max_tokens": 64}),
        ({"max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"seed": 2**63 - 1, "temperature": 1}, {"seed": (2**63 - 1) % (2**32 - 1), "temperature": 1}),
        ({"seed": 7.0, "temperature": 1}, {"seed": 7, "temperature": 1}),
        ({"stop": ["no such text"] * 32}, {}),
        ({"messages": [*HI, {"role": "assistant", "content": None}, *HI]},
         {"messages": [*HI, {"role": "assistant", "content": ""}, *HI]}),
        ({"messages": [*HI, {"role": "assistant"}, *HI]},
         {"messages": [*HI, {"role": "assistant", "content": ""}, *HI]}),
        ({"n": 1, "user": "me", "store": True, "logprobs": False, "response_format": {"type": "text"}}, {}),
        ({"grammar": None, "tools": [], "min_tokens": 0, "dry_multiplier": 0.0}, {}),
        ({"top_k": -1, "seed": 7, "temperature": 1}, {"top_k": 0, "seed": 7, "temperature": 1}),
        ({"repetition_penalty": 1.5}, {"repeat_penalty": 1.5}),
        ({"enable_thinking": False}, {}),  # the model thinks nothing that could be switched off
    ],
)  # fmt: skip
def test_what_peers_cap_or_take_is_taken(client: TestClient, given: dict, same: dict) -> None:
    assert said(client, **given) == said(client, **same)


def test_a_seed_of_minus_one_draws_another_answer_each_time(client: TestClient) -> None:
    assert len({said(client, temperature=1, seed=-1) for _ in range(5)}) > 1


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
@pytest.mark.parametrize("name", sorted(fields.REFUSED))
def test_a_field_that_would_change_the_answer_is_refused_by_name(client: TestClient, name: str, path: str) -> None:
    body = (GREEDY if path.startswith("chat") else TEXT) | {name: {"of": "no such value"}}
    error = refused(client, body, path)
    assert (error["code"], error["param"]) == ("unsupported_parameter", name)
    assert error["message"] == f"{name} is not supported: leave it out."


@pytest.mark.parametrize("name", sorted(fields.CHAT_REFUSED))
def test_a_field_of_texts_is_none_of_conversations(client: TestClient, name: str) -> None:
    assert refused(client, GREEDY | {name: 3})["param"] == name
    assert said(client, **{name: fields.CHAT_REFUSED[name][0]}) == said(client)


@pytest.mark.parametrize("name", sorted(fields.HARMLESS))
def test_a_field_that_changes_nothing_is_taken(client: TestClient, name: str) -> None:
    assert said(client, **{name: "anything"}) == said(client)


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"temprature": 1}, "unknown_parameter", "temprature"),
        ({"messages": [HI[0] | {"audio": {"id": "x"}}]}, "unsupported_parameter", "messages[0].audio"),
        ({"messages": [HI[0] | {"colour": "red"}]}, "unknown_parameter", "messages[0].colour"),
        ({"messages": [{"role": "user", "content": None}]}, "missing_required_parameter", "messages[0].content"),
        ({"messages": [{"role": "critic", "content": "x"}]}, "invalid_value", "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "invalid_value", "messages[0].content"),
        ({"stream_options": {"continuous_usage_stats": True}}, "unsupported_parameter",
         "stream_options.continuous_usage_stats"),
        ({"tool_choice": 5}, "invalid_type", "tool_choice"),
        ({"chat_template_kwargs": {"a": []}}, "invalid_type", "chat_template_kwargs.a"),
        ({"max_tokens": 8.5}, "invalid_type", "max_tokens"),
        ({"max_tokens": -2}, "invalid_value", "max_tokens"),
        ({"n": 0}, "invalid_value", "n"),
        ({"n": 37}, "invalid_value", "n"),
        ({"n": 129}, "invalid_value", "n"),
        ({"top_logprobs": 2}, "invalid_value", "top_logprobs"),
        ({"min_tokens": 21}, "invalid_value", "min_tokens"),
        ({"min_tokens": -1}, "invalid_value", "min_tokens"),
        ({"ignore_eos": "yes"}, "invalid_type", "ignore_eos"),
        ({"stop_token_ids": [261]}, "invalid_value", "stop_token_ids"),
        ({"stop_token_ids": [-1]}, "invalid_value", "stop_token_ids"),
        ({"stop_token_ids": ["a"]}, "invalid_type", "stop_token_ids[0]"),
        ({"stop_token_ids": [1] * 1025}, "invalid_value", "stop_token_ids"),
        ({"enable_thinking": True}, "unsupported_parameter", "enable_thinking"),
        ({"logprobs": True, "top_logprobs": 21}, "invalid_value", "logprobs"),
        ({"logit_bias": {"x": 1}}, "invalid_value", "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "invalid_value", "logit_bias"),
        ({"logit_bias": {"261": 1}}, "invalid_value", "logit_bias"),
        ({"stop": ["x"] * 33}, "invalid_value", "stop"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "unsupported_parameter",
         "chat_template_kwargs.enable_thinking"),
        ({"chat_template_kwargs": {"messages": "x"}}, "unsupported_parameter", "chat_template_kwargs.messages"),
        ({"reasoning_effort": "low"}, "unsupported_value", "reasoning_effort"),
        ({"continue_final_message": True}, "invalid_value", "continue_final_message"),
        ({"add_generation_prompt": False}, "invalid_value", "add_generation_prompt"),
    ],
)  # fmt: skip
def test_an_error_names_the_field(client: TestClient, fields: dict, code: str, param: str) -> None:
    error = refused(client, GREEDY | fields)
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)


def test_the_documents_show_every_field() -> None:
    shown = (ROOT / "docs/serving.md").read_text()
    models = (ChatRequest, TextRequest, ChatMessage, StreamOptions)
    done = {name for model in models for name in model.model_fields}
    named = done | fields.HARMLESS | fields.REFUSED.keys() | fields.MESSAGE_HARMLESS | fields.MESSAGE_REFUSED.keys()
    named |= fields.STREAM_HARMLESS | fields.STREAM_REFUSED.keys()
    assert not [name for name in sorted(named) if f"`{name}`" not in shown]


WORDS = FAREWELL.split()
PROSE = f" {FAREWELL}"  # what `endless` says, a token a word; `accents` says a byte a token and ends


def finished(client: TestClient, **changed: Any) -> tuple[str, str, int]:
    """What is said, why it ends, and how many tokens it took; the stream says the same."""
    body = GREEDY | {"model": "endless"} | changed
    answer = ask(client, body)
    (choice,) = answer["choices"]
    events = chunks(client, body)
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == choice["message"]["content"]
    assert events[-1]["choices"][0]["finish_reason"] == choice["finish_reason"]
    return choice["message"]["content"], choice["finish_reason"], answer["usage"]["completion_tokens"]


def test_a_token_ends_an_answer_and_is_a_part_of_it_where_asked_for(client: TestClient) -> None:
    third = 261 + 2  # the words stand behind bytes and marks
    assert finished(client, stop_token_ids=[third]) == (" So long, and"[: len(" So long,")], "stop", 2)
    assert finished(client, stop_token_ids=[third], include_stop_str_in_output=True) == (" So long, and", "stop", 3)
    assert finished(client, stop_token_ids=[0], max_tokens=8) == (PROSE, "length", 8)


def test_a_stop_text_is_a_part_of_the_answer_where_asked_for(client: TestClient) -> None:
    assert finished(client, stop=["g, an", "thanks"])[0] == " So lon"
    assert finished(client, stop=["g, an", "thanks"], include_stop_str_in_output=True)[0] == " So long, an"
    assert finished(client, stop=["nothing"], include_stop_str_in_output=True, max_tokens=8)[:2] == (PROSE, "length")


def test_an_answer_goes_on_to_the_fewest_tokens(client: TestClient) -> None:
    ended, reason, tokens = finished(client, model="nested/accents")
    assert (reason, tokens) == ("stop", 9)
    text, reason, tokens = finished(client, model="nested/accents", min_tokens=12)
    assert text.startswith(ended)
    assert tokens >= 12
    assert finished(client, min_tokens=5, stop=["and", "for"])[0] == " So long, and thanks for all the notes. So long, "
    first = said(client).encode()[0]
    assert finished(client, model="random", stop_token_ids=[first])[:2] == ("", "stop")
    text, _, tokens = finished(client, model="random", stop_token_ids=[first], min_tokens=6)
    assert tokens >= 6
    assert first not in text.encode()


def test_an_answer_that_cannot_end_is_as_long_as_it_may_be(client: TestClient) -> None:
    assert finished(client, model="nested/accents", ignore_eos=True, max_tokens=15)[1:] == ("length", 15)
    drawn = {"temperature": 1, "seed": 5, "logit_bias": {"260": 100}}
    assert said(client, **drawn) == ""
    assert finished(client, model="random", ignore_eos=True, **drawn)[1:] == ("length", 20)


def test_what_cannot_be_drawn_is_told_with_the_models_own_chances(client: TestClient) -> None:
    body = GREEDY | {"model": "nested/accents", "logprobs": True, "top_logprobs": 1, "max_tokens": 10}
    ended = ask(client, body | {"ignore_eos": True})["choices"][0]["logprobs"]["content"][9]
    assert ended["top_logprobs"][0]["token"] == "<|eot_id|>"
    assert ended["logprob"] < ended["top_logprobs"][0]["logprob"]


def test_a_prompt_is_told_before_its_answer(client: TestClient) -> None:
    plain = [choice["text"] for choice in ask(client, TEXT | {"prompt": ["hi", "so"]}, "completions")["choices"]]
    told = ask(client, TEXT | {"prompt": ["hi", "so"], "echo": True, "n": 2}, "completions")["choices"]
    heads = [head + answer for head, answer in zip(["hi", "so"], plain, strict=True)]
    assert [choice["text"] for choice in told] == [head for head in heads for _ in range(2)]
    events = chunks(client, TEXT | {"echo": True}, "completions")
    assert "".join(event["choices"][0]["text"] for event in events) == heads[0]
    ids = ask(client, TEXT | {"prompt": [256, *b"hi"], "echo": True}, "completions")["choices"][0]["text"]
    assert ids == f"<|begin_of_text|>{heads[0]}"


def test_a_prompt_is_told_with_how_likely_it_is(client: TestClient) -> None:
    text = "So long, and thanks for all the notes. " * 2  # longer than what is read at once
    asked = TEXT | {"prompt": text, "echo": True, "logprobs": 2, "max_tokens": 3}
    told = ask(client, asked, "completions")["choices"][0]
    chances = told["logprobs"]
    assert "".join(chances["tokens"]).startswith(text)
    assert told["text"].startswith(text)
    assert chances["text_offset"] == list(range(len(text))) + chances["text_offset"][len(text) :]
    assert chances["token_logprobs"][0] < 0  # behind BOS, of which nothing is told
    alone = ask(client, TEXT | {"prompt": text, "logprobs": 2, "max_tokens": 3}, "completions")["choices"][0][
        "logprobs"
    ]
    assert chances["token_logprobs"][len(text) :] == alone["token_logprobs"]
    ids = ask(client, asked | {"prompt": [256, *text.encode()], "max_tokens": 0}, "completions")["choices"][0]
    assert ids["text"] == f"<|begin_of_text|>{text}"
    assert (ids["logprobs"]["token_logprobs"][0], ids["logprobs"]["top_logprobs"][0]) == (None, None)
    assert ids["logprobs"]["token_logprobs"][1:] == chances["token_logprobs"][: len(text)]
    events = chunks(client, asked | {"n": 2}, "completions")
    for index in range(2):
        streamed = [each["choices"][0] for each in events if each["choices"][0]["index"] == index]
        tokens = [token for each in streamed if each["logprobs"] for token in each["logprobs"]["tokens"]]
        assert tokens == chances["tokens"]
    ended = ask(client, asked | {"logit_bias": {str(EOT): 100}}, "completions")["choices"][0]  # which is told, too
    assert (ended["text"], ended["logprobs"]["tokens"][len(text) :]) == (text, ["<|eot_id|>"])
    for prompt, tokens in (("h", "h"), ([256], ""), ([256, *b"h"], "<|begin_of_text|>h")):
        one = ask(client, asked | {"prompt": prompt}, "completions")["choices"][0]["logprobs"]
        assert "".join(one["tokens"]).startswith(tokens)
        assert len(one["tokens"]) == len(one["token_logprobs"])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"echo": True, "logprobs": 0, "suffix": "x"}, "echo"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"suffix": "after"}, "suffix"),
        ({"suffix": "after", "prompt": [1, 2]}, "suffix"),
        ({"suffix": "x" * 8001}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"n": 2, "best_of": 3}, "best_of"),
    ],
)
def test_what_a_text_cannot_have_is_named(client: TestClient, fields: dict, param: str) -> None:
    assert refused(client, TEXT | fields, "completions")["param"] == param


def test_as_many_as_are_asked_for_are_the_best_of_themselves(client: TestClient) -> None:
    assert len(ask(client, TEXT | {"n": 2, "best_of": 2}, "completions")["choices"]) == 2


def test_a_gap_is_filled_by_a_model_that_has_marks_for_it(tmp_path: Path) -> None:
    marks = [b"<|fim_prefix|>", b"<|fim_suffix|>", b"<|fim_middle|>"]
    write_scripted(tmp_path / "one.gguf", [*marks, b"so"])
    with Engine(find_models(tmp_path), Settings(models=str(tmp_path), rate=0)) as engine:
        app = TestClient(whole_app(engine, Settings(rate=0)))
        body = {"model": "one", "prompt": "ab", "suffix": "yz", "max_tokens": 4, "temperature": 0, "echo": True}
        answer = ask(app, body, "completions")
        (batch,) = engine._loaded.by_name.values()
        before, after, middle = 261, 262, 263
        assert batch._slots[0].tokens[:8] == [256, before, *b"ab", after, *b"yz", middle]
        assert answer["choices"][0]["text"] == "abso"
        assert answer["usage"]["prompt_tokens"] == 8


def test_several_answers_to_one_prompt(client: TestClient) -> None:
    answer = ask(client, DRAWN | {"n": 3})
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    texts = [choice["message"]["content"] for choice in answer["choices"]]
    assert texts == [said(client, temperature=1, seed=seed) for seed in (7, 8, 9)]
    assert len(set(texts)) == 3
    assert answer["usage"]["completion_tokens"] == 60
    streamed = ["", "", ""]
    events = chunks(client, DRAWN | {"n": 3, "stream_options": {"include_usage": True}})
    for chunk in events[:-1]:
        (choice,) = chunk["choices"]
        streamed[choice["index"]] += choice["delta"].get("content", "")
    assert streamed == texts
    assert {k: v for k, v in events[-1]["usage"].items() if k.endswith("_tokens")} == {
        k: v for k, v in answer["usage"].items() if k.endswith("_tokens")
    }


def test_several_prompts_are_answered_as_each_alone(client: TestClient) -> None:
    texts = ["hi", "so", "well"]
    alone = [ask(client, TEXT | {"prompt": text}, "completions") for text in texts]
    together = ask(client, TEXT | {"prompt": texts}, "completions")
    assert [c["text"] for c in together["choices"]] == [answer["choices"][0]["text"] for answer in alone]
    assert together["usage"]["total_tokens"] == sum(answer["usage"]["total_tokens"] for answer in alone)
    ids = [[256, *text.encode()] for text in texts]  # BOS is not added to ids
    assert ask(client, TEXT | {"prompt": ids}, "completions")["choices"] == together["choices"]
    one = ask(client, TEXT | {"prompt": ids[0]}, "completions")
    assert one["choices"][0]["text"] == together["choices"][0]["text"]


def test_a_text_beyond_the_context_is_told_by_its_field(client: TestClient) -> None:
    error = refused(client, TEXT | {"prompt": "x y " * 200}, "completions")
    assert (error["code"], error["param"]) == ("context_length_exceeded", "prompt")


@pytest.mark.parametrize("prompt", [[], [[]], [261], [-1], ["x", 1], [["x"]], ["x"] * 37])
def test_prompts_that_are_none_are_refused(client: TestClient, prompt: Any) -> None:
    assert "prompt" in refused(client, TEXT | {"prompt": prompt}, "completions")["param"]


def test_a_bias_bans_and_forces_tokens(client: TestClient) -> None:
    usual = said(client)
    bias = {str(byte): -100 for byte in usual.encode()}
    assert not set(said(client, logit_bias=bias)) & set(usual)
    assert said(client, logit_bias={str(ord("x")): 100}) == "x" * 20


def test_sampling_fields_do_what_they_say(client: TestClient) -> None:
    drawn = {"temperature": 2, "seed": 3}
    assert said(client, **drawn, top_k=1) == said(client) == said(client, **drawn, min_p=1)
    assert said(client, **drawn, top_k=0, min_p=0, top_p=1) != said(client, **drawn)
    repeated = said(client, logit_bias={str(ord("x")): 30})
    assert repeated == "x" * 20 != said(client, logit_bias={str(ord("x")): 30}, repeat_penalty=10)


def test_logprobs_are_of_the_models_own_distribution(client: TestClient) -> None:
    plain = ask(client, GREEDY)["choices"][0]
    choice = ask(client, GREEDY | {"logprobs": True, "top_logprobs": 3})["choices"][0]
    assert choice["message"] == plain["message"]
    content = choice["logprobs"]["content"]
    assert len(content) == 20
    assert (
        bytes(byte for token in content for byte in token["bytes"]).decode(errors="ignore")
        == (choice["message"]["content"])
    )
    for token in content:
        likeliest = [rival["logprob"] for rival in token["top_logprobs"]]
        assert len(likeliest) == 3
        assert token["logprob"] == likeliest[0]  # greedy
        assert all(one >= other for one, other in pairwise(likeliest))
        assert sum(map(math.exp, likeliest)) <= 1
    everything = ask(client, TEXT | {"max_tokens": 1, "logprobs": 20, "temperature": 1}, "completions")
    assert sum(map(math.exp, everything["choices"][0]["logprobs"]["top_logprobs"][0].values())) <= 1
    streamed = [c["choices"][0]["logprobs"] for c in chunks(client, GREEDY | {"logprobs": True, "top_logprobs": 3})]
    assert [token for logprobs in streamed if logprobs for token in logprobs["content"]] == content


def test_a_texts_logprobs_say_where_each_token_stands(client: TestClient) -> None:
    body = {"model": "endless", "prompt": "\n", "temperature": 0, "max_tokens": 8, "logprobs": 1}
    choice = ask(client, body, "completions")["choices"][0]
    logprobs, text = choice["logprobs"], f" {FAREWELL}"
    assert "".join(logprobs["tokens"]) == choice["text"] == text
    assert [text[at:].startswith(token) for at, token in zip(logprobs["text_offset"], logprobs["tokens"], strict=True)]
    streamed = [chunk["choices"][0]["logprobs"] for chunk in chunks(client, body, "completions")]
    assert [at for logprobs in streamed if logprobs for at in logprobs["text_offset"]] == logprobs["text_offset"]
    assert max(logprobs["token_logprobs"]) <= 0


def test_an_answers_beginning_is_gone_on_with(client: TestClient) -> None:
    head = {"role": "assistant", "content": "so "}
    turns = ("user", "hi<|eot_id|>"), ("assistant", "so ")
    written = "".join(f"<|start_header_id|>{role}<|end_header_id|>\n\n{text}" for role, text in turns)
    open_ended = ask(client, TEXT | {"prompt": written, "max_tokens": 20}, "completions")["choices"][0]["text"]
    assert said(client, messages=[*HI, head]) == open_ended
    assert said(client, messages=[*HI, head], continue_final_message=True, add_generation_prompt=False) == open_ended
    closed = [
        said(client, messages=[*HI, head], **{name: value})
        for name, value in (("continue_final_message", False), ("add_generation_prompt", True))
    ]
    assert closed[0] == closed[1] != open_ended


def test_a_text_within_a_template_that_strips_is_stripped_as_it_does(tmp_path: Path) -> None:
    stripping = CHAT_TEMPLATE.replace("message['content'] +", "message['content'] | trim +")
    for template, end in ((CHAT_TEMPLATE, b"so \n"), (stripping, b"so")):
        write_random(tmp_path / "one.gguf", template=template)
        limits = Settings(models=str(tmp_path), rate=0)
        with Engine(find_models(tmp_path), limits) as engine:
            list(engine.stream("one", begun("so \n"), Sampling(max_tokens=1)))
            (batch,) = engine._loaded.by_name.values()
            assert bytes(i for i in batch._slots[0].tokens if i < 256).endswith(b"assistant\n\n" + end)


def begun(beginning: str) -> Any:
    (prompt,) = ChatRequest(model="x", messages=[*HI, {"role": "assistant", "content": beginning}]).prompts()  # type: ignore[list-item]
    return prompt


def test_usage_tells_of_drafted_tokens() -> None:
    request = ChatRequest(model="x", messages=HI)  # type: ignore[arg-type]
    writer = Writer(request, request.prompts())
    writer.take(0, Piece("so", 9, 1.0, 0.5, 4, 0, "stop", drafted=7, accepted=5))
    assert writer.usage()["completion_tokens_details"] == {
        "reasoning_tokens": 0,
        "accepted_prediction_tokens": 5,
        "rejected_prediction_tokens": 2,
    }


def test_what_is_thought_is_told_from_what_is_said(client: TestClient) -> None:
    for model, tokens in (("thinks", 7), ("within", 5), ("marked", 7)):
        body = GREEDY | {"model": model}
        answer = ask(client, body)
        message = answer["choices"][0]["message"]
        assert (message["reasoning_content"], message["content"]) == ("Is it?", "So it is.")
        assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] in (tokens - 1, tokens)
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks(client, body)]
        assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "Is it?"
        assert "".join(delta.get("content", "") for delta in deltas) == "So it is."
    assert said(client, model="thinks", reasoning_format="none") == "".join(THOUGHT)
    marked = "".join(THOUGHT).replace("<think>", "[THINK]").replace("</think>", "[/THINK]")
    assert said(client, model="marked", reasoning_format="none") == marked
    cut = ask(client, GREEDY | {"model": "thinks", "max_tokens": 4})["choices"][0]
    assert (cut["message"], cut["finish_reason"]) == (
        {"role": "assistant", "content": "", "reasoning_content": "Is it"},
        "length",
    )


@pytest.mark.parametrize(
    ("begun", "pieces", "thought", "said"),
    [
        (None, ["<th", "ink>a < b</thin", "k", "</think> \n", " so <think>"], "a < b</think", "so <think>"),
        (None, [" <thi", "s is said"], "", " <this is said"),
        (None, ["said <think>"], "", "said <think>"),
        (None, ["<think>cut </th"], "cut </th", ""),
        (None, ["\n", "<thi"], "", "\n<thi"),
        ("<think>it", [" is</think>\n", "so"], " is", "so"),
        ("so", [" <think>"], "", " <think>"),
    ],
)
def test_thoughts_are_split_wherever_their_marks_are_cut(
    begun: str | None, pieces: list[str], thought: str, said: str
) -> None:
    thoughts = Thoughts(Thinking(TAGS, bool(begun and TAGS.opens(begun)), goes_on=begun is not None))
    parts = [thoughts.take(piece) for piece in pieces] + [thoughts.take("", last=True)]
    assert ("".join(part.thought for part in parts), "".join(part.said for part in parts)) == (thought, said)


@pytest.mark.parametrize("model", ["thinks", "marked"])
def test_what_was_thought_is_read_and_gone_on_with_between_the_model_s_marks(client: TestClient, model: str) -> None:
    mark, close = ("[THINK]", "[/THINK]") if model == "marked" else ("<think>\n", "\n</think>\n\n")

    def read(**turn: str) -> str:
        body = {"model": model, "messages": [*HI, {"role": "assistant"} | turn]}
        tokens = client.post("/tokenize", json=body).json()["tokens"]
        return client.post("/detokenize", json={"model": model, "tokens": tokens}).json()["content"].partition("hi")[2]

    assert read(content="So", reasoning_content="Is it").endswith(f"{mark}Is it{close}So")
    assert read(content="", reasoning_content="Is it").endswith(f"{mark}Is it")
    assert read(content="So").endswith("\n\nSo")


def test_thinking_is_switched_off_where_the_template_can(client: TestClient) -> None:
    messages = [*HI, {"role": "assistant", "content": "<think>\n\n</think>\n\n"}]
    switched = GREEDY | {"model": "switched"}
    brief = ask(client, switched | {"chat_template_kwargs": {"enable_thinking": False}})["choices"]
    assert brief == ask(client, switched | {"reasoning_effort": "none"})["choices"]
    assert brief == ask(client, switched | {"messages": messages})["choices"]
    assert brief != ask(client, switched | {"chat_template_kwargs": {"enable_thinking": True}})["choices"]
    assert brief == ask(client, switched | {"enable_thinking": False})["choices"]
    assert refused(client, switched | {"reasoning_effort": "high"})["code"] == "unsupported_value"
    assert refused(client, GREEDY | {"model": "within", "enable_thinking": False})["param"] == "enable_thinking"


def test_a_stream_that_waits_says_so(models: dict[str, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "SILENCE", 0.01)
    limits = Settings(model="endless", max_tokens=1 << 17, context=1 << 18, slots=1, max_loaded_models=4, rate=0)
    with Engine(models, limits) as engine:
        first = engine.stream("endless", HI, Sampling(max_tokens=1 << 17))
        next(first)
        texts: list[str] = []
        body = {"model": "endless", "messages": HI, "max_tokens": 2, "stream": True}
        app = TestClient(whole_app(engine, limits))
        asked = threading.Thread(target=lambda: texts.append(app.post("/v1/chat/completions", json=body).text))
        asked.start()
        wait_until(lambda: engine.load().waiting == 1)
        threading.Event().wait(0.2)
        first.close()  # type: ignore[attr-defined]
        asked.join(20)
    assert texts[0].startswith(": waiting\n\n")
    assert "".join(json.loads(line[6:])["choices"][0]["delta"].get("content", "")
                   for line in texts[0].splitlines() if line.startswith("data: {")) == " So long,"  # fmt: skip


HI_READ = [256, *b"hi"]  # behind BOS
HI_WRITTEN = [256, 258, *b"user", 259, 10, 10, *b"hi", 260, 258, *b"assistant", 259, 10, 10]


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"model": "random", "prompt": "hi"}, HI_READ),
        ({"prompt": "hi", "add_special_tokens": False}, HI_READ[1:]),
        ({"content": "hi"}, HI_READ[1:]),
        ({"content": "hi", "add_special": True, "parse_special": True, "with_pieces": False}, HI_READ),
        ({"content": "<|eot_id|>"}, [260]),
        ({"content": ""}, []),
        ({"messages": HI}, HI_WRITTEN),
        ({"messages": [*HI, {"role": "assistant", "content": "so"}]}, [*HI_WRITTEN, *b"so"]),
        ({"content": "x y " * 500}, [*b"x y "] * 500),
    ],
)
@pytest.mark.parametrize("path", ["/tokenize", "/v1/tokenize"])
def test_token_ids_are_told(client: TestClient, body: dict, tokens: list[int], path: str) -> None:
    answer = client.post(path, json=body)
    assert answer.json() == {"tokens": tokens, "count": len(tokens), "max_model_len": 512}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": "hi", "messages": HI}, "prompt"),
        ({"prompt": "x" * 8001}, "prompt"),
        ({"messages": []}, "messages"),
        ({"content": "hi", "of": 1}, "of"),
        ({"content": "hi", "model": "none"}, "model"),
    ],
)
def test_what_cannot_be_read_is_refused(client: TestClient, body: dict, param: str) -> None:
    answer = client.post("/tokenize", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (404 if param == "model" else 400, param)


def test_tokens_are_told_with_their_texts(client: TestClient) -> None:
    pieces = client.post("/tokenize", json={"content": "h\u00e9<|eot_id|>", "with_pieces": True}).json()["tokens"]
    told = [(ord("h"), "h"), (0xC3, [0xC3]), (0xA9, [0xA9]), (260, "<|eot_id|>")]
    assert pieces == [{"id": token, "piece": piece} for token, piece in told]
    named = client.post("/v1/tokenize", json={"prompt": "hi", "return_token_strs": True}).json()
    assert (named["tokens"], named["token_strs"]) == (HI_READ, ["<|begin_of_text|>", "h", "i"])


@pytest.mark.parametrize("path", ["/detokenize", "/v1/detokenize"])
@pytest.mark.parametrize("text", ["What is 5 + 6? \u00e9\u20ac\U0001f600\n", "<|eot_id|>", ""])
def test_what_was_read_is_written_again(client: TestClient, text: str, path: str) -> None:
    tokens = client.post("/tokenize", json={"content": text}).json()["tokens"]
    answer = client.post(path, json={"model": "random", "tokens": tokens})
    assert answer.json() == {"content": text, "prompt": text}
    longer = client.post(path, json={"tokens": tokens * 600})
    assert longer.json()["content"] == text * 600


@pytest.mark.parametrize(
    ("body", "param"),
    [({}, "tokens"), ({"tokens": "hi"}, "tokens"), ({"tokens": [261]}, "tokens"), ({"tokens": [-1]}, "tokens"),
     ({"tokens": [1, "x"]}, "tokens[1]"), ({"tokens": [1], "of": 1}, "of")],
)  # fmt: skip
def test_tokens_that_are_none_are_refused(client: TestClient, body: dict, param: str) -> None:
    answer = client.post("/detokenize", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_reading_is_counted_as_no_answer(client: TestClient) -> None:
    def requests() -> list[str]:
        lines = client.get("/metrics").text.splitlines()
        return [line for line in lines if line.startswith("tunesmith_requests_total")]

    ask(client, GREEDY)
    before = requests()
    assert client.post("/tokenize", json={"content": "hi"}).status_code == 200
    assert requests() == before


@pytest.mark.parametrize("stream", [False, True])
def test_where_one_of_several_answers_finds_no_room_none_is_given(models: dict[str, Model], stream: bool) -> None:
    limits = Settings(model="endless", max_tokens=1 << 17, context=1 << 18, slots=1, queue=1, rate=0)
    with Engine(models, limits) as engine:
        first = engine.stream("endless", HI, Sampling(max_tokens=1 << 17))
        next(first)
        app = TestClient(whole_app(engine, limits))
        body = {"model": "endless", "messages": HI, "n": 2, "stream": stream}
        assert app.post("/v1/chat/completions", json=body).status_code == 503
        wait_until(lambda: engine.load().waiting == 0)
        first.close()  # type: ignore[attr-defined]
