"""JSON schemas as grammars: what is drawn is valid, what is valid can be written, and the rest is refused by name."""

import json
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from drawn_texts import drawn, fits, reader
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from llama.errors import RequestError
from llama.grammar.automaton import Automaton
from llama.grammar.json_text import ANY_JSON, OBJECT
from llama.grammar.numbers import Bound, integers, numbers
from llama.grammar.schema import schema_grammar

DRAWN = 40
NESTED: Any = {
    "$ref": "#/$defs/t",
    "$defs": {"t": {"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#/$defs/t"}}]}},
}


class Node(BaseModel):
    model_config = ConfigDict(extra="forbid")
    value: Annotated[int, Field(ge=-3, lt=120)]
    children: Annotated[list["Node"], Field(max_length=2)] = []
    after: "Node | None" = None


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: Annotated[int, Field(gt=0, le=9)]


class Dog(BaseModel):
    kind: Literal["dog"]
    name: Annotated[str, Field(min_length=1, max_length=5)]


class Everything(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    code: Annotated[str, Field(pattern=r'^[A-Z]{2}"\d\\$')]
    score: Annotated[float, Field(ge=0, le=1)]
    above: Annotated[float, Field(gt=-1.5)]
    pair: tuple[int, Literal["a", 3, None, True]]
    table: dict[str, bool]
    tags: Annotated[list[Literal["x", "y"]], Field(min_length=1, max_length=3)]
    free: dict[str, Any] | None


@pytest.mark.parametrize("kind", [Node, Everything, list[Node], dict[str, Cat | None], int | str | None])
def test_what_is_drawn_is_valid(kind: Any) -> None:
    reader = TypeAdapter(kind)
    found = list(drawn(schema_grammar(reader.json_schema(), "schema"), DRAWN))
    assert len(found) > DRAWN // 4
    for text in found:
        reader.validate_json(text)


def test_any_json_is_json() -> None:
    found = list(drawn({"root": OBJECT, **ANY_JSON}, DRAWN))
    assert found
    assert all(isinstance(json.loads(text), dict) for text in found)


@pytest.mark.parametrize(
    ("schema", "fitting", "others"),
    [
        ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"const": None}, "c": {}}, "required": ["b"]},
         ['{"b":null}', '{"a": 1, "b": null, "c": [{}]}', '{"b":null,"c":"x"}'],
         ["{}", '{"a":1}', '{"b":null,"a":1}', '{"b":null,}', '{,"b":null}', '{"b":null,"d":1}', "1"]),
        ({"properties": {"ab": {}}, "additionalProperties": {"type": "integer"}},
         ["{}", '{"ab":true,"a":1}', '{"abc":1,"ac":2}', '{"":3}'], ['{"a":true}', '{"x":1,"ab":2}', '{"\\u0061b":1}']),
        ({"required": ["x"], "additionalProperties": {"type": "null"}}, ['{"x":null}'], ["{}", '{"x":1}']),
        ({"type": "object"}, ["{}", '{"a":{"b":[1.5e3]}}'], ["[]", ""]),
        ({}, ["1", "[]", '"x"', "null", "-0.5E-10"], ["01", "1.", "tru", "'x'", '"\n"', '"\\ud800"']),
        (True, ["{}"], [""]),
        ({"title": "T", "description": "D", "default": 1}, ["1"], ["x"]),
        ({"type": ["string", "null"], "maxLength": 2}, ['"é😀"', '"\\n\\u00e9"', "null", '""'], ['"abc"', "1"]),
        ({"enum": ["a\"\\\n", {"k": [1, None]}, 2.5]},
         ['"a\\"\\\\\\n"', '{"k": [1, null]}', '{"k":[1,null]}', "2.5"], ["a"]),
        ({"type": "integer", "enum": [1, "1", 2.0]}, ["1", "2.0"], ['"1"']),
        ({"const": None}, ["null"], ["0"]),
        ({"const": "42"}, ['"42"'], ["42"]),
        ({"items": [{"type": "string"}, {"type": "number"}]}, ['["x",1.5]'], ['["x"]', "[1.5]"]),
        ({"const": "a", "enum": ["a"], "type": "string"}, ['"a"'], ['"b"']),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3},
         ["[true,false]", "[true, true, true]"], ["[]", "[true]", "[true,true,true,true]", "[true true]"]),
        ({"type": "array", "items": False}, ["[]"], ["[1]"]),
        ({"type": "array", "maxItems": 0}, ["[]"], ["[1]"]),
        ({"prefixItems": [{"type": "integer"}, {"const": "x"}], "items": False}, ['[1, "x"]'], ["[1]", '[1,"x",2]']),
        ({"anyOf": [{"type": "integer"}, {"type": "string", "format": "date"}]},
         ["7", '"2024-02-28"'], ['"2024-02-30"']),
        ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, ["7", '"x"'], ["null"]),
        ({"allOf": [{"$ref": "#/$defs/a~1b"}], "$defs": {"a/b": {"type": "null"}}}, ["null"], ["1"]),
        (NESTED, ["null", "[[null],[]]"], ["[1]"]),
        ({"properties": {"a": {"properties": {"b c": {"const": 1}}}, "a b": {"properties": {"c": {"const": 2}}}}},
         ['{"a":{"b c":1},"a b":{"c":2}}'], ['{"a":{"b c":2}}', '{"a b":{"c":1}}']),
        ({"type": "string", "format": "uuid"}, ['"123e4567-e89b-42d3-a456-426614174000"'], ['"x"']),
        ({"type": "integer", "format": "int64", "exclusiveMinimum": 0}, ["1", "900000000000000"], ["0", "-1", "1.5"]),
    ],
)  # fmt: skip
def test_values_are_told_from_others(schema: Any, fitting: list[str], others: list[str]) -> None:
    grammar = schema_grammar(schema, "schema")
    assert [text for text in fitting if not fits(grammar, text)] == []
    assert [text for text in others if fits(grammar, text)] == []


@pytest.mark.parametrize(
    ("schema", "param"),
    [
        ("x", "schema"),
        ({"type": "thing"}, "schema.type"),
        ({"properties": {"a": {"not": {}}}}, "schema.properties.a.not"),
        ({"properties": []}, "schema.properties"),
        ({"required": "a"}, "schema.required"),
        ({"type": "array", "uniqueItems": True}, "schema.uniqueItems"),
        ({"type": "array", "items": {"type": "integer", "multipleOf": 3}}, "schema.items.multipleOf"),
        ({"patternProperties": {"x": {}}}, "schema.patternProperties"),
        ({"if": {}, "then": {}}, "schema.if"),
        ({"minProperties": 1}, "schema.minProperties"),
        ({"type": "string", "format": "iri"}, "schema.format"),
        ({"type": "string", "pattern": "(?=a)"}, "schema.pattern"),
        ({"type": "string", "pattern": "a", "minLength": 3}, "schema.minLength"),
        ({"type": "string", "maxLength": -1}, "schema.maxLength"),
        ({"type": "string", "minLength": 1e9}, "schema.minLength"),
        ({"type": "integer", "minimum": "1"}, "schema.minimum"),
        ({"type": "number", "maximum": 1e300}, "schema.maximum"),
        ({"anyOf": [{"x": 1}]}, "schema.anyOf.0.x"),
        ({"anyOf": [{}], "properties": {}}, "schema.properties"),
        ({"oneOf": [{"type": "object"}, {"type": "object"}]}, "schema.oneOf"),
        ({"oneOf": [{"minimum": 1}, {"maximum": 5}]}, "schema.oneOf"),
        ({"allOf": [{}, {}]}, "schema.allOf"),
        ({"enum": 3}, "schema.enum"),
        ({"$ref": "https://example.org/schema"}, "schema.$ref"),
        ({"$ref": "#/$defs/none"}, "schema.$ref"),
        ({"prefixItems": [{}], "minItems": 2}, "schema.minItems"),
    ],
)  # fmt: skip
def test_what_would_be_passed_over_is_refused_by_its_place(schema: Any, param: str) -> None:
    with pytest.raises(RequestError) as raised:
        schema_grammar(schema, "schema")
    assert raised.value.param == param


@pytest.mark.parametrize(
    "schema", [False, {"enum": []}, {"$ref": "#"}, {"type": "integer", "minimum": 5, "maximum": 4},
               {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
               {"type": "object", "required": ["a"], "additionalProperties": False}]
)  # fmt: skip
def test_a_schema_without_values_is_refused(schema: Any) -> None:
    with pytest.raises(RequestError, match="no text come to an end"):
        Automaton(schema_grammar(schema, "schema"))


def test_whole_numbers_are_within_their_bounds() -> None:
    for low in (None, -120, -9, -1, 0, 3, 99, 105):
        for high in (None, -100, -5, 0, 7, 100, 110, 1234):
            if low is None or high is None or low <= high:
                reads = reader({"root": integers(low, high)})
                edges = {edge + step for edge in (low or 0, high or 0, 0, 10, -10) for step in (-1, 0, 1)}
                for number in edges:
                    within = (low is None or low <= number) and (high is None or number <= high)
                    assert reads(str(number)) == within, (low, high, number)


@pytest.mark.parametrize(
    ("low", "high"),
    [("[0", "1]"), ("(0", "1)"), ("(0", None), ("[0.25", "0.75)"),
     ("(-1.5", "2.25]"), (None, "-0.5)"), ("[3", "3]"), ("(0.05", "0.5]")],
)  # fmt: skip
def test_numbers_are_within_their_bounds(low: str | None, high: str | None) -> None:
    lowest, highest = (
        low and Bound(Decimal(low[1:]), low[0] == "("),
        high and Bound(Decimal(high[:-1]), high[-1] == ")"),
    )
    reads = reader({"root": numbers(lowest or None, highest or None)})
    written = [f"{number / 100:.{places}f}" for number in range(-301, 402, 3) for places in (1, 2)]
    for text in [*written, "0", "1", "3", "-1", "2", "0.001", "0.7499", "0.75", "0.25", "2.25", "-1.5", "-0.5", "0.05"]:
        number = Decimal(text)
        above = not lowest or number > lowest.value or (number == lowest.value and not lowest.open)
        below = not highest or number < highest.value or (number == highest.value and not highest.open)
        if not text.startswith("-0.0") and (number % 1 or "." not in text):  # -0 and 1.00 need not be written
            assert reads(text) == (above and below), text


def test_a_large_schema_is_read() -> None:
    properties = {f"p{number}": {"type": "string", "description": "x" * 20} for number in range(200)}
    grammar = schema_grammar({"type": "object", "properties": properties, "required": list(properties)}, "schema")
    assert fits(grammar, json.dumps(dict.fromkeys(properties, "é"), ensure_ascii=False))


def test_lists_of_lists_are_read() -> None:
    schema: dict[str, Any] = {"type": "boolean"}
    for _ in range(40):
        schema = {"type": "array", "items": schema, "minItems": 1}
    grammar = schema_grammar(schema, "schema")
    assert fits(grammar, "[" * 40 + "true,false" + "]" * 40)
    assert not fits(grammar, "[" * 39 + "true" + "]" * 39)


def test_a_deep_schema_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(200):
        schema = {"type": "array", "items": schema}
    with pytest.raises(RequestError, match="levels deep"):
        schema_grammar(schema, "schema")
