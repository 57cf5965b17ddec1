"""The page at `/`: drop an image, read the answer. Everything it needs comes from this service."""

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response

from pneumo.serving.http.routes.common import ServiceDependency
from pneumo.serving.pages.assets import Asset, read_assets
from pneumo.serving.pages.upload_page import render_upload_page

router = APIRouter(include_in_schema=False)


@router.api_route("/", methods=["GET", "HEAD"])
async def page(service: ServiceDependency) -> Response:
    """The page, with what the model that answers is and how good it was found."""
    champion = service.slots.champion
    # `no-cache`: after a promotion it shows the new model.
    html = render_upload_page(
        champion.bundle.info if champion else None,
        service.state,
        max_bytes=service.settings.max_bytes,
        logs=service.store is not None,
    )
    return Response(html, media_type="text/html", headers={"Cache-Control": "no-cache"})


@router.api_route("/static/{name}", methods=["GET", "HEAD"])
async def static(request: Request, name: str) -> Response:
    """A script, a style sheet or a picture of the page; browsers keep it and ask whether it is still the same."""
    asset = read_assets().get(name)
    if asset is None:
        raise HTTPException(404)
    return _answer(request, asset)


@router.api_route("/favicon.ico", methods=["GET", "HEAD"])
async def favicon(request: Request) -> Response:
    """The icon, for what asks for it where icons have always been."""
    return _answer(request, read_assets()["icon.svg"])


def _answer(request: Request, asset: Asset) -> Response:
    headers = {"Cache-Control": "no-cache", "ETag": asset.tag}
    if _names(request.headers.get("if-none-match", ""), asset.tag):
        return Response(status_code=304, headers=headers)
    return Response(asset.content, media_type=asset.media_type, headers=headers)


def _names(header: str, tag: str) -> bool:
    """Whether `If-None-Match` names a tag; compared weakly, since proxies that compress make tags weak."""
    tags = (each.strip().removeprefix("W/") for each in header.split(","))
    return header.strip() == "*" or tag in tags
