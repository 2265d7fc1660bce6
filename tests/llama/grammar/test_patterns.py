"""Regular expressions as grammars, held against Python's own."""

import re
from datetime import date, datetime
from uuid import UUID

import pytest
from drawn_texts import drawn, fits

from llama.errors import RequestError
from llama.grammar.json_text import in_string
from llama.grammar.patterns import FORMATS, pattern

PATTERNS = [
    r"[a-z]+@x\.(com|org)",
    r"\d{3}-\w{1,4}",
    r"(ab|c){2,3}?d*",
    r"[^a-z\n]{2}",
    r"a|b[0-9]|",
    r"[\d._-]+x{0,2}",
    r"\u00e9\x41[\t ]",
    r"(?:no|not) \$5\.00 \{x\}",
]


@pytest.mark.parametrize("text", PATTERNS)
def test_what_is_drawn_fits_as_python_has_it(text: str) -> None:
    found = list(drawn({"root": pattern(text, "p")}, 30, longest=200))
    assert found
    assert [each for each in found if not re.fullmatch(text, each, re.ASCII)] == []


@pytest.mark.parametrize(
    ("text", "fitting", "others"),
    [
        ("^ab$", ["ab"], ["xab", "abx"]),
        ("ab", ["ab", "xab", "abx"], ["a", "ba"]),
        ("^a|b$", ["a", "ax", "xb", "b"], ["xa", "bx"]),
    ],
)
def test_a_pattern_without_ends_is_of_a_part(text: str, fitting: list[str], others: list[str]) -> None:
    rules = {"root": pattern(text, "p", anchored=False)}
    assert [each for each in fitting if not fits(rules, each)] == []
    assert [each for each in others if fits(rules, each)] == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("(", r"lacks a \)"),
        (")", r"a \) too many"),
        ("[a", "ends too early"),
        ("*", "repeats nothing"),
        ("a**", "repeats a repetition"),
        ("a{2,1}", "a repetition that is none"),
        ("a{99999}", "over 10000"),
        ("[z-a]", "a range that is none"),
        (r"[\d-z]", "a range that is none"),
        ("a^b", r"has a \^ within"),
        ("(a$)", r"has a \$ within"),
        ("(?=a)b", "looks around"),
        ("(?P<n>a)", "is named"),
        (r"(a)\1", "is not supported"),
        (r"\bx", "is not supported"),
        (r"\x4", "without 2 digits"),
        ("(" * 200 + ")" * 200, "more than 100 deep"),
    ],
)
def test_what_is_none_is_told_with_its_place(text: str, why: str) -> None:
    with pytest.raises(RequestError, match=why) as raised:
        pattern(text, "p")
    assert raised.value.param == "p"


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_drawn_of_a_format_is_of_it(name: str) -> None:
    reads = {
        "date": date.fromisoformat,
        "date-time": datetime.fromisoformat,
        "uuid": UUID,
        "time": lambda text: datetime.fromisoformat(f"2000-01-01T{text}"),
    }
    found = list(drawn({"root": pattern(FORMATS[name], "p")}, 30))
    assert len(found) > 20
    for text in found:
        assert re.fullmatch(FORMATS[name], text)
        assert name not in reads or reads[name](text) is not None


def test_within_quotes_what_must_be_is_escaped() -> None:
    rules = {"root": in_string(pattern(r'["\\\n]x.', "p"))}
    assert fits(rules, r"\"x\\")
    assert fits(rules, r"\nxé")
    assert not fits(rules, '"x.')
