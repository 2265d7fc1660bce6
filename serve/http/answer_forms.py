"""What an answer must look like, by each of the fields that OpenAI, llama.cpp and vLLM have for it."""

import json
from collections.abc import Iterator, Mapping

from pydantic import BaseModel, ConfigDict

from llama.errors import RequestError
from llama.types import Form
from serve.http.json_values import as_json

FORMATS = ("text", "json_object", "json_schema")  # of OpenAI's response_format
KEYS = {
    "text": {"type"},
    "json_object": {"type", "schema"},  # with a schema as llama.cpp has it
    "json_schema": {"type", "json_schema"},
}
SCHEMA_KEYS = {"name", "description", "schema", "strict"}  # an answer is held to the schema, strict or not
# What vLLM's structured_outputs has, and its older fields by the same names.
OUTPUTS = ("json", "json_object", "regex", "choice", "grammar")


class FormFields(BaseModel):
    """The fields, of which a request has one at most."""

    model_config = ConfigDict(strict=True, extra="allow")

    response_format: dict[str, object] | None = None
    grammar: str | None = None
    json_schema: dict[str, object] | bool | None = None
    structured_outputs: dict[str, object] | None = None
    guided_json: dict[str, object] | bool | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None

    def form(self) -> Form | None:
        """Return what the answer must look like. Raises RequestError for what is none, and for two at once."""
        forms = list(self._forms())
        if len(forms) > 1:
            one, other = forms[0].param, forms[1].param
            raise RequestError(f"{other} is not supported beside {one}: an answer has one form.", param=other)
        return forms[0] if forms else None

    def _forms(self) -> Iterator[Form]:
        if self.response_format is not None:
            yield from _response_format(self.response_format)
        if self.grammar:
            yield Form("gbnf", self.grammar, "grammar")
        if self.json_schema is not None:
            yield Form("schema", as_json(self.json_schema, "json_schema"), "json_schema")
        older = {name: getattr(self, f"guided_{name}") for name in ("json", "regex", "choice", "grammar")}
        yield from (_output(name, given, f"guided_{name}") for name, given in older.items() if given is not None)
        for name, given in (self.structured_outputs or {}).items():
            if given is not None and given is not False:
                yield _output(name, given, f"structured_outputs.{name[:100]}")


def _response_format(given: Mapping[str, object]) -> Iterator[Form]:
    kind = given.get("type")
    if kind not in FORMATS or not isinstance(kind, str):
        param = "response_format.type"
        raise RequestError(f"{param} is none of {', '.join(FORMATS)}.", "unsupported_value", param)
    _check_keys(given, KEYS[kind], "response_format")
    if kind == "json_schema":
        inner = given.get("json_schema")
        if not isinstance(inner, dict) or inner.get("schema") is None:
            param = "response_format.json_schema" + (".schema" if isinstance(inner, dict) else "")
            raise RequestError(f"{param}: a schema is required.", "missing_required_parameter", param)
        _check_keys(inner, SCHEMA_KEYS, "response_format.json_schema")
        schema_at = "response_format.json_schema.schema"
        yield Form("schema", as_json(inner["schema"], schema_at), schema_at)
    elif given.get("schema") is not None:
        yield Form("schema", as_json(given["schema"], "response_format.schema"), "response_format.schema")
    elif kind == "json_object":
        yield Form("object", "", "response_format")


def _check_keys(given: Mapping[str, object], known: set[str], where: str) -> None:
    """Raise RequestError for a key that would be passed over."""
    for name in sorted(given.keys() - known):
        param = f"{where}.{name[:100]}".encode(errors="replace").decode()
        raise RequestError(f"{param} is not known here: leave it out.", "unknown_parameter", param)


def _output(name: str, given: object, param: str) -> Form:
    """Return what vLLM's name for a form asks for. Raises RequestError."""
    param = param.encode(errors="replace").decode()
    match name, given:
        case "json", str(text):
            return Form("schema", _schema(text, param), param)
        case "json", dict() | True:
            return Form("schema", as_json(given, param), param)
        case "json_object", True:
            return Form("object", "", param)
        case "regex", str(text):
            return Form("pattern", text, param)
        case "grammar", str(text):
            return Form("gbnf", text, param)
        case "choice", list(words) if words and all(isinstance(word, str) for word in words):
            return Form("choice", as_json(words, param), param)
    if name in OUTPUTS:
        raise RequestError(f"{param} is not what it must be.", "invalid_type", param)
    raise RequestError(f"{param} is not supported: leave it out.", "unsupported_parameter", param)


def _schema(text: str, param: str) -> str:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError):
        raise RequestError(f"{param} is no JSON schema.", param=param) from None
    return as_json(schema, param)
