"""How what goes wrong is said to programs: status, headers, and a body of OpenAI's shape."""

from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from llama.errors import RequestError
from serve.errors import Busy, Stopping

API = "/v1/"
# Error type and code by status.
ERRORS = {
    400: ("invalid_request_error", "invalid_value"),
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", "forbidden"),
    404: ("invalid_request_error", "not_found"),
    405: ("invalid_request_error", "method_not_allowed"),
    413: ("invalid_request_error", "request_too_large"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    500: ("server_error", "internal_error"),
    503: ("server_error", "unavailable"),
}


def describe(error: Exception) -> tuple[int, str, dict[str, str]]:
    """Return status, message and headers for what went wrong."""
    match error:
        case Busy():
            return 503, str(error), {"Retry-After": str(error.seconds)}
        case Stopping():
            return 503, str(error), {}
        case RequestError():
            return 400, str(error), {}
        case RequestValidationError():
            return 400, _first_fault(error), {}
        case HTTPException():
            return error.status_code, error.detail, dict(error.headers or {})
    return 500, "The server failed to answer.", {}


def error_body(status: int, message: str) -> dict[str, Any]:
    """Return an error as OpenAI writes it."""
    kind, code = ERRORS.get(status, ("invalid_request_error", None))
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def refusal(path: str, error: HTTPException) -> JSONResponse:
    """Return a refusal in the shape that whoever asks there reads: OpenAI's client, or Gradio's page."""
    status, message, headers = describe(error)
    return JSONResponse(error_body(status, message) if path.startswith(API) else {"error": message}, status, headers)


async def answer_error(_: Request, error: Exception) -> JSONResponse:
    """Answer, for FastAPI, a request that failed."""
    status, message, headers = describe(error)
    return JSONResponse(error_body(status, message), status, headers)


def _first_fault(error: RequestValidationError) -> str:
    """Return what pydantic found first, in one line and without what was sent."""
    fault = error.errors()[0]
    if fault["type"] == "json_invalid":
        return "The body must be JSON."
    where = ".".join(str(part) for part in fault["loc"][1:]) or "The body"
    return f"{where}: {fault['msg'].removeprefix('Value error, ')}."
