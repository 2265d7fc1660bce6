"""Arguments of a call that are written as one object, but not as JSON, as a grammar."""

import re
from collections.abc import Mapping, Sequence
from typing import cast

from llama.call_format import Notation
from llama.call_notation import NAME, written
from llama.call_parameters import types_in
from llama.errors import RequestError
from llama.grammar.lark import NOTHING, Grammar, literal
from llama.grammar.schema import NOTES, OF_TYPES, Schema, checked, refusal

# A text in quotes that are none of Python's goes up to the next; in Python's it is as in JSON, or between single ones.
SINGLE_QUOTED = r"/'([^'\\\n]|\\[^\n])*'/"
NUMBER = r"/-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/"
KEY = "/" + NAME.replace("[^", r"[^\x00-\x1f") + "/"  # of which some are white space to Python, and none to Rust


def notated_grammar(notation: Notation, function: Mapping[str, object], param: str, rule: str) -> Grammar:
    """Return what the arguments of a tool may be, those that are not required left out.

    Each value is what its schema says, or any where that cannot be followed and the tool is not `strict`.

    Args:
        notation: in which they are written.
        function: the tool.
        param: where its schema stands.
        rule: its name, with which those that it needs begin.

    Raises RequestError for a schema that cannot be held to, of a tool that is strict.
    """
    root = cast(Schema, function.get("parameters") or {})
    values = _Values(notation, root, function.get("strict") is True)
    values.arguments(root, rule, param)
    return Grammar(values.rules, values.schemas)


class _Values:
    """The rules of one tool's values."""

    def __init__(self, notation: Notation, root: Schema, strict: bool) -> None:
        self._notation, self._root, self._strict = notation, root, strict
        self._shared = {key: root[key] for key in ("$defs", "definitions") if key in root}
        self._referred: dict[str, str] = {}  # rules of what is referred to
        self.rules: dict[str, str] = {}
        self.schemas: dict[str, Schema] = {}

    def arguments(self, schema: Schema, rule: str, at: str) -> None:
        """Add the rule of an object with properties, in the order of the notation."""
        notation, properties, required = self._notation, schema.get("properties"), schema.get("required")
        named = list(properties.items()) if isinstance(properties, dict) else []
        if notation.is_sorted:
            named.sort(key=lambda each: each[0].lower())
        for place, (name, value) in enumerate(named):
            where = f"{at}.properties.{name[:100]}"
            if not re.fullmatch(NAME, name):
                raise refusal(where, "has a name for which the model's form of calls has no place")
            self.value(value, f"{rule}_{place}", where)
            self.rules[f"{rule}_pair{place}"] = f"{literal(name + notation.equals)} {rule}_{place}"
        needed = [isinstance(required, list) and name in required for name, _ in named]
        self.rules[rule] = f"{literal(notation.open)} {self._listed(rule, needed)} {literal(notation.close)}"

    def _listed(self, rule: str, needed: Sequence[bool]) -> str:
        """Return pairs with commas between them, of which some may be left out: first those behind another one."""
        count = len(needed)
        self.rules[f"{rule}_rest{count}"] = self.rules[f"{rule}_first{count}"] = NOTHING
        for place in reversed(range(count)):
            pair, rest = f"{rule}_pair{place}", f"{rule}_rest{place + 1}"
            further, first = f"{self._comma} {pair}", f"{pair} {rest}"
            self.rules[f"{rule}_rest{place}"] = f"{further} {rest}" if needed[place] else f"({further})? {rest}"
            self.rules[f"{rule}_first{place}"] = first if needed[place] else f"{first} | {rule}_first{place + 1}"
        return f"{rule}_first0"

    @property
    def _comma(self) -> str:
        bare = self._notation.comma.rstrip()
        return literal(bare) + (' " "?' if bare != self._notation.comma else "")

    def value(self, schema: object, rule: str, at: str) -> None:
        """Add the rule of a value. Raises RequestError for what it cannot be held to, of a strict tool."""
        self.rules[rule] = self._way(schema, rule, at)

    def _way(self, schema: object, rule: str, at: str) -> str:
        if isinstance(schema, dict) and isinstance(reference := schema.get("$ref"), str):
            return self._reference(reference, rule, at)
        if not isinstance(schema, dict) or not schema.keys() - NOTES:
            return self._anything()
        values = [schema["const"]] if "const" in schema else schema.get("enum")
        if isinstance(values, list) and values:
            return " | ".join(literal(text) for value in values for text in self._written(value))
        for key in ("anyOf", "oneOf", "allOf"):
            ways = schema.get(key)
            if isinstance(ways, list) and ways and (key != "allOf" or len(ways) == 1):
                for place, way in enumerate(ways):
                    self.value(way, f"{rule}_way{place}", f"{at}.{key}.{place}")
                return " | ".join(f"{rule}_way{place}" for place in range(len(ways)))
        types = types_in(schema, self._root)
        if types is None:
            return self._refused(at, "cannot be held to in the model's form of calls")
        return " | ".join(self._typed(of, schema, f"{rule}_{of}", at) for of in sorted(types))

    def _reference(self, reference: str, rule: str, at: str) -> str:
        if reference not in self._referred:
            found: object = self._root
            for step in filter(None, reference.removeprefix("#").split("/")):
                found = found.get(step) if isinstance(found, dict) else None
            if found is None:
                return self._refused(f"{at}.$ref", f"refers to what there is not: {reference[:100]!r}")
            self._referred[reference] = f"{rule}_referred"
            self.value(found, f"{rule}_referred", at)
        return self._referred[reference]

    def _typed(self, of: str, schema: Schema, rule: str, at: str) -> str:
        """Return a value of one type."""
        match of:
            case "string":
                return self._text(schema, rule, at)
            case "boolean":
                return '"True" | "False"' if self._notation.is_python else '"true" | "false"'
            case "null":
                return '"None"' if self._notation.is_python else '"null"'
            case "array" if not self._notation.is_python:
                return self._list(schema, rule, at)
            case "object" if not self._notation.is_python:
                return self._object(schema, rule, at)
        return self._as_json(of, schema, rule, at)

    def _as_json(self, of: str, schema: Schema, rule: str, at: str) -> str:
        try:
            self.schemas[rule] = checked({**self._shared, **schema, "type": of}, at, f"{rule}.")
        except RequestError:
            if self._strict:
                raise
            self.schemas[rule] = {"type": of}
        return f"@{rule}"

    def _text(self, schema: Schema, rule: str, at: str) -> str:
        bounds = schema.keys() & OF_TYPES["string"]
        if self._notation.is_python:
            quoted = self._as_json("string", schema, rule, at)
            return quoted if bounds else f"{quoted} | {SINGLE_QUOTED}"
        if bounds:
            self._refused(f"{at}.{min(bounds)}", "cannot be held to in the model's form of calls")
        return self._any_text()

    def _any_text(self) -> str:
        self.rules["any_text[lazy]"] = f"/(?s:.)*/ {literal(self._notation.quote)}"
        return f"{literal(self._notation.quote)} any_text"

    def _list(self, schema: Schema, rule: str, at: str) -> str:
        self._check_known(schema, {"items", "minItems", "maxItems"}, "array", at)
        self.value(schema.get("items", {}), rule, f"{at}.items")
        least, most = (count if isinstance(count := schema.get(key), int) else None for key in ("minItems", "maxItems"))
        further = f'("," {rule}){{{max((least or 0) - 1, 0)},{"" if most is None else max(most - 1, 0)}}}'
        some = f"{rule} {further}" if most != 0 else NOTHING
        return f'"[" {some if least else f"({some})?"} "]"'

    def _object(self, schema: Schema, rule: str, at: str) -> str:
        self._check_known(schema, {"properties", "required", "additionalProperties"}, "object", at)
        if schema.get("properties"):
            self.arguments(schema, rule, at)
            return rule
        of = schema.get("additionalProperties", {})
        if of is False:
            return '"{" "}"'
        self.value(of, f"{rule}_of", f"{at}.additionalProperties")
        self.rules["any_key"] = KEY
        pair = f'any_key ":" {rule}_of'
        return f'"{{" ({pair} ("," {pair})*)? "}}"'

    def _check_known(self, schema: Schema, known: set[str], of: str, at: str) -> None:
        for key in sorted(schema.keys() & OF_TYPES[of] - known):
            self._refused(f"{at}.{key}", "cannot be held to in the model's form of calls")

    def _refused(self, at: str, why: str) -> str:
        """Return any value, where the tool is not strict."""
        if self._strict:
            raise refusal(at, why)
        return self._anything()

    def _anything(self) -> str:
        if self._notation.is_python:
            self.schemas["any_json"] = {}
            return f'@any_json | "True" | "False" | "None" | {SINGLE_QUOTED}'
        self.rules["any_list"] = '"[" (any_value ("," any_value)*)? "]"'
        self.rules["any_pair"], self.rules["any_key"] = 'any_key ":" any_value', KEY
        self.rules["any_object"] = '"{" (any_pair ("," any_pair)*)? "}"'
        plain = f'{self._any_text()} | {NUMBER} | "true" | "false" | "null"'
        self.rules["any_value"] = f"{plain} | any_list | any_object"
        return "any_value"

    def _written(self, value: object) -> list[str]:
        """Return how a value may be written."""
        text = written(self._notation, value)
        is_plain = isinstance(value, str) and text == f'"{value}"' and "'" not in value
        return [text, f"'{value}'"] if is_plain else [text]
