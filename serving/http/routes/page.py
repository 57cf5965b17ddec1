"""The upload page at `/` and its assets; it loads nothing from other hosts."""

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response

from pneumo.serving.http.routes.common import ServiceDependency, describe_account, find_root, is_not_modified
from pneumo.serving.pages.assets import Asset, read_assets
from pneumo.serving.pages.upload_page import render_upload_page

router = APIRouter(include_in_schema=False)


@router.get("/")
async def page(request: Request, service: ServiceDependency) -> Response:
    """Return the upload page, with the champion and its metrics."""
    champion = service.slots.get_champion_bundle()
    html = render_upload_page(
        champion.info if champion else None,
        service.state,
        max_bytes=service.settings.max_bytes,
        logs=service.store is not None,
        account=describe_account(request),
        root=find_root(request),
    )
    # `no-cache`: after a promotion the page must show the new model.
    return Response(html, media_type="text/html", headers={"Cache-Control": "no-cache"})


@router.get("/static/{name}")
async def static(request: Request, name: str) -> Response:
    """Return a script, a style sheet or a picture of the page; browsers cache it and revalidate."""
    asset = read_assets().get(name)
    if asset is None:
        raise HTTPException(404)
    return _respond(request, asset)


@router.get("/favicon.ico")
async def favicon(request: Request) -> Response:
    """Return the icon at its traditional address."""
    return _respond(request, read_assets()["icon.svg"])


def _respond(request: Request, asset: Asset) -> Response:
    headers = {"Cache-Control": "no-cache", "ETag": asset.tag}
    if is_not_modified(request, asset.tag):
        return Response(status_code=304, headers=headers)
    return Response(asset.content, media_type=asset.media_type, headers=headers)
