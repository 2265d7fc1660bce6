"""The tokens that a form lets through, and answers that are drawn under it, alone and in company."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_gguf import CHAT_TEMPLATE, write_random

from llama.batch import Batch
from llama.call_format import HERMES
from llama.errors import RequestError
from llama.grammar.automaton import DEAD, Automaton
from llama.grammar.calls import FREE, calls_grammar, free_or_calls
from llama.grammar.forms import START, after_thoughts, read_form, start_matcher
from llama.grammar.gbnf import read_gbnf
from llama.grammar.json_text import ANY_JSON, OBJECT
from llama.grammar.matcher import Matcher, Pieces
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


def test_tokens_let_through_are_those_that_lead_on() -> None:
    rng = random.Random(0)
    text = '{"aé😀b": [1.5, -2e3, true, null, "\\u00e9\\n"], "":{}}'.encode()
    cut = [text[start : start + rng.randrange(1, 9)] for start in range(len(text)) for _ in range(4)]
    pieces = [b"", b"<eos>", *cut, *(bytes([byte]) for byte in range(256)), b"  ", b"\xff\xfe", b"}}}}"]
    automaton = Automaton({"root": OBJECT, **ANY_JSON})
    told = Pieces(pieces, {1})
    for length in range(len(text) + 1):
        state = automaton.after(automaton.start, text[:length])
        fit = [automaton.after(state, piece) != DEAD if piece else False for piece in pieces]
        fit[1] = length == len(text)
        assert told.fitting(automaton, state).tolist() == fit


def test_a_vocabulary_that_cannot_write_it_is_told() -> None:
    matcher = Matcher(Automaton(read_gbnf('root ::= "ab"', "grammar")), Pieces([b"a", b"x"], set()))
    assert matcher.allowed().tolist() == [True, False]
    assert matcher.take(b"a")
    with pytest.raises(RequestError, match="no token for what must come next"):
        matcher.allowed()


def test_in_a_free_text_control_tokens_may_stand_and_in_a_call_not() -> None:
    grammar = {**free_or_calls(HERMES), **calls_grammar(HERMES, Tools([{"function": {"name": "now"}}]))}
    pieces = Pieces([b"", b"a", b"<tool_call>", b"\n"], [])
    free, held = (Matcher(Automaton(grammar, FREE), pieces, free) for free in (True, False))
    assert (free.allowed().tolist(), held.allowed().tolist()) == ([True] * 4, [False, True, True, True])
    assert free.take(b"")
    assert free.take(b"a<tool_call>")
    assert free.allowed().tolist() == [False, False, False, True]


def test_tools_too_large_to_be_followed_are_not_held_to_unless_they_must_be(model: LlamaModel) -> None:
    parameters = {"type": "object", "properties": {"x": {"type": "string", "enum": ["y" * 60_000, "z" * 60_000]}}}
    function = {"name": "large", "parameters": parameters}

    def matcher(**asked: Any) -> Matcher | None:
        schema = {"type": "function", "function": function | asked.pop("function", {})}
        return start_matcher(None, Chat(HI, tools=Tools([schema], **asked)), model, Thinking(), HERMES)

    assert matcher() is None
    for asked in ({"required": True}, {"function": {"strict": True}}):
        with pytest.raises(RequestError, match="too large") as raised:
            matcher(**asked)
        assert raised.value.param == "tools"


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
    ambiguous = 'root ::= "a" root x | "a" root y | "a"\nx ::= "b" root\ny ::= "b" "c"? root'
    hows = [Sampling(200, 1, seed=1, form=Form("gbnf", ambiguous, "grammar")), Sampling(200, 1, seed=1, form=FORM)]
    hows[0] = Sampling(200, 1, seed=1, form=hows[0].form, logit_bias=((ord("a"), 100.0),))
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
        grammar = {**read_form(FORM), **after_thoughts(TAGS, within=True)}
        automaton = Automaton(grammar, START)
        (pieces,) = answers(model, [Sampling(400, 1, seed=0, form=FORM, logit_bias=bias)])
        assert automaton.after(automaton.start, text_of(pieces).encode()) != DEAD


@pytest.mark.parametrize(
    ("form", "why"),
    [
        (Form("schema", json.dumps({"type": "array", "items": {"not": {}}}), "schema"), "schema.items.not"),
        (Form("gbnf", "root ::= " + '"a" ' * 30_000, "grammar"), "grammar"),
        (Form("choice", json.dumps(["a" * n for n in range(1, 440)]), "guided_choice"), "guided_choice"),
    ],
)
def test_a_form_that_cannot_be_held_to_is_told_by_its_field(model: LlamaModel, form: Form, why: str) -> None:
    with pytest.raises(RequestError) as raised:
        answers(model, [Sampling(form=form)])
    assert raised.value.param == why
