"""Errors in the shape that OpenAI's clients know: {"error": {"message", "type", "param", "code"}}."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from .batching import PaintingFailed, QueueFull


class APIError(Exception):
    """An answer that is an error. param: the field it is about, if it is about one."""

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None):
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param


def error_body(status: int, message: str, *, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """The body of an error. Text that is no Unicode, as a lone surrogate in a prompt, is replaced."""
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
        status, "server_error" if status >= 500 else "invalid_request_error"
    )
    message = message.encode("utf-8", "replace").decode("utf-8")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_response(
    status: int, message: str, *, code: str | None = None, param: str | None = None, headers: Any = None
) -> JSONResponse:
    if status == 504:  # OpenAI's clients would ask twice more, of a server that has no time as it is
        headers = {**(headers or {}), "x-should-retry": "false"}
    return JSONResponse(error_body(status, message, code=code, param=param), status, headers)


def error_event(error: APIError | PaintingFailed) -> str:
    """An error as a server-sent event, for a stream that has begun."""
    if isinstance(error, APIError):
        body = error_body(error.status, error.message, code=error.code, param=error.param)
    else:
        body = error_body(500, str(error), code="internal_error")
    return f"event: error\ndata: {json.dumps(body)}\n\n"


def add_error_handlers(app: FastAPI) -> None:
    handlers: dict[type[Exception], Callable[..., Awaitable[JSONResponse]]] = {
        RequestValidationError: _invalid,
        HTTPException: _http_error,
        APIError: _api_error,
        QueueFull: _queue_full,
        PaintingFailed: _painting_failed,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


async def _api_error(request: Request, error: APIError) -> JSONResponse:
    return error_response(error.status, error.message, code=error.code, param=error.param)


async def _queue_full(request: Request, error: QueueFull) -> JSONResponse:
    headers = {"Retry-After": str(error.retry_after)}
    return error_response(429, str(error), code="rate_limit_exceeded", headers=headers)


async def _painting_failed(request: Request, error: PaintingFailed) -> JSONResponse:
    return error_response(500, str(error), code="internal_error")


async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    """The first thing that is wrong, and the field that it is about."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"][1:]]
    if first["type"] == "json_invalid":
        return error_response(400, f"the body is no JSON: {first['ctx']['error']}", code="invalid_json")
    if not place:
        return error_response(400, f"the body must be a JSON object sent as application/json: {first['msg']}")
    param = ".".join(place)
    return error_response(400, f"{param}: {first['msg']}", param=param, code=first["type"])


async def _http_error(request: Request, error: HTTPException) -> JSONResponse:
    codes = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
    return error_response(
        error.status_code, str(error.detail), code=codes.get(error.status_code), headers=error.headers
    )
