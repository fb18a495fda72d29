"""`GET /` and the page's own files: plain HTML, CSS and ES modules, served as they lie there."""

from pathlib import Path
from typing import Final

from fastapi import APIRouter
from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException

_FILES: Final = Path(__file__).parent / "static"
_TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
# Browsers ask whether a file changed (ETag) instead of guessing: no user has an old script after an upgrade.
_HEADERS: Final = {"Cache-Control": "no-cache"}


def page_routes() -> APIRouter:
    """Return the routes of the page. They need no caller: the page itself holds nothing of the documents."""
    router = APIRouter(include_in_schema=False)
    files = {path.name: path for path in _FILES.iterdir() if path.suffix in _TYPES}

    @router.get("/")
    async def page() -> FileResponse:
        return FileResponse(_FILES / "index.html", media_type="text/html", headers=_HEADERS)

    @router.get("/page/{name}")
    async def page_file(name: str) -> FileResponse:
        path = files.get(name)
        if path is None:
            raise HTTPException(404)
        return FileResponse(path, media_type=_TYPES[path.suffix], headers=_HEADERS)

    return router
