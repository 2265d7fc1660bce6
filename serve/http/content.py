"""What is said in the requests of other APIs: a text, or parts of several types, of which texts are read."""

from collections.abc import Collection, Mapping

from llama.errors import RequestError
from serve.http.answers import Json
from serve.http.fields import Unasked, check_fields


def read_parts(
    content: object, kinds: Mapping[str, str], where: str, harmless: frozenset[str], refused: Mapping[str, Unasked]
) -> list[tuple[str, str]]:
    """Return the kind and the text of each part. Raises RequestError for what is none.

    Args:
        content: a list of parts.
        kinds: those that are read, and the key of each one's text.
        where: the field that it is.
        harmless: keys of a part that change nothing.
        refused: those that would, with the values with which they do not.
    """
    if not isinstance(content, list):
        raise RequestError(f"{where}: a text, or a list of parts, is required.", "invalid_type", where)
    read = []
    for place, part in enumerate(content):
        param = f"{where}[{place}]"
        kind = str(part.get("type")) if isinstance(part, dict) else "nothing"
        if kind not in kinds:
            raise unsupported(param, kind, kinds)
        read.append((kind, text_of(part, kinds[kind], param)))
        check_fields(beside(part, "type", kinds[kind]), harmless, refused, f"{param}.")
    return read


def text_of(part: Mapping[str, object], key: str, where: str) -> str:
    """Return what must be a text. Raises RequestError where it is none."""
    text = part.get(key)
    if not isinstance(text, str):
        raise RequestError(f"{where}.{key}: a text is required.", "invalid_type", f"{where}.{key}")
    return text


def beside(part: Mapping[str, object], *known: str) -> Json:
    """Return what else a part has."""
    return {name: value for name, value in part.items() if name not in known}


def unsupported(param: str, kind: str, known: Collection[str]) -> RequestError:
    """Return what to raise for a kind that is not known."""
    text = f"{param}: {kind[:50]!a} is not supported, only {', '.join(known)}."
    return RequestError(text, "unsupported_parameter", param)


def response_format(form: Mapping[str, object] | None, **usual: str) -> Json | None:
    """Return what an answer must look like as a chat's response_format has it; `usual` is what a schema may lack."""
    if form is None or form.get("type") != "json_schema":
        return None if form is None else dict(form)
    return {"type": "json_schema", "json_schema": {**usual, **beside(form, "type")}}
