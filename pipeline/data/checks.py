"""Instructions that a program can check: what a reply has to be like, whatever else it says.

A question of kind `checks` has some in the place of an answer; a reply is right if it passes each, and none passes
that says nothing. RULES has a row for each kind. What is counted (COUNTS) has bounds: `at_least`, `at_most`, or
`exactly`.
"""

import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Required, TypedDict, cast

from pipeline.data.languages import known, told

BOUNDS = ("at_least", "at_most", "exactly")
ENDED = re.compile(r"[.!?\u2026]+[\"')\]\u201d\u2019\u00bb*_]*(?=\s|$)|[\u3002\uff01\uff1f]+|\n\s*\n")  # a sentence
TITLES = re.compile(r"\b(Mr|Mrs|Ms|Dr|Prof|St|vs|No|Nr|Hr|Fr)\.")
ITEM = re.compile(r"^\s*([-*+\u2022]|\d+[.)])\s+\S", re.MULTILINE)
HEADING = re.compile(r"^#{1,6} +\S", re.MULTILINE)
TABLE = re.compile(r"^ *\|?.*\|.*\n *\|?( *:?-+:? *\|)+( *:?-+:? *)?\n.*\|", re.MULTILINE)
FENCED = re.compile(r"```\w*\n(.*?)\n?```", re.DOTALL)
QUOTES = ('""', "''", "\u201c\u201d", "\u2018\u2019", "\u201e\u201c", "\u00ab\u00bb", "\u300c\u300d")
STRAIGHT = str.maketrans("\u201c\u201d\u2018\u2019", "\"\"''")
CLOSING = ".,;:!?\"')]*_` "
UNSPACED = "\u2e80"  # from here on scripts have no spaces between words


class Check(TypedDict, total=False):
    """What a reply has to be like."""

    kind: Required[str]
    at_least: int
    at_most: int
    exactly: int
    text: str
    texts: list[str]
    keys: list[str]
    code: str


@dataclass(frozen=True)
class Rule:
    """A kind of check: whether a reply passes one, and by which fields."""

    passes: Callable[[Check, str], bool]
    needs: tuple[str, ...] = ()
    may_have: tuple[str, ...] = ()
    least: int | None = None  # of what it counts, that any reply has; None where it counts nothing


def passes(check: Check, reply: str) -> bool:
    """Return whether a reply passes a check."""
    text = reply.strip()
    return bool(text) and RULES[check["kind"]].passes(check, text)


def fault(check: object) -> str | None:
    """Return what is wrong with a check, as a sentence goes on from it; None where nothing is."""
    if not isinstance(check, dict) or "kind" not in check:
        return "is no object with a kind"
    kind = check["kind"]
    if not isinstance(kind, str) or kind not in RULES:
        return f"is of the unknown kind {kind!r}; there are {', '.join(RULES)}"
    rule = RULES[kind]
    allowed = (*rule.needs, *rule.may_have, *(BOUNDS if rule.least is not None else ()))
    if missing := [field for field in rule.needs if field not in check]:
        return f"lacks {missing[0]}, which kind {kind} needs"
    if unknown := [field for field in check if field not in ("kind", *allowed)]:
        return f"has {unknown[0]}, and kind {kind} takes {', '.join(allowed) or 'nothing more'}"
    for field in (field for field in allowed if field not in BOUNDS and field in check):
        if (needed := FIELDS[field](check[field])) is not None:
            return f"has the {field} {check[field]!r}; it must be {needed}"
    return None if rule.least is None else _fault_of_bounds(check, rule.least)


def languages_asked(checks: list[Check]) -> bool:
    """Return whether checks say in which language the reply has to be."""
    return any(check["kind"] == "language" for check in checks)


def sentences(text: str) -> int:
    """Return how many there are: each ends with a mark or a paragraph, and what stands behind the last is one, too.

    A full stop before a small letter, as in `e.g. this`, ends none, nor does that of a title.
    """
    plain = re.sub(r"\.(?=\s+[a-z])", "", TITLES.sub(r"\1", text))
    return sum(bool(_worded(part)) for part in ENDED.split(plain))


def _worded(text: str) -> list[str]:
    """Return the words, as spaces part them; a mark alone, as of a list, is none."""
    return [word for word in text.split() if any(map(str.isalnum, word))]


def _paragraphs(text: str) -> int:
    return sum(bool(part.strip()) for part in re.split(r"\n\s*\n", text))


def _lines(text: str) -> int:
    return sum(bool(line.strip()) for line in text.split("\n"))


# What is counted, how, and what any reply that says something has of it.
COUNTS: dict[str, tuple[Callable[[str], int], int]] = {
    "words": (lambda text: len(_worded(text)), 1),
    "characters": (len, 1),
    "sentences": (sentences, 1),
    "paragraphs": (_paragraphs, 1),
    "lines": (_lines, 1),
    "items": (lambda text: len(ITEM.findall(text)), 0),  # of a list
}


def _within(check: Check, count: int) -> bool:
    exactly = check.get("exactly")
    least, most = check.get("at_least", exactly), check.get("at_most", exactly)
    return (least is None or count >= least) and (most is None or count <= most)


def _folded(text: str) -> str:
    """Return a text without what nobody reads: case, kinds of quotes, length of spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).translate(STRAIGHT).casefold().split())


def _occurrences(text: str, reply: str) -> int:
    """Return how often a reply has a text, as whole words."""
    wanted = _folded(text)
    before = r"(?<!\w)" if wanted[0] < UNSPACED else ""
    after = r"(?!\w)" if wanted[-1] < UNSPACED else ""
    return len(re.findall(before + re.escape(wanted) + after, _folded(reply)))


def _has(check: Check, reply: str) -> bool:
    return all(_occurrences(text, reply) for text in check["texts"])


def _has_not(check: Check, reply: str) -> bool:
    return not any(_occurrences(text, reply) for text in check["texts"])


def _ends(check: Check, reply: str) -> bool:
    text, wanted = _folded(reply), _folded(check["text"])
    return text.endswith(wanted) or text.rstrip(CLOSING).endswith(wanted.rstrip(CLOSING) or wanted)


def _is_json(check: Check, reply: str) -> bool:
    """Return whether a reply, or the one code block that it is, is JSON, an object with the keys where there are."""
    fenced = FENCED.fullmatch(reply)
    try:
        value = json.loads(fenced[1] if fenced else reply, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    keys = check.get("keys", [])
    return not keys or (isinstance(value, dict) and value.keys() >= set(keys))


def _refuse(constant: str) -> None:
    raise ValueError(constant)  # NaN and Infinity are Python's, and in no JSON


def _is_quoted(check: Check, reply: str) -> bool:
    return len(reply) > 2 and reply[0] + reply[-1] in QUOTES


def _counting(count: Callable[[str], int]) -> Callable[[Check, str], bool]:
    return lambda check, reply: _within(check, count(reply))


RULES: dict[str, Rule] = {
    **{kind: Rule(_counting(count), least=least) for kind, (count, least) in COUNTS.items()},
    "times": Rule(lambda check, reply: _within(check, _occurrences(check["text"], reply)), ("text",), least=0),
    "has": Rule(_has, ("texts",)),
    "has_not": Rule(_has_not, ("texts",)),
    "starts": Rule(lambda check, reply: _folded(reply).startswith(_folded(check["text"])), ("text",)),
    "ends": Rule(_ends, ("text",)),
    "json": Rule(_is_json, may_have=("keys",)),
    "table": Rule(lambda check, reply: bool(TABLE.search(reply))),
    "heading": Rule(lambda check, reply: bool(HEADING.search(reply))),
    "lower_case": Rule(lambda check, reply: reply.islower()),
    "upper_case": Rule(lambda check, reply: reply.isupper()),
    "no_commas": Rule(lambda check, reply: not re.search("[,\u060c\u3001\uff0c]", reply)),
    "quoted": Rule(_is_quoted),
    "language": Rule(lambda check, reply: told(reply) == check["code"], ("code",)),
}


def _fault_of_bounds(check: dict[str, object], least: int) -> str | None:
    for bound in BOUNDS:
        value = check.get(bound, 0)
        if type(value) is not int or value < 0:
            return f"has {bound} {value!r}; it must be a whole number from 0 up"
    given = {bound: cast(int, check[bound]) for bound in BOUNDS if bound in check}
    if not given or ("exactly" in given and len(given) > 1):
        return f"has {' and '.join(given) or 'no bounds'}; it needs exactly, or at_least or at_most or both"
    low, high = (given.get(bound, given.get("exactly")) for bound in ("at_least", "at_most"))
    if high is not None and high < max(low or 0, least):
        return f"asks for at least {max(low or 0, least)} and at most {high}, which no reply can be"
    return "asks for nothing: every reply has as many" if high is None and (low or 0) <= least else None


def _needed_text(value: object) -> str | None:
    return None if isinstance(value, str) and value.strip() else "a text that is not empty"


def _needed_texts(value: object) -> str | None:
    """Return what a list of texts must be, if it is not."""
    good = isinstance(value, list) and value and all(_needed_text(text) is None for text in value)
    return None if good else "a list of texts that are not empty"


def _needed_code(value: object) -> str | None:
    return None if value in known() else "the ISO 639-1 code of a language, such as de"


# What a field must be, if it is not.
FIELDS: dict[str, Callable[[object], str | None]] = {
    "text": _needed_text,
    "texts": _needed_texts,
    "keys": _needed_texts,
    "code": _needed_code,
}
