"""`/drift`, the dashboard, and `/v1/drift`."""

import functools
import gzip
import importlib.util
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import Response

from pneumo.serving.contracts import problems
from pneumo.serving.contracts.problems import KINDS, ProblemError
from pneumo.serving.drift.verdict import DriftCheck
from pneumo.serving.http.routes.common import ServiceDependency, build_bundle_lookup, require_log, run_on_log

PLOTLY = "/static/vendor/plotly.min.js"

# plotly.js puts the style sheet of its maps into the page; its own rules go into the page's (`drift.html`). The first
# sum is of an empty style sheet.
_PLOTLY_STYLES = (
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' 'sha256-gG0b4ixT/IQUp7JJLbyKcpYcYDjq2Wp8NGv3f+aasqo='"
)
_PAGE_POLICY = (
    f"default-src 'self'; style-src 'self' {_PLOTLY_STYLES}; img-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
)
# Evidently's page is one file with its script inside. In a sandbox it can read nothing of this service, and without
# any source to connect to it can tell nothing to anybody.
_REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)

router = APIRouter()


@router.api_route("/drift", methods=["GET", "HEAD"], include_in_schema=False)
async def dashboard(request: Request, service: ServiceDependency) -> Response:
    """What the prediction log says of a model: verdict, trends, distributions, performance, reports."""
    try:
        store = require_log(service)
        models = build_bundle_lookup(service)

        def work() -> str:
            from pneumo.serving.pages.dashboard.board import BoardQuery, gather_board
            from pneumo.serving.pages.dashboard.dashboard_page import render_dashboard

            board = gather_board(store, models, BoardQuery.from_query(request.query_params), now=datetime.now(UTC))
            return render_dashboard(board, draws=_plotly() is not None)

        return _page(await run_on_log(store, work))
    except ProblemError as error:
        return _in_words(error)


@router.api_route("/drift/reports/{key}", methods=["GET", "HEAD"], include_in_schema=False)
async def report(request: Request, service: ServiceDependency, key: str) -> Response:
    """Evidently's page of a stored check, locked into a sandbox of its own."""
    try:
        store = require_log(service)

        def work() -> bytes | None:
            from pneumo.serving.drift.stored_checks import read_page

            store.prepare()
            return read_page(store, key) if key.isalnum() else None  # PostgreSQL takes no NUL

        page = await run_on_log(store, work)
        if page is None:
            raise ProblemError("no-check", "no such check, or its report is not kept any more; the newest ones are")
        return _packed(request, page, "text/html; charset=utf-8", {"Content-Security-Policy": _REPORT_POLICY})
    except ProblemError as error:
        return _in_words(error)


@router.get(
    "/v1/drift",
    response_model=DriftCheck,
    responses=problems.describe_responses(401, 404, 409, 429, 503),
    tags=["drift"],
    summary="The latest drift check",
)
async def latest(
    service: ServiceDependency,
    version: Annotated[str | None, Query(description="Of one version, as `name:version`; by default of any.")] = None,
) -> Response:
    """The verdict on the newest images, with the columns behind it and what they mean."""
    store = require_log(service)

    def work() -> DriftCheck | None:
        from pneumo.serving.drift.stored_checks import latest_check

        store.prepare()
        if version and not version.isprintable():  # PostgreSQL takes no NUL
            return None
        model, _, number = version.partition(":") if version else (None, "", None)
        found = latest_check(store, model, number)
        return found.check if found else None

    check = await run_on_log(store, work)
    if check is None:
        raise ProblemError(
            "no-check", "none was made yet; `pneumo drift report --store` makes one of the newest images"
        )
    return Response(check.model_dump_json(), media_type="application/json")


@router.api_route(PLOTLY, methods=["GET", "HEAD"], include_in_schema=False)
def plotly(request: Request) -> Response:
    """The script that draws, out of the Python package."""
    script = _plotly()
    if script is None:
        raise HTTPException(404)
    tag = f'"{script.stat().st_mtime_ns:x}"'
    headers = {"Cache-Control": "no-cache", "ETag": tag}
    if request.headers.get("if-none-match", "").removeprefix("W/") == tag:
        return Response(status_code=304, headers=headers)
    return _packed(request, _compressed(script), "text/javascript; charset=utf-8", headers)


def _plotly() -> Path | None:
    """plotly.js of the installed package, which is not imported; None where there is none."""
    found = importlib.util.find_spec("plotly")
    if found is None or not found.submodule_search_locations:
        return None
    script = Path(found.submodule_search_locations[0]) / "package_data" / "plotly.min.js"
    return script if script.is_file() else None


@functools.cache
def _compressed(script: Path) -> bytes:
    return gzip.compress(script.read_bytes(), 6, mtime=0)


def _packed(request: Request, packed: bytes, media_type: str, headers: dict[str, str]) -> Response:
    """Send what is gzipped as it is, to who can unpack it."""
    known = {"Vary": "Accept-Encoding", **headers}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(packed, media_type=media_type, headers={"Content-Encoding": "gzip", **known})
    return Response(gzip.decompress(packed), media_type=media_type, headers=known)


def _page(html: str, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    headers = {"Content-Security-Policy": _PAGE_POLICY, **(headers or {})}
    return Response(html, status, media_type="text/html", headers=headers)


def _in_words(error: ProblemError) -> Response:
    """A problem as a page."""
    from pneumo.serving.pages.dashboard.dashboard_page import render_problem

    status, title = KINDS[error.kind]
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return _page(
        render_problem(f"{title}.", f"{escape(error.detail[:1].upper() + error.detail[1:])}."), status, headers
    )
