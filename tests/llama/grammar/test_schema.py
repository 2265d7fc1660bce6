"""JSON schemas as grammars: what is drawn is valid, what is valid can be written, and the rest is refused by name."""

import json
from typing import Annotated, Any, Literal

import pytest
from drawn_texts import TOKENIZER, drawn, fits, reader
from llguidance import LLMatcher
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from llama.errors import RequestError
from llama.grammar.follow import LIMITS
from llama.grammar.lark import START, Grammar
from llama.grammar.schema import any_of, checked

DRAWN = 40


def schema_grammar(schema: Any, param: str = "schema") -> Grammar:
    return Grammar({START: "@it"}, {"it": checked(schema, param)})


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
    found = list(drawn(schema_grammar({"type": "object"}), DRAWN))
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
        ({"type": ["string", "null"], "maxLength": 2},
         ['"é😀"', '"\\n\\""', "null", '""'], ['"abc"', "1", '"\\u00e9"']),
        ({"enum": ["a\"\\\n", {"k": [1, None]}, 2.5]},
         ['"a\\"\\\\\\n"', '{"k": [1, null]}', '{"k":[1,null]}', "2.5"], ["a"]),
        ({"type": "integer", "enum": [1, "1", 2.0]}, ["1", "2"], ['"1"', "3"]),
        ({"const": None}, ["null"], ["0"]),
        ({"const": "42"}, ['"42"'], ["42"]),
        ({"items": [{"type": "string"}, {"type": "number"}], "additionalItems": False},
         ['["x",1.5]', '["x"]'], ["[1.5]", '["x",1,2]']),
        ({"const": "a", "enum": ["a"], "type": "string"}, ['"a"'], ['"b"']),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3},
         ["[true,false]", "[true, true, true]"], ["[]", "[true]", "[true,true,true,true]", "[true true]"]),
        ({"type": "array", "items": False}, ["[]"], ["[1]"]),
        ({"type": "array", "maxItems": 0}, ["[]"], ["[1]"]),
        ({"prefixItems": [{"type": "integer"}, {"const": "x"}], "items": False},
         ['[1, "x"]', "[1]"], ['["x"]', '[1,"x",2]']),
        ({"prefixItems": [{"type": "integer"}, {}], "minItems": 2, "maxItems": 2}, ['[1, "x"]'], ["[1]", "[1,2,3]"]),
        ({"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
                    {"properties": {"a": {"maximum": 9}, "b": {"type": "string"}}, "required": ["b"]}]},
         ['{"a":9,"b":""}', '{"a":1,"b":"x","c":null}'], ['{"a":10,"b":""}', '{"a":1}', '{"b":"","a":1}']),
        ({"$ref": "#/$defs/a", "maxLength": 2, "$defs": {"a": {"type": "string", "minLength": 2}}},
         ['"xy"'], ['"x"', '"xyz"']),
        ({"type": "object", "properties": {"a": {"type": "string"}},
          "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
         ['{"a":"x"}', '{"b":1}', '{"a":"x","b":1}'], ["{}", '{"a":1}', '{"c":1}']),
        ({"patternProperties": {"^a[0-9]$": {"type": "integer"}, "[{]": {"type": "null"}},
          "additionalProperties": False},
         ["{}", '{"a1":5, "a2": 6}', '{"x{":null}'], ['{"a1":"x"}', '{"b":1}']),
        ({"type": "object", "minProperties": 1, "maxProperties": 2}, ['{"a":1}', '{"a":1,"b":2}'],
         ["{}", '{"a":1,"b":2,"c":3}']),
        ({"type": "integer", "multipleOf": 5, "minimum": -10}, ["0", "-10", "15"], ["7", "-15"]),
        ({"type": "string", "pattern": "^a", "minLength": 3, "maxLength": 4}, ['"abc"', '"a\\"bc"'], ['"a"', '"bbb"']),
        ({"type": "number", "minimum": 0, "exclusiveMinimum": True}, ["0.5", "1"], ["0"]),  # as draft 4 has it
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
        ({"if": {}, "then": {}}, "schema.if"),
        ({"patternProperties": {"x": {"contains": {}}}}, "schema.patternProperties.x.contains"),
        ({"x-guidance": {"lenient": True}}, "schema.x-guidance"),
        ({"allOf": {}}, "schema.allOf"),
        ({"type": "string", "format": "iri"}, "schema.format"),
        ({"type": "string", "maxLength": -1}, "schema.maxLength"),
        ({"type": "string", "minLength": 1e10}, "schema.minLength"),
        ({"type": "integer", "minimum": "1"}, "schema.minimum"),
        ({"anyOf": [{"x": 1}]}, "schema.anyOf.0.x"),
        ({"oneOf": [{"type": "object"}, {"type": "object"}]}, "schema.oneOf"),
        ({"oneOf": [{"minimum": 1}, {"maximum": 5}]}, "schema.oneOf"),
        ({"enum": 3}, "schema.enum"),
        ({"$ref": "https://example.org/schema"}, "schema.$ref"),
        ({"$ref": "#/$defs/none"}, "schema.$ref"),
    ],
)  # fmt: skip
def test_what_would_be_passed_over_is_refused_by_its_place(schema: Any, param: str) -> None:
    with pytest.raises(RequestError) as raised:
        schema_grammar(schema, "schema")
    assert raised.value.param == param


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (False, "Unsatisfiable"),
        ({"enum": []}, "Unsatisfiable"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "Unsatisfiable"),
        ({"type": "object", "required": ["a"], "additionalProperties": False}, "Unsatisfiable"),
        ({"allOf": [{"type": "string"}, {"type": "null"}]}, "Unsatisfiable"),
        ({"type": "string", "pattern": "(?=a)"}, "look-around"),
        ({"type": "number", "maximum": 1e300}, "float range"),
        ({"patternProperties": {"a": {}, "b": {}}}, "not disjoint"),
    ],
)
def test_what_llguidance_refuses_is_told(schema: Any, why: str) -> None:
    found = LLMatcher(TOKENIZER, schema_grammar(schema).text(), log_level=0, limits=LIMITS)
    assert why in found.get_error()


def test_schemas_stand_beside_each_other() -> None:
    tree = {"type": "array", "items": {"$ref": "#"}}
    both = any_of([checked(tree, "one", "1."), checked({"anyOf": [{"type": "null"}, {"const": 5}]}, "two", "2.")])
    reads = reader(Grammar({START: "@it"}, {"it": both}))
    assert all(map(reads, ("[[],[[]]]", "null", "5")))
    assert not reads("[null]")


def test_numbers_are_within_their_bounds() -> None:
    for low in (None, -120, -9, 0, 3, 99, 105):
        for high in (None, -100, -5, 0, 7, 100, 1234):
            if low is None or high is None or low <= high:
                bounds = {"minimum": low, "maximum": high}
                given = {name: of for name, of in bounds.items() if of is not None}
                reads = reader(schema_grammar({"type": "integer", **given}))
                edges = {edge + step for edge in (low or 0, high or 0, 10, -10) for step in (-1, 0, 1)}
                for number in edges:
                    within = (low is None or low <= number) and (high is None or number <= high)
                    assert reads(str(number)) == within, (low, high, number)


@pytest.mark.parametrize("bounds", [(0, 1, False, False), (0, 1, True, True), (0.25, 0.75, False, True),
                                    (-1.5, 2.25, True, False), (0.05, 0.5, True, False)])  # fmt: skip
def test_fractions_are_within_their_bounds(bounds: tuple[float, float, bool, bool]) -> None:
    low, high, low_open, high_open = bounds
    least, most = "exclusiveMinimum" if low_open else "minimum", "exclusiveMaximum" if high_open else "maximum"
    reads = reader(schema_grammar({"type": "number", least: low, most: high}))
    numbers = [hundredths / 100 for hundredths in range(-301, 402, 3)]
    read = [number for number in numbers if reads(f"{number:g}")]
    within = [
        number
        for number in numbers
        if low <= number <= high and not (low_open and number == low) and not (high_open and number == high)
    ]
    assert set(read) <= set(within)
    assert len(read) > 0.8 * len(within)  # beside an open bound llguidance leaves some out


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
