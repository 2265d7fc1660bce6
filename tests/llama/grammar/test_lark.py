"""Grammars as llguidance is told them: patterns held against Python's own, texts up to marks, many texts."""

import json
import re

import pytest
from drawn_texts import drawn, fits, reader

from llama.grammar.forms import after_thoughts, read_form
from llama.grammar.lark import START, Grammar
from llama.thought_format import TAGS
from llama.types import Form

PATTERNS = [
    r"[a-z]+@x\.(com|org)",
    r"\d{3}-\w{1,4}",
    r"(ab|c){2,3}?d*",
    r"[^a-z\n]{2}",
    r"a|b[0-9]|",
    r"[\d._-]+x{0,2}",
    r"\u00e9\x41[\t ]",
    r"(?:no|not) \$5\.00 \{x\}",
    r'{"a": [1-3]{1,2}, "b": {}}',
    "[\n#]\\/ ?\n",
]
EMPTY = Grammar({START: '"{}"'})


def of(kind: str, source: str) -> Grammar:
    return read_form(Form(kind, source, "form"))  # type: ignore[arg-type]


@pytest.mark.parametrize("text", PATTERNS)
def test_what_is_drawn_fits_as_python_has_it(text: str) -> None:
    found = list(drawn(of("pattern", text), 30, longest=200))
    assert found
    assert [each for each in found if not re.fullmatch(text, each, re.ASCII)] == []


@pytest.mark.parametrize(
    ("text", "fitting", "others"),
    [
        ("^ab$", ["ab"], ["xab", "abx"]),
        ("ab|cd", ["ab", "cd"], ["abcd", "ad"]),
        ("", [""], ["a"]),
        (r"[a&&b[]{2}[~/]/", ["a&~/", "[b//"], ["a&"]),
    ],
)
def test_a_pattern_is_of_a_whole_text(text: str, fitting: list[str], others: list[str]) -> None:
    rules = of("pattern", text)
    assert [each for each in fitting if not fits(rules, each)] == []
    assert [each for each in others if fits(rules, each)] == []


def test_many_texts_are_one_lexeme() -> None:
    words = [f"{number:04d}-{number % 7}" for number in range(1_000)] + ["", "0", "0001", '"\\\x7f\n😀']
    reads = reader(of("choice", json.dumps(words)))
    assert all(map(reads, words))
    assert not reads("0001-2")


@pytest.mark.parametrize(
    ("text", "within", "opened"),
    [
        ("{}", False, True),
        ("<think>so</think>\n\n{}", True, True),
        ("so {</think>{}", True, False),
        ("</thin</think>{}", True, False),
        ("<</</think>{}", True, False),
        ("</think></think>{}", False, False),
        ("{}x", False, False),
    ],
)
def test_an_answer_is_of_its_form_after_what_is_thought(text: str, within: bool, opened: bool) -> None:
    assert fits(after_thoughts(TAGS, EMPTY, within=True), text) == within
    assert fits(after_thoughts(TAGS, EMPTY, within=False), text) == opened
