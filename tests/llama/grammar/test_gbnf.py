"""llama.cpp's form of grammars: what it has, and how what is none is told."""

import pytest
from drawn_texts import drawn, fits

from llama.errors import RequestError
from llama.grammar.gbnf import gbnf_grammar

ARITHMETIC = r"""
# as a comment says
root ::= (expr "=" ws term "\n")+
expr ::= term ([-+*/] term)*
term ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws   # another
num ::= [0-9]{1,3} ws
ws ::= [ \t]*
"""


@pytest.mark.parametrize(
    ("grammar", "fitting", "others"),
    [
        (ARITHMETIC, ["1+x_2 = 3\n", "(a-1)*2=b\nc=4\n"], ["", "1+=3\n", "1234=x\n", "1=2"]),
        ('root ::= "yes" |\n "no"', ["yes", "no"], ["yesno"]),
        ("root ::= (\n  [a-c]\n  | [^a-z]\n)+", ["ab", "A1é", "b "], ["d", ""]),
        (r'root ::= "\"\\\x41\u00e9\U0001F600\n/"', ['"\\Aé😀\n/'], ["A"]),
        (r"root ::= [\]\-\[x/&~^-]", ["]", "-", "[", "x", "/", "&", "~", "^"], ["\\", "y"]),
        ("root ::= [z-a]? [^] | []", ["\n"], ["z\n", ""]),
        ("root ::= .{2,}", ["aé", "\n\n\n"], ["a"]),
        ('root ::= "a"{2} "b"{0,2} "c"?', ["aa", "aabbc"], ["a", "aabbb"]),
        ('root ::= "ab"+ "c"{0}', ["abab"], ["abb", "abc"]),
        ("root ::= ab-1\nab-1 ::= [0-9]", ["5"], ["55"]),
        ("root ::= ", [""], ["x"]),
        ("root ::= " + "(" * 99 + '"a"' + ")*" * 99, ["", "aa"], ["b"]),
        ('root ::= "a"\nroot ::= "b"', ["b"], ["a"]),  # the later one, as in llama.cpp
        ('root ::= root "x" | "y"', ["y", "yxx"], ["x", ""]),  # llama.cpp refuses it
        ('root ::= one\none ::= two one "x" | "y"\ntwo ::= three\nthree ::= ""', ["yx"], ["x"]),  # and hangs here
        ('root ::= ("a"? | "(" root ")")*', ["", "aa(a)"], ["(a"]),
    ],
)
def test_grammars_are_read(grammar: str, fitting: list[str], others: list[str]) -> None:
    rules = gbnf_grammar(grammar, "grammar")
    assert [text for text in fitting if not fits(rules, text)] == []
    assert [text for text in others if fits(rules, text)] == []


@pytest.mark.parametrize("nesting", ["", ' | "(" root ")"'])
@pytest.mark.parametrize(
    ("root", "fitting", "others"),
    [
        ('[a-z]+ "foo"', ["xfoo", "foofoo", "afoofoo"], ["foo", "xfo"]),
        ('("a" | "ab") ("c" | "bd")', ["ac", "abd", "abc", "abbd"], ["abb"]),
        ('"<" [^>]* ">" | "<b" [0-9]', ["<b1", "<b1>", "<x>"], ["<b", "<x"]),
        ('"x" [ ]* ("y" | " z")', ["xy", "x y", "x z", "x   z"], ["xz"]),
    ],
)
def test_a_text_that_may_be_cut_in_several_ways_is_one_whichever_is_right(
    root: str, fitting: list[str], others: list[str], nesting: str
) -> None:
    test_grammars_are_read(f"root ::= ({root}){nesting}", fitting, others)


def test_what_is_drawn_fits() -> None:
    grammar = gbnf_grammar(ARITHMETIC, "grammar")
    found = list(drawn(grammar, 20))
    assert found
    assert all(fits(grammar, text) for text in found)


@pytest.mark.parametrize(
    ("grammar", "why"),
    [
        ("", "no rule named root"),
        ('start ::= "a"', "no rule named root"),
        ('root ::= "a" nowhere', "no rule named nowhere"),
        ('root = "a"', "line 1 of the grammar lacks a ::="),
        ('\nroot ::= "a', "line 2 of the grammar ends too early"),
        ("root ::= [a-", "ends too early"),
        ('root ::= ("a"', r"lacks a \)"),
        ('root ::= "a")', "expects the end of the rule"),
        ("root ::= *", "repeats nothing"),
        ('root ::= "a"{x}', "a repetition that is none"),
        ('root ::= "a"{3,2}', "a repetition that is none"),
        ('root ::= "a"{100000}', "or over 2000"),
        (r'root ::= "\q"', r"an escape that is none: \\q"),
        (r'root ::= "\UFFFFFFFF"', "an escape that is none"),
        (r'root ::= "\ud800"', "an escape that is none"),
        ("root ::= <|eot_id|>", "has a token"),
        ("root ::= " + "(" * 5_000 + '"a"' + ")" * 5_000, "more than 100 deep"),
        ('root ::= "a"' + "*" * 100, "repeats a repetition"),
        ("?", "expects a rule's name"),
    ],
)
def test_what_is_none_is_told_with_its_line(grammar: str, why: str) -> None:
    with pytest.raises(RequestError, match=why) as raised:
        gbnf_grammar(grammar, "grammar")
    assert raised.value.param == "grammar"
