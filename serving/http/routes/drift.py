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

from pneumo.serving.access.security import POLICIES
from pneumo.serving.contracts.problems import KINDS, ProblemError, describe_problems
from pneumo.serving.drift.verdict import DriftCheck
from pneumo.serving.http.routes.common import (
    ServiceDependency,
    build_bundle_lookup,
    describe_account,
    is_not_modified,
    require_log,
    run_on_log,
)

PLOTLY = "/static/vendor/plotly.min.js"

router = APIRouter()


@router.get("/drift", include_in_schema=False)
async def dashboard(request: Request, service: ServiceDependency) -> Response:
    """Return the dashboard of one model: verdict, trends, distributions, performance, reports."""
    try:
        store = require_log(service)
        models = build_bundle_lookup(service)

        def render() -> str:
            from pneumo.serving.pages.dashboard.board import BoardQuery, gather_board
            from pneumo.serving.pages.dashboard.dashboard_page import render_dashboard

            board = gather_board(store, models, BoardQuery.from_query(request.query_params), now=datetime.now(UTC))
            return render_dashboard(board, draws=_plotly() is not None, account=describe_account(request))

        return _respond_page(await run_on_log(store, render))
    except ProblemError as error:
        return _respond_problem(error)


@router.get("/drift/reports/{key}", include_in_schema=False)
async def report(request: Request, service: ServiceDependency, key: str) -> Response:
    """Return Evidently's report of a stored check, in a sandbox."""
    try:
        store = require_log(service)

        def read() -> bytes | None:
            from pneumo.serving.drift.stored_checks import read_page

            store.prepare()
            return read_page(store, key) if key.isalnum() else None  # PostgreSQL refuses NUL

        page = await run_on_log(store, read)
        if page is None:
            raise ProblemError("no-check", "no such check, or its report was deleted; only the newest ones are stored")
        headers = {"Content-Security-Policy": POLICIES["report"]}
        return _respond_gzipped(request, page, "text/html; charset=utf-8", headers)
    except ProblemError as error:
        return _respond_problem(error)


@router.get(
    "/v1/drift",
    response_model=DriftCheck,
    responses=describe_problems(404, 409),
    tags=["drift"],
    summary="The latest drift check",
)
async def latest(
    service: ServiceDependency,
    version: Annotated[str | None, Query(description="A version as `name:version`; by default any.")] = None,
) -> Response:
    """Return the verdict on the newest images, with the statistics of each column."""
    store = require_log(service)

    def read() -> DriftCheck | None:
        from pneumo.serving.drift.stored_checks import latest_check

        store.prepare()
        if version and not version.isprintable():  # PostgreSQL refuses NUL
            return None
        model, _, number = version.partition(":") if version else (None, "", None)
        stored = latest_check(store, model, number)
        return stored.check if stored else None

    check = await run_on_log(store, read)
    if check is None:
        raise ProblemError("no-check", "there is none yet; `pneumo drift report --store` checks the newest images")
    return Response(check.model_dump_json(), media_type="application/json")


@router.get(PLOTLY, include_in_schema=False)
def plotly(request: Request) -> Response:
    """Return plotly.js from the installed Python package."""
    script = _plotly()
    if script is None:
        raise HTTPException(404)
    tag = f'"{script.stat().st_mtime_ns:x}"'
    headers = {"Cache-Control": "no-cache", "ETag": tag}
    if is_not_modified(request, tag):
        return Response(status_code=304, headers=headers)
    return _respond_gzipped(request, _compress(script), "text/javascript; charset=utf-8", headers)


def _plotly() -> Path | None:
    """Return plotly.js of the installed package, which is not imported, or None without the package."""
    spec = importlib.util.find_spec("plotly")
    if spec is None or not spec.submodule_search_locations:
        return None
    script = Path(spec.submodule_search_locations[0]) / "package_data" / "plotly.min.js"
    return script if script.is_file() else None


@functools.cache
def _compress(script: Path) -> bytes:
    return gzip.compress(script.read_bytes(), 6, mtime=0)


def _respond_gzipped(request: Request, content: bytes, media_type: str, headers: dict[str, str]) -> Response:
    """Send gzipped content as it is to a client that accepts gzip, and decompressed to others."""
    headers = {"Vary": "Accept-Encoding", **headers}
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
    else:
        content = gzip.decompress(content)
    return Response(content, media_type=media_type, headers=headers)


def _respond_page(html: str, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    headers = {"Content-Security-Policy": POLICIES["dashboard"], **(headers or {})}
    return Response(html, status, media_type="text/html", headers=headers)


def _respond_problem(error: ProblemError) -> Response:
    """Return a problem as a page."""
    from pneumo.serving.pages.dashboard.dashboard_page import render_problem

    status, title = KINDS[error.kind]
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    text = escape(error.detail[:1].upper() + error.detail[1:])
    return _respond_page(render_problem(f"{title}.", f"{text}."), status, headers)
