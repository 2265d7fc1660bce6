"""How what goes wrong is said to programs: status, headers, and a body of OpenAI's shape."""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException

from llama.errors import ModelError, RequestError
from serve.errors import Busy, Stopping

API = ("/v1/", "/tokenize", "/detokenize")  # how the paths of what programs ask begin
# Error type and code by status; a field's error has a code of its own.
ERRORS = {
    400: ("invalid_request_error", "invalid_value"),
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", "forbidden"),
    404: ("invalid_request_error", "not_found"),
    405: ("invalid_request_error", "method_not_allowed"),
    413: ("invalid_request_error", "request_too_large"),
    415: ("invalid_request_error", "unsupported_media_type"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    500: ("server_error", "internal_error"),
    503: ("server_error", "unavailable"),
}
# The types by which Anthropic's clients know them, whose requests begin as MESSAGES.
MESSAGES = "/v1/messages"
MESSAGE_ERRORS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
}
# By which Anthropic's client knows to bring the whole conversation with each turn, as its tool_runner then does.
UNTHREADED = {"thread": {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}}
SHOULD = "Input should be "
TYPE = re.compile(r"str|int|float|bool|(?:list|dict|function-\w+)\[.*\]")  # as pydantic names one of several
# Codes for what pydantic finds; anything else that it finds is a value of the wrong type.
FAULTS = {"missing": "missing_required_parameter", "value_error": "invalid_value", "json_invalid": "invalid_json"}


class Failure(NamedTuple):
    """What went wrong, as it is told."""

    status: int
    message: str
    headers: Mapping[str, str] = MappingProxyType({})
    code: str | None = None  # None: the status's own
    param: str | None = None  # the field that is wrong

    def body(self) -> dict[str, object]:
        """Return it as OpenAI writes it."""
        kind, code = ERRORS.get(self.status, ("invalid_request_error", None))
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code or code}}

    def message_body(self) -> dict[str, object]:
        """Return it as Anthropic writes it."""
        error: dict[str, object] = {
            "type": MESSAGE_ERRORS.get(self.status, "invalid_request_error"),
            "message": self.message,
        }
        if self.param in UNTHREADED and self.code == "unsupported_parameter":
            error["details"] = UNTHREADED[self.param]
        return {"type": "error", "error": error}

    def response(self, path: str = "") -> JSONResponse:
        """Return it as an answer to the request that failed, in the shape of the API that stands at a path."""
        body = self.message_body() if path.startswith(MESSAGES) else self.body()
        return JSONResponse(body, self.status, self.headers)


def describe(error: Exception) -> Failure:
    """Return what is told of an error."""
    match error:
        case Busy():
            return Failure(503, str(error), {"Retry-After": str(error.seconds)})
        case Stopping():
            return Failure(503, str(error))
        case ModelError():
            return Failure(500, str(error))
        case RequestError(code="model_not_found"):
            return Failure(404, str(error), {}, error.code, error.param)
        case RequestError():
            return Failure(400, str(error), {}, error.code, error.param)
        case RequestValidationError():
            return _first_fault(error)
        case HTTPException():
            return Failure(error.status_code, error.detail, dict(error.headers or {}))
    return Failure(500, "The server failed to answer.")


def refusal(path: str, error: HTTPException) -> JSONResponse:
    """Return a refusal in the shape that whoever asks there reads: OpenAI's client, or Gradio's page."""
    failure = describe(error)
    if path.startswith(API):
        return failure.response(path)
    return JSONResponse({"error": failure.message}, failure.status, failure.headers)


async def answer_error(request: Request, error: Exception) -> JSONResponse:
    """Answer, for FastAPI, a request that failed."""
    return describe(error).response(request.scope["path"])


def _first_fault(error: RequestValidationError) -> Failure:
    """Return what pydantic found first, in one line and without what was sent."""
    faults = error.errors()
    code = FAULTS.get(faults[0]["type"], "invalid_type")
    if faults[0]["type"] == "json_invalid":
        return Failure(400, "The body must be JSON.", {}, code)
    place, reasons = _deepest(faults)
    steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in place]
    param = "".join(steps).removeprefix(".")
    *others, last = dict.fromkeys(reasons)
    reason = f"{', '.join(others)} or {last.removeprefix(SHOULD)}" if others else last
    return Failure(400, f"{param or 'The body'}: {reason}.", {}, code, param or None)


def _deepest(faults: Sequence[ErrorDetails]) -> tuple[tuple[str | int, ...], list[str]]:
    """Return where the first thing that is wrong is, and what each of the types that it may be of has against it.

    Of a value of several types pydantic tells what is wrong by each, and names them where there is no field; the one
    that goes furthest into it is what was meant.
    """
    loc = faults[0]["loc"]
    depth = next((at for at, step in enumerate(loc) if _is_type(step)), len(loc))
    alike = [fault for fault in faults if fault["loc"][:depth] == loc[:depth]]
    placed = [(tuple(step for step in fault["loc"][1:] if not _is_type(step)), fault["msg"]) for fault in alike]
    deepest = max((place for place, _ in placed), key=len)
    return deepest, [reason.removeprefix("Value error, ") for place, reason in placed if place == deepest]


def _is_type(step: str | int) -> bool:
    return isinstance(step, str) and TYPE.fullmatch(step) is not None
