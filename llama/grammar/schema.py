"""JSON schemas as grammars: each text of the grammar is a value that the schema allows.

Not each value that it allows is a text of it: keys come in the order in which they are listed, and white space is what
json.dumps writes. What else a schema may say is refused by name: passed over, it would give answers that are wrong.
"""

import json
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from itertools import combinations
from typing import cast
from urllib.parse import unquote

from llama.errors import RequestError
from llama.grammar.expressions import (
    EMPTY,
    ROOT,
    Choice,
    Expression,
    Grammar,
    Repeat,
    Rule,
    choice,
    repeated,
    row,
)
from llama.grammar.json_text import (
    ANY_JSON,
    BOOLEAN,
    CHARACTER,
    COLON,
    COMMA,
    NULL,
    NUMBER,
    OBJECT,
    STRING,
    VALUE,
    constant,
    in_string,
    key_but,
)
from llama.grammar.numbers import DIGITS, Bound, integers, numbers
from llama.grammar.patterns import FORMATS, pattern

DEEPEST = 64  # levels of a schema
MOST_COUNTED = 10_000  # items or characters that a schema may ask for, or bound by
# Say nothing of what is valid; `discriminator` is OpenAPI's, of what oneOf says already.
NOTES = frozenset(
    {
        *("$anchor", "$comment", "$defs", "$id", "$schema", "definitions"),
        *("title", "description", "default", "example", "examples", "deprecated", "readOnly", "writeOnly"),
        *("contentEncoding", "contentMediaType", "discriminator", "strict"),
    }
)
BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
OF_TYPES = {  # what says something of values of one type, and nothing of others
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength", "pattern", "format"}),
    "integer": BOUNDS | {"multipleOf"},
    "number": BOUNDS | {"multipleOf"},
    "boolean": frozenset[str](),
    "null": frozenset[str](),
}
ANYTHING = "anything"  # the type of a schema that speaks of none
WHOLE = ("$ref", "const", "enum", "anyOf", "oneOf", "allOf")  # each says all by itself, beside notes and a type
# Ask for nothing with these values.
UNASKED: Mapping[str, tuple[object, ...]] = {
    "uniqueItems": (False,),
    "minProperties": (0,),
    "nullable": (False,),
    "minContains": (0,),
    "unevaluatedProperties": (True,),
    "unevaluatedItems": (True,),
    "patternProperties": ({},),
}
FREE_FORMATS = ("int32", "int64", "float", "double", "password", "binary")  # OpenAPI's, of ranges and looks

Schema = Mapping[str, object]


def schema_grammar(schema: object, param: str) -> Grammar:
    """Return the grammar of a schema's values. Raises RequestError for what it cannot say, with its place."""
    reader = _Reader(schema, param)
    return {ROOT: reader.value(schema, param), **reader.rules, **ANY_JSON}


class _Reader:
    def __init__(self, schema: object, param: str) -> None:
        self._schema, self._param = schema, param
        self.rules: dict[str, Expression] = {}
        self._types: dict[str, Callable[[Schema, str], Expression]] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "integer": self._integer,
            "number": self._number,
            "boolean": lambda schema, at: BOOLEAN,
            "null": lambda schema, at: NULL,
            ANYTHING: lambda schema, at: VALUE,
        }

    def value(self, schema: object, at: str) -> Expression:
        if at.count(".") - self._param.count(".") > DEEPEST * 2:
            raise refusal(at[:200], f"is nested more than {DEEPEST} levels deep")
        if schema is True or schema == {}:
            return VALUE
        if schema is False:
            return Choice(())
        if not isinstance(schema, dict):
            raise refusal(at, "is no JSON schema: an object, true or false")
        self._check(schema, at)
        whole = [name for name in WHOLE if name in schema]
        if whole:
            beside = schema.keys() - NOTES - UNASKED.keys() - {whole[0], "type"}
            if beside - ({"enum"} if whole[0] == "const" else set()):
                raise refusal(f"{at}.{min(beside)}", f"is not supported beside {whole[0]}")
            return getattr(self, "_" + whole[0].strip("$").lower())(schema, at)
        return _one([self._types[name](schema, at) for name in self._named_types(schema, at)])

    def _check(self, schema: Schema, at: str) -> None:
        known = NOTES.union(WHOLE, {"type"}, *OF_TYPES.values())
        for name, of in schema.items():
            if name not in known and not (name in UNASKED and of in UNASKED[name]):
                raise refusal(f"{at}.{name[:100]}", "is not supported in a JSON schema here")

    def _named_types(self, schema: Schema, at: str) -> list[str]:
        """Return the types that a value may have: as it says, or else those that it says something of."""
        given = schema.get("type")
        if given is None:
            spoken = [name for name, keys in OF_TYPES.items() if schema.keys() & keys and name != "integer"]
            return spoken or [ANYTHING]
        names = given if isinstance(given, list) else [given]
        if not names or not all(isinstance(name, str) and name in OF_TYPES for name in names):
            raise refusal(f"{at}.type", f"is none of {', '.join(OF_TYPES)}")
        return [name for name in dict.fromkeys(names) if not (name == "integer" and "number" in names)]

    def _ref(self, schema: Schema, at: str) -> Expression:
        ref, name = schema["$ref"], f"$ref {schema['$ref']}"
        if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
            raise refusal(f"{at}.$ref", "is not supported but for places in the same schema, such as #/$defs/Name")
        if name not in self.rules:
            self.rules[name] = Rule(name)  # a schema may refer to itself
            self.rules[name] = self.value(self._found(ref, at), f"{self._param}.{ref[2:].replace('/', '.')}".strip("."))
        return Rule(name)

    def _found(self, ref: str, at: str) -> object:
        target = self._schema
        for step in ref[1:].split("/")[1:]:
            key = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(target, dict) and key in target:
                target = target[key]
            elif isinstance(target, list) and key.isdecimal() and int(key) < len(target):
                target = target[int(key)]
            else:
                raise refusal(f"{at}.$ref", f"refers to what there is not: {ref[:100]!r}")
        return target

    def _resolved(self, schema: object, at: str) -> object:
        """Return a schema, or the one that it refers to."""
        for _ in range(DEEPEST):
            if not (isinstance(schema, dict) and isinstance(schema.get("$ref"), str)):
                break
            schema = self._found(schema["$ref"], at)
        return schema

    def _const(self, schema: Schema, at: str) -> Expression:
        listed = schema.get("enum")  # beside it, as Pydantic has written it
        fits = not isinstance(listed, list) or schema["const"] in listed
        return self._values([schema["const"]] if fits else [], schema, at)

    def _enum(self, schema: Schema, at: str) -> Expression:
        if not isinstance(schema["enum"], list):
            raise refusal(f"{at}.enum", "is no list")
        return self._values(schema["enum"], schema, at)

    def _values(self, values: list[object], schema: Schema, at: str) -> Expression:
        names = self._named_types(schema, at)
        fitting = [value for value in values if names == [ANYTHING] or any(_is(value, name) for name in names)]
        return choice([constant(value) for value in fitting])

    def _anyof(self, schema: Schema, at: str) -> Expression:
        return self._alternatives(schema, "anyOf", at)

    def _oneof(self, schema: Schema, at: str) -> Expression:
        ways = self._alternatives(schema, "oneOf", at)
        found = [self._resolved(way, at) for way in cast(list[object], schema["oneOf"])]
        if not all(self._apart(one, other) for one, other in combinations(found, 2)):
            raise refusal(f"{at}.oneOf", "has ways that one value may fit at once: tell them apart by a constant")
        return ways

    def _alternatives(self, schema: Schema, name: str, at: str) -> Expression:
        if not isinstance(schema[name], list) or "type" in schema:
            raise refusal(f"{at}.{name}", "is no list" if "type" not in schema else "is not supported beside a type")
        ways = cast(list[object], schema[name])
        return Choice(tuple(self.value(way, f"{at}.{name}.{place}") for place, way in enumerate(ways)))

    def _apart(self, one: object, other: object) -> bool:
        """Return whether no value can fit both: their types differ, or what a required property must be."""
        if not (isinstance(one, dict) and isinstance(other, dict)):
            return one is False or other is False
        fixed = [_fixed(each) for each in (one, other)]
        if fixed[0] is not None and fixed[1] is not None:
            return not set(fixed[0]) & set(fixed[1])
        types = [self._known_types(each) for each in (one, other)]
        if all(types) and not types[0] & types[1]:
            return True
        parts = [each.get("properties") for each in (one, other)]
        if not all(isinstance(part, dict) for part in parts):
            return False
        needed = set(cast(list[str], one.get("required", []))) & set(cast(list[str], other.get("required", [])))
        shared = needed & cast(Schema, parts[0]).keys() & cast(Schema, parts[1]).keys()
        return any(self._apart(cast(Schema, parts[0])[key], cast(Schema, parts[1])[key]) for key in shared)

    def _known_types(self, schema: Schema) -> set[str]:
        given = schema.get("type", [])
        names = {name for name in (given if isinstance(given, list) else [given]) if isinstance(name, str)}
        return names | ({"integer"} if "number" in names else set())

    def _allof(self, schema: Schema, at: str) -> Expression:
        ways = schema["allOf"]
        if not isinstance(ways, list) or len(ways) != 1 or "type" in schema:
            raise refusal(f"{at}.allOf", "is not supported but with a single schema")
        return self.value(ways[0], f"{at}.allOf.0")

    def _object(self, schema: Schema, at: str) -> Expression:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(properties, dict):
            raise refusal(f"{at}.properties", "is no object")
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise refusal(f"{at}.required", "is no list of names")
        # Others are allowed unless it says otherwise, but what lists its properties seldom means so.
        other = schema.get("additionalProperties", not properties)
        unlisted = {name: other for name in required if name not in properties}
        listed = properties | unlisted
        if not listed and other is True:
            return OBJECT
        pairs = [
            (self._named_rule(row(constant(name), COLON, self._property(of, name, at))), name in required)
            for name, of in listed.items()
        ]
        further: Expression | None = None
        if other is not False:
            value = self.value(other, f"{at}.additionalProperties")
            further = self._named_rule(row(key_but(list(listed)), COLON, value))
        return row("{", self._members(pairs, further), "}")

    def _property(self, schema: object, name: str, at: str) -> Expression:
        return self.value(schema, f"{at}.properties.{name[:100]}")

    def _members(self, pairs: list[tuple[Rule, bool]], further: Expression | None) -> Expression:
        """Return an object's members in order, with a comma between any two, whichever are left out."""
        rest = {False: EMPTY, True: EMPTY} if further is None else {
            False: repeated(further, COMMA, 0, None), True: Repeat(row(COMMA, further))
        }  # fmt: skip
        after: dict[bool, Expression] = dict(rest)  # what comes yet, by whether a member came before
        for pair, needed in reversed(pairs):
            with_it = {False: row(pair, after[True]), True: row(COMMA, pair, after[True])}
            for begun, way in with_it.items():
                after[begun] = self._named_rule(way if needed else Choice((way, after[begun])))
        return after[False]

    def _named_rule(self, expression: Expression) -> Rule:
        """Return a rule of its own, for what stands in several places: nested, copies would double with each level."""
        name = f"part {len(self.rules)}"
        self.rules[name] = expression
        return Rule(name)

    def _array(self, schema: Schema, at: str) -> Expression:
        firsts, items = schema.get("prefixItems", []), schema.get("items", True)
        if isinstance(items, list):  # as drafts up to 2019 have it
            firsts, items = items, True
        if not isinstance(firsts, list):
            raise refusal(f"{at}.prefixItems", "is no list")
        least, most = _count(schema, "minItems", at) or 0, _count(schema, "maxItems", at)
        if not firsts:
            if items is False:
                most = 0
            item = self._named_rule(self.value(items, f"{at}.items")) if most != 0 else EMPTY
            return row("[", repeated(item, COMMA, least, most), "]") if least or most != 0 else row("[]")
        if not least <= len(firsts) or (most is not None and most < len(firsts)):
            raise refusal(f"{at}.{'minItems' if least > len(firsts) else 'maxItems'}", "does not fit prefixItems here")
        ways = [self.value(way, f"{at}.prefixItems.{place}") for place, way in enumerate(firsts)]
        return row("[", *(row(COMMA, way) if place else way for place, way in enumerate(ways)), "]")

    def _string(self, schema: Schema, at: str) -> Expression:
        least, most = _count(schema, "minLength", at), _count(schema, "maxLength", at)
        form = schema.get("format")
        given = {"pattern": schema.get("pattern"), "format": None if form in FREE_FORMATS else form}
        told = [name for name, value in given.items() if value is not None]
        if told and (least is not None or most is not None or len(told) > 1):
            beside = "minLength" if least is not None else "maxLength" if most is not None else "pattern"
            raise refusal(f"{at}.{beside}", f"is not supported beside {told[-1]}")
        if not told:
            return row('"', Repeat(CHARACTER, least or 0, most), '"') if least or most is not None else STRING
        if told == ["pattern"]:
            if not isinstance(schema["pattern"], str):
                raise refusal(f"{at}.pattern", "is no text")
            return row('"', in_string(pattern(schema["pattern"], f"{at}.pattern", anchored=False)), '"')
        if not isinstance(form, str) or form not in FORMATS:
            raise refusal(f"{at}.format", f"is none of those known here: {', '.join(FORMATS)}")
        return row('"', in_string(pattern(FORMATS[form], at)), '"')

    def _integer(self, schema: Schema, at: str) -> Expression:
        if schema.get("multipleOf", 1) != 1:
            raise refusal(f"{at}.multipleOf", "is not supported")
        bounds = {name: bound for name in BOUNDS if (bound := _number(schema, name, at)) is not None}
        low, high = _bounds(bounds)
        least = None if low is None else math.floor(low.value) + 1 if low.open else math.ceil(low.value)
        most = None if high is None else math.ceil(high.value) - 1 if high.open else math.floor(high.value)
        return integers(least, most)

    def _number(self, schema: Schema, at: str) -> Expression:
        if schema.get("multipleOf") is not None:
            raise refusal(f"{at}.multipleOf", "is not supported")
        bounds = {name: bound for name in BOUNDS if (bound := _number(schema, name, at)) is not None}
        return numbers(*_bounds(bounds)) if bounds else NUMBER


def refusal(param: str, why: str) -> RequestError:
    """Return what to raise for a part of a schema."""
    shown = param.encode(errors="replace").decode()
    return RequestError(f"{shown} {why}.", param=shown)


def _bounds(given: Mapping[str, Decimal]) -> tuple[Bound | None, Bound | None]:
    """Return the lowest and the highest number, each with whether it is itself left out."""
    lows = [Bound(given[name], name.startswith("ex")) for name in ("minimum", "exclusiveMinimum") if name in given]
    highs = [Bound(given[name], name.startswith("ex")) for name in ("maximum", "exclusiveMaximum") if name in given]
    lowest = max(lows, key=lambda bound: (bound.value, bound.open), default=None)
    return lowest, min(highs, key=lambda bound: (bound.value, not bound.open), default=None)


def _number(schema: Schema, name: str, at: str) -> Decimal | None:
    value = schema.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 10**DIGITS:
        raise refusal(f"{at}.{name}", f"is no number below 10^{DIGITS}")
    number = Decimal(repr(value))
    if len(number.as_tuple().digits) + abs(cast(int, number.as_tuple().exponent)) > 3 * DIGITS:
        raise refusal(f"{at}.{name}", "has too many digits")
    return number


def _count(schema: Schema, name: str, at: str) -> int | None:
    value = schema.get(name)
    if value is None:
        return None
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or value != int(value)
        or not 0 <= value <= MOST_COUNTED
    ):
        raise refusal(f"{at}.{name}", f"is no whole number from 0 to {MOST_COUNTED}")
    return int(value)


def _is(value: object, name: str) -> bool:
    """Return whether a value is of a type."""
    if isinstance(value, bool) or value is None:
        return name == ("null" if value is None else "boolean")
    kinds: dict[str, type | tuple[type, ...]] = {"object": dict, "array": list, "string": str, "number": (int, float)}
    if name == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return isinstance(value, kinds.get(name, ()))


def _fixed(schema: Schema) -> list[str] | None:
    """Return the only values that fit a schema, as JSON; None where it lists none."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return [json.dumps(value, sort_keys=True) for value in values] if isinstance(values, list) else None


def _one(ways: list[Expression]) -> Expression:
    return ways[0] if len(ways) == 1 else Choice(tuple(ways))
