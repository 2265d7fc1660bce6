"""What llguidance is told: rules in its dialect of Lark, and JSON schemas that they name (`@name`).

Its lexer takes the longest of the lexemes that may come, and never goes back: where one text may be read in two ways,
both must be cut into the same lexemes, or into single characters.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from llguidance import regex_to_lark

START = "start"  # Lark's name for what a text is
# Tokens are the model's choice: llguidance would have forced text cut as its tokenizer does, which we do not give it.
OPTIONS = '%llguidance {"no_forcing": true}'
# White space is what json.dumps writes, or less: models run on in it. No \uXXXX, by which a key could be another one.
JSON_OPTIONS = {
    "whitespace_flexible": False,
    "item_separator": ", ?",
    "key_separator": ": ?",
    "json_allowed_escapes": 'nrbtf\\"',
}
NOTHING = '""'

SPECIAL_IN_SETS = re.compile(r"\\.|[\[&~]", re.DOTALL)
# Parts of a pattern that Rust reads otherwise: in a class, sets of sets; a brace that counts nothing.
OTHERWISE = re.compile(
    r"(?P<escaped>\\(?:[xuUpP]\{[^}]*\}|.))|(?P<set>\[(?:\\.|[^\]\\])*\])|\{(?!\d+(?:,\d*)?\})", re.DOTALL
)


@dataclass(frozen=True)
class Grammar:
    """Rules by name, and JSON schemas by the name that rules have for them."""

    rules: Mapping[str, str]
    schemas: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    def __or__(self, other: "Grammar") -> "Grammar":
        """Return both; of rules with one name the other's."""
        return Grammar({**self.rules, **other.rules}, {**self.schemas, **other.schemas})

    def text(self) -> str:
        """Return it as llguidance reads it."""
        rules = "\n".join([OPTIONS, *(f"{name}: {body}" for name, body in self.rules.items())])
        schemas = [
            {"name": name, "json_schema": {**schema, "x-guidance": JSON_OPTIONS}}
            for name, schema in self.schemas.items()
        ]
        return json.dumps({"grammars": [{"lark_grammar": rules}, *schemas]})


def literal(text: str) -> str:
    """Return a text as Lark writes it."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", r"\u007f")


def characters(text: str) -> str:
    """Return a text of which each character is a lexeme."""
    return " ".join(map(literal, text)) or NOTHING


def regex(pattern: str) -> str:
    """Return a pattern, of a whole text, as Lark writes it."""
    return f"/{regex_to_lark(in_rust(pattern), 'dw')}/" if pattern else NOTHING


def in_rust(pattern: str) -> str:
    """Return a pattern, in what ECMAScript and Python have in common, as Rust's regular expressions are written."""

    def written(found: re.Match[str]) -> str:
        if found["set"]:
            return f"[{re.sub(SPECIAL_IN_SETS, _escaped, found[0][1:-1])}]"
        return found[0] if found["escaped"] else _escaped(found)

    return OTHERWISE.sub(written, pattern)


def _escaped(found: re.Match[str]) -> str:
    return found[0] if found[0].startswith("\\") else "\\" + found[0]
