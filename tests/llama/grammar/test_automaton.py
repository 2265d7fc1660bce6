"""Grammars followed byte by byte, whoever wrote them."""

import pytest
from drawn_texts import drawn, fits

from llama.errors import RequestError
from llama.grammar.automaton import DEAD, Automaton, utf8
from llama.grammar.expressions import Choice, Grammar, Repeat, Rule, Text, among, choice, row, texts
from llama.grammar.forms import after_thoughts
from llama.grammar.gbnf import read_gbnf
from llama.grammar.marks import until
from llama.thought_format import TAGS

NESTED: Grammar = {
    "root": row("a", Repeat(among("b-d"), 2, 4), Rule("inner")),
    "inner": choice(["é", row("(", Rule("inner"), ")"), "😀"]),
}


@pytest.mark.parametrize(
    ("text", "fit"),
    [("abbé", True), ("abb((é))", True), ("abcdb😀", True), ("abé", False), ("abbbbbé", False), ("abb((é)", False)],
)
def test_texts_are_told_from_others(text: str, fit: bool) -> None:
    assert fits(NESTED, text) == fit


@pytest.mark.parametrize(("first", "last"), [(0, 0x10FFFF), (0x41, 0x5A), (0x7F, 0x80), (0x7FE, 0x10001), (0xE9, 0xE9)])
def test_characters_are_their_bytes(first: int, last: int) -> None:
    def spelt(character: int) -> bool:
        text = chr(character).encode()
        return any(
            len(sets) == len(text) and all(members >> byte & 1 for members, byte in zip(sets, text, strict=True))
            for sets in utf8(first, last)
        )

    for character in {0, first - 1, first, last, last + 1, 0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFF, 0x10000}:
        if 0 <= character <= 0x10FFFF:
            assert spelt(character) == (first <= character <= last), hex(character)


@pytest.mark.parametrize(
    ("grammar", "why"),
    [
        ('root ::= root "x" | "y"', "'root' begins with itself"),
        ('root ::= one\none ::= two "x" | "y"\ntwo ::= one', "begins with itself"),
        (
            'root ::= one\none ::= two one "x" | "y"\ntwo ::= three\nthree ::= ""',
            "'one' begins with itself",
        ),  # llama.cpp goes on for ever
        ('root ::= ("a"?)*', "repeats what may be empty"),
        ('root ::= "a" root', "no text come to an end"),
        ('root ::= "a" nowhere', "no rule 'nowhere'"),
        ("root ::= " + '"a"{2000} ' * 60, "too large"),
        ('root ::= "a" root x | "a" root y | "a"\nx ::= "b"\ny ::= "b"', "too ambiguous"),
    ],
)
def test_a_grammar_that_cannot_be_followed_is_refused(grammar: str, why: str) -> None:
    with pytest.raises(RequestError, match=why):
        fits(read_gbnf(grammar, "grammar"), "a" * 40)


def test_repetitions_of_repetitions_are_followed() -> None:
    automaton = Automaton(read_gbnf('root ::= ("a"{100}){2000}', "grammar"))
    assert automaton.after(automaton.start, b"a" * 5_000) != DEAD


def test_ways_without_end_are_left_out() -> None:
    grammar: Grammar = {"root": choice([row("a", Rule("endless")), "b"]), "endless": row("c", Rule("endless"))}
    assert set(drawn(grammar, 20)) == {"b"}


def test_many_texts_are_one_way_each() -> None:
    words = [f"{number:04d}-{number % 7}" for number in range(1_000)] + ["", "0", "0001"]
    automaton = Automaton({"root": texts(words)})
    assert all(automaton.is_end(automaton.after(automaton.start, word.encode())) for word in words)
    assert automaton.after(automaton.start, b"0001-2") == DEAD


@pytest.mark.parametrize("text", ["no mark</think>", "</thin</think>", "<</</think></think>", "", "</think>x"])
def test_a_text_goes_up_to_its_mark(text: str) -> None:
    rules = {"root": Rule("</think> 0"), **until("</think>")}
    assert fits(rules, text) == (text.find("</think>") == len(text) - len("</think>") >= 0)


@pytest.mark.parametrize(
    ("text", "within", "opened"),
    [
        ("{}", False, True),
        ("<think>so</think>\n\n{}", True, True),
        ("so {</think>{}", True, False),
        ("{}x", False, False),
    ],
)
def test_an_answer_is_of_its_form_after_what_is_thought(text: str, within: bool, opened: bool) -> None:
    for begun in (True, False):
        automaton = Automaton({"root": Text("{}"), **after_thoughts(TAGS, begun)}, "thoughts and answer")
        state = automaton.after(automaton.start, text.encode())
        assert (state != DEAD and automaton.is_end(state)) == (within if begun else opened)


def test_nothing_is_no_text() -> None:
    with pytest.raises(RequestError, match="no text come to an end"):
        Automaton({"root": row("a", Choice(()))})
