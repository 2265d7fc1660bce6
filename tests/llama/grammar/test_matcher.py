"""The tokens that a form lets through, and answers that are drawn under it, alone and in company."""

import json
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import pytest
from drawn_texts import matcher as by_bytes
from tiny_gguf import CHAT_TEMPLATE, write_random

from llama.batch import Batch
from llama.call_format import HERMES, CallFormat
from llama.calls import CallForm
from llama.errors import RequestError
from llama.grammar.calls import calls_grammar, free_or_calls
from llama.grammar.follow import Vocabulary
from llama.grammar.forms import after_thoughts, read_form, start_matcher
from llama.grammar.lark import Grammar
from llama.grammar.matcher import Followers, Matcher
from llama.model import LlamaModel
from llama.thought_format import TAGS
from llama.thoughts import Thinking
from llama.turn import Piece, Turn
from llama.types import Chat, Form, Sampling, Tools

HI: Any = [{"role": "user", "content": "hi"}]
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 4},
        "kinds": {"type": "array", "items": {"enum": ["big", "small", 7]}, "maxItems": 2},
        "open": {"type": "boolean"},
    },
    "required": ["name", "kinds", "open"],
}
FORM = Form("schema", json.dumps(SCHEMA), "response_format")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaModel]:
    path = write_random(tmp_path_factory.mktemp("model") / "random.gguf")
    with LlamaModel(path, 512, threads=1, slots=4) as model:
        yield model


@pytest.fixture(scope="module")
def letters() -> Iterator[Followers]:
    """Of each byte as a token, and some that are none."""
    followers = Followers(Vocabulary([bytes([byte]) for byte in range(256)] + [b"", b"", b"<tool_call>"], [256]))
    yield followers
    followers.close()


def of(kind: Any, source: str) -> Grammar:
    return read_form(Form(kind, source, kind))


def test_tokens_let_through_are_those_that_lead_on() -> None:
    rng = random.Random(0)
    text = '{"aé😀b": [1.5, -2e3, true, null, "\\n"], "":{}}'.encode()
    cut = [text[start : start + rng.randrange(1, 9)] for start in range(len(text)) for _ in range(4)]
    pieces = [b"", b"<eos>", *cut, *(bytes([byte]) for byte in range(256)), b"  ", b"\xff\xfe", b"}}}}"]
    truth = by_bytes(of("object", ""))
    with closing(Followers(Vocabulary(pieces, [1]))) as followers:
        matcher = Matcher(of("object", ""), followers)
        for length in range(len(text) + 1):
            fit = [truth.validate_tokens(list(piece)) == len(piece) > 0 for piece in pieces]
            assert matcher.ended == (length == len(text))
            assert matcher.allowed().tolist() == [*fit[:1], length == len(text), *fit[2:]]
            for byte in text[length : length + 1]:
                matcher.take(pieces.index(bytes([byte]), 2))
                truth.consume_token(byte)


def test_a_vocabulary_that_cannot_write_it_is_told() -> None:
    with closing(Followers(Vocabulary([b"a", b"x"], []))) as followers:
        matcher = Matcher(of("gbnf", 'root ::= "ab"'), followers)
        assert matcher.allowed().tolist() == [True, False]
        matcher.take(0)
        with pytest.raises(RequestError, match="no token for what must come next"):
            matcher.allowed()


def test_in_a_free_text_control_tokens_may_stand_and_in_a_call_not(letters: Followers) -> None:
    grammar = free_or_calls(HERMES, calls_grammar(HERMES, Tools([{"function": {"name": "now"}}])))
    free, held = (Matcher(grammar, letters, free=free) for free in (True, False))
    assert (free.allowed()[[97, 256, 257, 258]].tolist()) == [True] * 4
    assert (held.allowed()[[97, 256, 257, 258]].tolist()) == [True, True, False, True]
    for token in (257, 97, 258):
        free.take(token)
    assert np.flatnonzero(free.allowed()).tolist() == [ord("\n")]


def test_drafted_tokens_are_told_from_others(letters: Followers) -> None:
    matcher = Matcher(of("pattern", "a+b"), letters, begun="a")
    assert [matcher.fitting(list(draft)) for draft in (b"aab", b"abb", b"x", b"")] == [3, 2, 0, 0]
    assert np.flatnonzero(matcher.allowed()).tolist() == [*b"ab"]  # it stands where it stood
    matcher.take(ord("b"))
    assert matcher.ended


DOUBLED: Any = {"30": {"type": "object"}} | {
    f"{i}": {"properties": {name: {"allOf": [{"$ref": f"#/$defs/{i + 1}"}, {"type": "object"}]} for name in "ab"}}
    for i in range(30)
}
# What llguidance has no bound on: it would end the process by its stack or its memory, or work on for minutes.
HOSTILE = {
    "a chain of rules": ("gbnf", "\n".join(["root ::= a0 | \"(\" root", *(f"a{i} ::= a{i + 1}" for i in range(4000)),
                                            'a4000 ::= "x"'])),
    "repeated ways": ("pattern", ".*" * 20_000),
    "references doubled": ("schema", json.dumps({"$ref": "#/$defs/0", "$defs": DOUBLED})),
    "a multiple": ("schema", '{"type": "integer", "multipleOf": 1000003}'),
    "properties times ways": ("schema", json.dumps(
        {"properties": {f"a{i}": {} for i in range(4000)}, "anyOf": [True] * 6000}, separators=(",", ":"))),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_llguidance_cannot_bear_is_told_and_others_go_on(letters: Followers, name: str) -> None:
    other = Matcher(of("pattern", "a+b"), letters)
    kind, source = HOSTILE[name]
    with pytest.raises(RequestError, match="too large or too ambiguous"):
        Matcher(of(kind, source), letters)
    other.take(ord("a"))
    assert other.allowed()[ord("b")]


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("gbnf", 'root ::= ((("a"{0,2000}){0,2000}){0,2000}){0,2000}'),
        ("gbnf", 'root ::= ((("a"{0,2000}){0,2000}){0,2000}){0,2000} | "(" root ")"'),
        ("pattern", "((a{0,1000}){0,1000}){0,1000}"),
    ],
)
def test_one_that_grows_ends_in_the_end(letters: Followers, kind: str, source: str) -> None:
    matcher = Matcher(of(kind, source), letters)

    def follow() -> None:
        for _ in range(1_000):
            assert matcher.allowed()[ord("a")]
            matcher.take(ord("a"))

    with pytest.raises(RequestError, match="too large or too ambiguous"):
        follow()


def test_processes_end_with_their_answers_and_start_anew() -> None:
    followers = Followers(Vocabulary([b"a", b"b"], []))
    with closing(followers):
        matcher = Matcher(of("pattern", "a+b"), followers)
        process = followers._process
        assert process
        process.kill()
        process.wait()
        matcher.take(0)
        assert matcher.allowed().tolist() == [True, True]
        assert Matcher(of("pattern", "b"), followers).allowed().tolist() == [False, True]
        started = psutil.Process(cast(Any, followers._process).pid)
        psutil.wait_procs(started.children(), timeout=60)
        assert started.children() == []


def test_tools_too_large_to_be_followed_are_not_held_to_unless_they_must_be(model: LlamaModel) -> None:
    large = {"type": "object", "properties": {"x": {"$ref": "#/$defs/0"}}, "$defs": DOUBLED}
    function = {"name": "large", "parameters": large}

    def matcher(**asked: Any) -> Matcher | None:
        schema = {"type": "function", "function": function | asked.pop("function", {})}
        return start_matcher(None, Chat(HI, tools=Tools([schema], **asked)), model, Thinking(), HERMES)

    assert matcher() is None
    for asked in ({"required": True}, {"function": {"strict": True}}):
        with pytest.raises(RequestError, match="too large") as raised:
            matcher(**asked)
        assert raised.value.param == "tools"


LLAMA_3 = CallFormat("", "", r'\{"name": "', '", "parameters": ', None, r"\}",
                     '{"name": "find_sum", "parameters": {"of_these": "5 and 6"}}', True, CallForm(), True)  # fmt: skip
NOW: Any = Tools([{"type": "function", "function": {"name": "now"}}])


@pytest.mark.parametrize(
    ("kind", "source", "text"),
    [("pattern", r"-?\d+", "-12"), ("gbnf", 'root ::= [a-z]+ "."', "so."), ("choice", '["yes", "no"]', "no")],
)
def test_calls_without_a_mark_go_beside_what_begins_otherwise(
    model: LlamaModel, kind: Any, source: str, text: str
) -> None:
    for said in (text, '{"name": "now", "parameters": {}}'):
        matcher = start_matcher(Form(kind, source, kind), Chat(HI, tools=NOW), model, Thinking(), LLAMA_3)
        assert matcher
        assert matcher.fitting(list(said.encode())) == len(said)


@pytest.mark.parametrize(("kind", "source"), [("pattern", ".*"), ("gbnf", 'root ::= "{" [0-9]+ "}"')])
def test_what_may_begin_as_calls_without_a_mark_do_is_refused_beside_them(
    model: LlamaModel, kind: Any, source: str
) -> None:
    with pytest.raises(RequestError, match=r"an answer of it may begin with \{, as this model's calls do") as raised:
        start_matcher(Form(kind, source, kind), Chat(HI, tools=NOW), model, Thinking(), LLAMA_3)
    assert raised.value.param == kind


def answers(model: LlamaModel, samplings: list[Sampling], messages: Any = HI) -> list[list[Piece]]:
    """The pieces of several answers that are given at once."""
    told: list[list[Piece]] = [[] for _ in samplings]
    turns = [Turn("m", messages, how, pieces.append) for how, pieces in zip(samplings, told, strict=True)]  # type: ignore[arg-type]
    for turn in turns:
        turn.prepare(model, drop_oldest=False)
    list(Batch(model).run_all(turns))
    return told


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_is_valid_and_ends_by_itself(model: LlamaModel, temperature: float) -> None:
    for seed in range(5):
        how = Sampling(max_tokens=400, temperature=temperature, seed=seed, form=FORM)
        (pieces,) = answers(model, [how])
        value = json.loads(text_of(pieces))
        assert list(value) == ["name", "kinds", "open"]
        assert len(value["name"]) <= 4
        assert all(kind in ("big", "small", 7) for kind in value["kinds"])
        assert pieces[-1].finish == "stop"


def test_answers_of_forms_in_company_are_those_given_alone(model: LlamaModel) -> None:
    forms = [FORM, None, Form("gbnf", 'root ::= [a-z]{5,40} "."', "grammar"), Form("object", "", "response_format")]
    hows = [
        Sampling(max_tokens=60, temperature=temperature, seed=3, form=form, frequency_penalty=0.2)
        for form in forms
        for temperature in (0, 1)
    ]
    alone = [text_of(answers(model, [how])[0]) for how in hows]
    assert [text_of(pieces) for pieces in answers(model, hows)] == alone
    assert len(set(alone)) > len(forms)


def test_an_answer_that_is_cut_says_so(model: LlamaModel) -> None:
    (pieces,) = answers(model, [Sampling(max_tokens=5, temperature=0, form=FORM)])
    assert (pieces[-1].finish, len(text_of(pieces))) == ("length", 5)


def test_what_is_told_of_a_token_is_the_models_own(model: LlamaModel) -> None:
    free, held = answers(model, [Sampling(3, 0, logprobs=2), Sampling(3, 0, logprobs=2, form=FORM)])
    assert free[0].scored
    assert held[0].scored
    assert free[0].scored.likeliest == held[0].scored.likeliest
    assert held[0].scored.piece == b"{"
    assert np.isfinite(held[0].scored.logprob)


def test_one_that_grows_too_ambiguous_ends_and_the_others_go_on(model: LlamaModel) -> None:
    ambiguous = Form("gbnf", 'root ::= ((("a"{0,2000}){0,2000}){0,2000}){0,2000}', "grammar")
    hows = [
        Sampling(200, 1, seed=1, form=ambiguous, logit_bias=((ord("a"), 100.0),)),
        Sampling(200, 1, seed=1, form=FORM),
    ]
    told = answers(model, hows)
    assert isinstance(told[0][-1], RequestError)
    assert "too ambiguous" in str(told[0][-1])
    assert json.loads(text_of(told[1]))


def test_the_beginning_of_a_turn_that_is_gone_on_with_counts(model: LlamaModel) -> None:
    begun = Chat([*HI, {"role": "assistant", "content": '{"name":"a",'}], goes_on=True)
    (pieces,) = answers(model, [Sampling(400, 0, form=FORM)], begun)
    assert json.loads('{"name":"a",' + text_of(pieces))["name"] == "a"
    other = Chat([*HI, {"role": "assistant", "content": "Sure:"}], goes_on=True)
    with pytest.raises(RequestError, match="no beginning of such an answer") as raised:
        answers(model, [Sampling(400, 0, form=FORM)], other)
    assert raised.value.param == "response_format"


def test_what_is_thought_before_is_free(tmp_path: Path) -> None:
    template = CHAT_TEMPLATE + "{%- if add_generation_prompt %}{{- '<think>\\n' }}{%- endif %}"
    with LlamaModel(write_random(tmp_path / "thinks.gguf", template=template), 512, threads=1) as model:
        (pieces,) = answers(model, [Sampling(30, 1, seed=0, form=FORM)])
        assert pieces[-1].thinking.within
        assert not text_of(pieces).startswith("{")
        bias = tuple((byte, 100.0) for byte in b"</think>")
        (pieces,) = answers(model, [Sampling(400, 1, seed=0, form=FORM, logit_bias=bias)])
        said = list(text_of(pieces).encode())
        assert by_bytes(after_thoughts(TAGS, read_form(FORM), within=True)).try_consume_tokens(said) == len(said)


@pytest.mark.parametrize(
    ("form", "why"),
    [
        (Form("schema", json.dumps({"type": "array", "items": {"not": {}}}), "schema"), "schema.items.not"),
        (Form("gbnf", 'root ::= "a" nowhere', "grammar"), "grammar"),
        (Form("pattern", "(?=a)b", "guided_regex"), "guided_regex"),
        (Form("schema", '{"enum": []}', "schema"), "schema"),
        (Form("choice", json.dumps(["a" * n for n in range(1, 450)]), "guided_choice"), "guided_choice"),
    ],
)
def test_a_form_that_cannot_be_held_to_is_told_by_its_field(model: LlamaModel, form: Form, why: str) -> None:
    with pytest.raises(RequestError) as raised:
        answers(model, [Sampling(form=form)])
    assert raised.value.param == why
