"""JSON schemas as llguidance takes them, which passes over what it does not know: here that is refused by its place.

Not each value that a schema allows can come: keys come in the order in which they are listed, and white space is what
json.dumps writes, or less.
"""

import json
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import cast
from urllib.parse import unquote

from llama.errors import RequestError
from llama.grammar.lark import in_rust

DEEPEST = 64  # levels of a schema
# Say nothing of what is valid; `discriminator` is OpenAPI's, of what oneOf says already.
NOTES = frozenset(
    {
        *("$anchor", "$comment", "$defs", "$id", "$schema", "definitions"),
        *("title", "description", "default", "example", "examples", "deprecated", "readOnly", "writeOnly"),
        *("contentEncoding", "contentMediaType", "discriminator", "strict"),
    }
)
# What llguidance knows that says something of values of one type, and nothing of others.
BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
OF_TYPES = {
    "object": frozenset(
        {*("properties", "patternProperties", "additionalProperties"), *("required", "minProperties", "maxProperties")}
    ),
    "array": frozenset({"items", "prefixItems", "additionalItems", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength", "pattern", "format"}),
    "integer": frozenset[str](),
    "number": BOUNDS,
    "boolean": frozenset[str](),
    "null": frozenset[str](),
}
WHOLE = ("$ref", "const", "enum", "anyOf", "oneOf", "allOf")  # say what any value is
# What it has for a value; the others are plain.
ONE = frozenset({"additionalItems", "additionalProperties", "items"})  # a schema
SEVERAL = frozenset({"allOf", "anyOf", "items", "oneOf", "prefixItems"})  # a list of schemas
NAMED = frozenset({"patternProperties", "properties"})  # schemas by name
PLAIN = frozenset({"type", *WHOLE}).union(*OF_TYPES.values()) - ONE - SEVERAL - NAMED
# Ask for nothing with these values.
UNASKED: Mapping[str, tuple[object, ...]] = {
    "uniqueItems": (False,),
    "nullable": (False,),
    "minContains": (0,),
    "unevaluatedProperties": (True,),
    "unevaluatedItems": (True,),
}
FREE_FORMATS = ("int32", "int64", "float", "double", "password", "binary")  # OpenAPI's, of ranges and looks
# Those that are known.
FORMATS = ("date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")

Schema = Mapping[str, object]


def checked(schema: object, param: str, scope: str = "") -> Schema:
    """Return a schema as llguidance is to have it: a reference to the first of its definitions.

    Args:
        schema: as it was given.
        param: the field that it is, for errors.
        scope: what the names of its definitions begin with, to tell them from others'.

    Raises RequestError for what llguidance would pass over, with its place.
    """
    reader = _Reader(schema, param, scope)
    return {"$ref": f"#/$defs/{scope}0", "$defs": reader.definitions()}


def any_of(ways: Iterable[Schema]) -> Schema:
    """Return what fits one of several schemas that are `checked`, each with definitions of its own names."""
    found = [dict(way) for way in ways]
    definitions = {name: of for way in found for name, of in cast(Schema, way.pop("$defs", {})).items()}
    return {"anyOf": found, "$defs": definitions}


def refusal(param: str, why: str) -> RequestError:
    """Return what to raise for a part of a schema."""
    shown = param.encode(errors="replace").decode()
    return RequestError(f"{shown} {why}.", param=shown)


class _Reader:
    """Rewrites what a schema refers to, each of it once, as definitions by numbers."""

    def __init__(self, schema: object, param: str, scope: str) -> None:
        self._schema, self._param, self._scope = schema, param, scope
        self._names = {"#": f"{scope}0"}
        # Put together with others, parts of a schema cannot close themselves.
        self._closes = not _combines(schema)

    def definitions(self) -> dict[str, object]:
        """Return them, the whole schema first."""
        found: dict[str, object] = {}
        while waiting := [(ref, name) for ref, name in self._names.items() if name not in found]:
            for ref, name in waiting:
                place = f"{self._param}.{ref[2:].replace('/', '.')}".strip(".")
                found[name] = self._read(self._found(ref, place), place, 0)
        return found

    def _read(self, schema: object, at: str, depth: int) -> object:
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise refusal(at, "is no JSON schema: an object, true or false")
        if depth > DEEPEST:
            raise refusal(self._param, f"is more than {DEEPEST} levels deep")
        read: dict[str, object] = {}
        for name, of in schema.items():
            place = f"{at}.{name[:100]}"
            if name in NAMED:
                read[name] = self._read_named(name, of, place, depth)
            elif name in SEVERAL and isinstance(of, list):
                read[name] = [self._read(each, f"{place}.{number}", depth + 1) for number, each in enumerate(of)]
            elif name in ONE:
                read[name] = self._read(of, place, depth + 1)
            elif name in SEVERAL:
                raise refusal(place, "is no list")
            elif name in PLAIN:
                read[name] = self._plain(name, of, place)
            elif name not in NOTES and of not in UNASKED.get(name, ()):
                raise refusal(place, "is not supported in a JSON schema here")
        if read.get("format") in FREE_FORMATS:
            del read["format"]
        if "oneOf" in read:
            self._check_apart(schema["oneOf"], f"{at}.oneOf")
            if "anyOf" in read:
                read["allOf"] = [*cast(list[object], read.get("allOf", [])), {"anyOf": read.pop("oneOf")}]
            else:
                read["anyOf"] = read.pop("oneOf")
        # What says something of one type is seldom meant to let through all values of others.
        spoken = [of for of, keys in OF_TYPES.items() if keys & read.keys()]
        if spoken and not read.keys() & {"type", *WHOLE}:
            read["type"] = spoken
        # Others are allowed unless it says otherwise, but what lists its properties seldom means so.
        if self._closes and "properties" in read and not read.keys() & {"patternProperties", "additionalProperties"}:
            read["additionalProperties"] = False
        return read

    def _read_named(self, name: str, of: object, at: str, depth: int) -> dict[str, object]:
        if not isinstance(of, dict):
            raise refusal(at, "is no object")
        written = in_rust if name == "patternProperties" else str
        return {written(key): self._read(each, f"{at}.{key[:100]}", depth + 1) for key, each in of.items()}

    def _plain(self, name: str, of: object, at: str) -> object:
        match name:
            case "$ref":
                if not isinstance(of, str) or not (of == "#" or of.startswith("#/")):
                    raise refusal(at, "is not supported but for places in the same schema, such as #/$defs/Name")
                self._found(of, at)
                return f"#/$defs/{self._names.setdefault(of, f'{self._scope}{len(self._names)}')}"
            case "type" if not set(map(str, of if isinstance(of, list) else [of])) <= OF_TYPES.keys():
                raise refusal(at, f"is none of {', '.join(OF_TYPES)}")
            case "required" if not isinstance(of, list) or not all(isinstance(each, str) for each in of):
                raise refusal(at, "is no list of names")
            case "enum" if not isinstance(of, list):
                raise refusal(at, "is no list")
            case "format" if of not in (*FORMATS, *FREE_FORMATS):
                raise refusal(at, f"is none of those known here: {', '.join(FORMATS)}")
            case "pattern":
                if not isinstance(of, str):
                    raise refusal(at, "is no text")
                return in_rust(of)
        if name in BOUNDS and not isinstance(of, int | float):
            raise refusal(at, "is no number")
        if name.startswith(("min", "max")) and name not in BOUNDS:
            if not _is_count(of):
                raise refusal(at, "is no whole number from 0 on")
            return int(cast(float, of))
        return of

    def _found(self, ref: str, at: str) -> object:
        target = self._schema
        for step in ref[1:].split("/")[1:]:
            key = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(target, dict) and key in target:
                target = target[key]
            elif isinstance(target, list) and key.isdecimal() and int(key) < len(target):
                target = target[int(key)]
            else:
                raise refusal(at, f"refers to what there is not: {ref[:100]!r}")
        return target

    def _check_apart(self, ways: object, at: str) -> None:
        """Check that no value fits two ways. Raises RequestError."""
        found = [self._resolved(way, at) for way in cast(list[object], ways)]
        if not all(self._apart(one, other, at) for one, other in combinations(found, 2)):
            raise refusal(at, "has ways that one value may fit at once: tell them apart by a constant")

    def _resolved(self, schema: object, at: str) -> object:
        """Return a schema, or the one that it refers to."""
        for _ in range(DEEPEST):
            if not (isinstance(schema, dict) and isinstance(schema.get("$ref"), str)):
                break
            schema = self._found(schema["$ref"], at)
        return schema

    def _apart(self, one: object, other: object, at: str, depth: int = 0) -> bool:
        """Return whether no value can fit both: their types differ, or what a required property must be."""
        one, other = self._resolved(one, at), self._resolved(other, at)
        if not (isinstance(one, dict) and isinstance(other, dict)):
            return one is False or other is False
        fixed = [_fixed(each) for each in (one, other)]
        if fixed[0] is not None and fixed[1] is not None:
            return not set(fixed[0]) & set(fixed[1])
        types = [_known_types(each) for each in (one, other)]
        if all(types) and not types[0] & types[1]:
            return True
        parts = [each.get("properties") for each in (one, other)]
        if depth == DEEPEST or not all(isinstance(part, dict) for part in parts) or types != [{"object"}] * 2:
            return False
        needed = _required(one) & _required(other)
        shared = needed & cast(Schema, parts[0]).keys() & cast(Schema, parts[1]).keys()
        pairs = [(cast(Schema, parts[0])[key], cast(Schema, parts[1])[key]) for key in shared]
        return any(self._apart(*pair, at, depth + 1) for pair in pairs)


def _combines(schema: object) -> bool:
    """Return whether a schema puts parts together of which each may have properties that others do not list."""
    if isinstance(schema, list):
        return any(map(_combines, schema))
    if not isinstance(schema, dict):
        return False
    together = len(schema.keys() & {*WHOLE[3:], "$ref", "properties"}) > 1
    several = isinstance(schema.get("allOf"), list) and len(schema["allOf"]) > 1
    return together or several or any(map(_combines, schema.values()))


def _is_count(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= cast(float, value) < 2**31 and cast(float, value) == int(cast(float, value))


def _known_types(schema: Schema) -> set[str]:
    given = schema.get("type", [])
    names = {name for name in (given if isinstance(given, list) else [given]) if isinstance(name, str)}
    return names | ({"integer"} if "number" in names else set())


def _required(schema: Schema) -> set[str]:
    given = schema.get("required")
    return {name for name in given if isinstance(name, str)} if isinstance(given, list) else set()


def _fixed(schema: Schema) -> list[str] | None:
    """Return the only values that fit a schema, as JSON; None where it lists none."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return [json.dumps(value, sort_keys=True) for value in values] if isinstance(values, list) else None
