"""JSON values that a request brings for others to read: schemas, tools, arguments."""

import json

from llama.errors import RequestError

DEEPEST = 100  # levels: templates and the JSON of languages have no more than a few hundred


def as_json(value: object, param: str) -> str:
    """Return a value as JSON. Raises RequestError, with its field, where it is too deep or a number is none."""
    level = [value]
    for _ in range(DEEPEST):
        inner = (part.values() if isinstance(part, dict) else part for part in level if isinstance(part, dict | list))
        level = [item for items in inner for item in items]
    if level:
        raise RequestError(f"{param} is nested more than {DEEPEST} levels deep.", param=param)
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise RequestError(f"{param} has a number that is none.", param=param) from None
