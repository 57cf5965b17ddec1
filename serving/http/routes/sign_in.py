"""`/sign-in` and `/sign-out`: a key once, then one session for all pages of this browser."""

import re
from datetime import UTC, datetime
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from pneumo.serving.access.authentication import Authenticator
from pneumo.serving.access.security import SIGN_IN, SIGN_OUT
from pneumo.serving.access.sessions import end_session, start_session
from pneumo.serving.contracts.problems import KINDS, ProblemError
from pneumo.serving.http.routes.common import receive_body
from pneumo.serving.pages.sign_in_page import render_sign_in_page

MAX_BYTES = 4000

_BACK = re.compile(r"(docs|drift(/reports/[A-Za-z0-9]+)?)?(\?[A-Za-z0-9=&._:%+-]*)?")
"""The pages of this service, to which alone a sign-in leads back."""

router = APIRouter(include_in_schema=False)


@router.get(SIGN_IN)
async def sign_in_page(request: Request) -> Response:
    """Return the page that asks for a key, or lead on where none is needed any more."""
    authenticator: Authenticator | None = request.state.authenticator
    back = request.query_params.get("next", "")
    if authenticator is None or authenticator.find_session(request.scope):
        return _lead_to(back)
    return HTMLResponse(render_sign_in_page(back))


@router.post(SIGN_IN)
async def sign_in(request: Request) -> Response:
    """Start a session with the key of a form; scripts, which accept no HTML, get 204 or a problem document."""
    fields = dict(parse_qsl((await receive_body(request, MAX_BYTES)).decode("latin-1")))
    back, is_form = fields.get("next", ""), "text/html" in request.headers.get("accept", "")
    response = _lead_to(back) if is_form else Response(status_code=204)
    authenticator: Authenticator | None = request.state.authenticator
    if authenticator is None:
        return response
    try:
        key = authenticator.check_key(request.scope, fields.get("key", "").strip())
    except ProblemError as error:
        if not is_form:
            raise
        return HTMLResponse(render_sign_in_page(back, error.detail), KINDS[error.kind][0])
    request.state.key_name = key.name
    start_session(response, request.scope, key, datetime.now(UTC))
    return response


@router.post(SIGN_OUT)
async def sign_out(request: Request) -> Response:
    """End the session of this browser."""
    response = _lead_to("")
    end_session(response, request.scope)
    return response


def _lead_to(back: str) -> Response:
    """Lead to a page of this service, by an address relative to `/sign-in`."""
    location = f"./{back}" if _BACK.fullmatch(back) else "./"
    return Response(status_code=303, headers={"Location": location})
