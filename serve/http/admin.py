"""For whoever runs the server: what is served, and a look at what the models' sources lead to now.

    POST /admin/reload   looks at once, and answers when that is done: 503 where a source was not followed
    GET  /admin/models   what is served, what was tried and why not

Both take SERVE_ADMIN_KEY (middleware.py); without one they do not exist.
"""

import asyncio

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from serve.following import Follower, Source
from serve.http.answers import Json
from serve.models.registry import Model


def build_admin(follower: Follower) -> APIRouter:
    """Return the paths below /admin."""
    admin = APIRouter(prefix="/admin")

    @admin.post("/reload")
    async def reload() -> JSONResponse:
        followed = await asyncio.wrap_future(follower.look_soon())
        return JSONResponse(_told(follower), 200 if followed else 503)

    @admin.get("/models")
    async def models() -> Json:
        return _told(follower)

    return admin


def _told(follower: Follower) -> Json:
    engine = follower.engine
    catalogue = engine.catalogue
    return {
        "default": engine.default,
        "models": [_model(model, model.name in engine.in_memory) for model in catalogue.models.values()],
        "instead_of": dict(catalogue.heirs),
        "sources": [_source(source) for source in follower.sources],
    }


def _model(model: Model, in_memory: bool) -> Json:
    told: Json = {"name": model.name, "source": model.source, "file": str(model.path), "bytes": model.size}
    return told | {"revision": model.fingerprint, "in_memory": in_memory}


def _source(source: Source) -> Json:
    told: Json = {"source": source.named, "leads_to": source.leads_to or None, "since": source.since}
    return told | ({"tried": source.tried or None, "why_not": source.why} if source.why else {})
