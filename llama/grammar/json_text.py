"""JSON as grammars: values of any kind, and the parts that schemas put together."""

import json

from llama.grammar.expressions import (
    Chars,
    Choice,
    Expression,
    Grammar,
    Ranges,
    Repeat,
    Row,
    Rule,
    Text,
    among,
    choice,
    joined,
    maybe,
    others,
    repeated,
    row,
)
from llama.grammar.numbers import DIGITS

SPACE = maybe(" ")  # no more white space than json.dumps writes: models run on in it
COLON, COMMA = row(":", SPACE), row(",", SPACE)
HEX = among("0-9", "a-f", "A-F")
ESCAPED = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}  # characters that a string has so alone
PLAIN: Ranges = others([(0, 0x1F), *((ord(char), ord(char)) for char in ESCAPED)])
# Not halves of a pair, which alone are no character.
NO_D = among("0-9", "a-c", "e-f", "A-C", "E-F")
UNICODE = row("u", Choice((row(NO_D, HEX), row(among("d", "D"), among("0-7")))), HEX, HEX)
ESCAPE = row("\\", Choice((Chars(joined((ord(char), ord(char)) for char in '"\\/bfnrt')), UNICODE)))
INTEGER = row(maybe("-"), choice(["0", row(among("1-9"), Repeat(among("0-9"), 0, DIGITS))]))
EXPONENT = row(among("e", "E"), maybe(among("-", "+")), Repeat(among("0-9"), 1, 2))
BOOLEAN, NULL = choice(["true", "false"]), Text("null")

# Rules of ANY_JSON, which stands beside whatever has them.
CHARACTER, STRING, NUMBER = Rule("json character"), Rule("json string"), Rule("json number")
VALUE, OBJECT, ARRAY = Rule("json value"), Rule("json object"), Rule("json array")
PAIR = row(STRING, COLON, VALUE)
ANY_JSON: Grammar = {
    CHARACTER.name: Choice((Chars(PLAIN), ESCAPE)),
    STRING.name: row('"', Repeat(CHARACTER), '"'),
    NUMBER.name: row(INTEGER, maybe(".", Repeat(among("0-9"), 1, DIGITS)), maybe(EXPONENT)),
    VALUE.name: Choice((OBJECT, ARRAY, STRING, NUMBER, BOOLEAN, NULL)),
    OBJECT.name: row("{", repeated(PAIR, COMMA, 0, None), "}"),
    ARRAY.name: row("[", repeated(VALUE, COMMA, 0, None), "]"),
}


def constant(value: object) -> Expression:
    """Return a value as it is written, with or without the spaces."""
    match value:
        case dict():
            pairs = [row(Text(json.dumps(key, ensure_ascii=False)), COLON, constant(of)) for key, of in value.items()]
            return row("{", _listed(pairs), "}")
        case list():
            return row("[", _listed([constant(item) for item in value]), "]")
    return Text(json.dumps(value, ensure_ascii=False))


def _listed(parts: list[Row] | list[Expression]) -> Row:
    return row(*(row(COMMA, part) if place else part for place, part in enumerate(parts)))


def in_string(expression: Expression) -> Expression:
    """Return what a string has between its quotes where its text is what the expression says."""
    match expression:
        case Text(text):
            return Text("".join(ESCAPED.get(char, char) for char in text))
        case Chars(ranges):
            plain = others([*others(ranges), *others(PLAIN)])
            escaped = [way for char, way in ESCAPED.items() if any(a <= ord(char) <= b for a, b in ranges)]
            return choice([Chars(plain), *escaped]) if plain else choice(escaped)
        case Row(parts):
            return Row(tuple(map(in_string, parts)))
        case Choice(parts):
            return Choice(tuple(map(in_string, parts)))
        case Repeat(part, least, most):
            return Repeat(in_string(part), least, most)
    return expression


def key_but(names: list[str]) -> Expression:
    """Return a key of an object that is none of these, without escapes, by which it could be one after all."""
    return row('"', _but([name for name in names if not set(name) & set(ESCAPED)]), '"')


def _but(names: list[str]) -> Expression:
    firsts = sorted({name[0] for name in names if name})
    other = Chars(others([*others(PLAIN), *((ord(char), ord(char)) for char in firsts)]))
    ways: list[Expression] = [row(other, Repeat(Chars(PLAIN)))]
    ways += [row(char, _but([name[1:] for name in names if name[:1] == char])) for char in firsts]
    return Choice(tuple(ways)) if "" in names or not names else choice([*ways, Text("")])
