"""
Three FastAPI services with httpx between them, each run as `uvicorn tools.bench.compared.composition:NAME`.

NAME is `extract_features`, `rank_items` or `recommend`; the last finds the others by EXTRACT_FEATURES_URL and
RANK_ITEMS_URL.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI, Request
from pydantic import BaseModel, Field

from tools.bench.compared import work


class User(BaseModel):
    """Whose features."""

    user_id: str


class Candidate(BaseModel):
    """Whom to rank for."""

    features: dict[str, Any]
    history: list[str]
    top_k: int


class Recommendation(BaseModel):
    """The body of a request."""

    user_id: str = Field(min_length=1, max_length=128)
    top_k: int = Field(5, ge=1, le=100)


@asynccontextmanager
async def with_client(app: FastAPI) -> AsyncIterator[None]:
    """Open one httpx client for the life of the process."""
    async with httpx.AsyncClient() as client:
        app.state.client = client
        yield


extract_features = FastAPI()
rank_items = FastAPI()
recommend = FastAPI(lifespan=with_client)


@extract_features.post("/")
async def _extract(user: User) -> dict[str, Any]:
    features, history = await work.extract(user.user_id)
    return {"user_id": user.user_id, "features": features, "history": history}


@rank_items.post("/")
async def _rank(candidate: Candidate) -> dict[str, Any]:
    return {"items": work.rank(candidate.features, candidate.history, candidate.top_k)}


@recommend.post("/")
async def _recommend(request: Request, body: Recommendation) -> dict[str, Any]:
    client: httpx.AsyncClient = request.app.state.client
    known = (await client.post(os.environ["EXTRACT_FEATURES_URL"], json={"user_id": body.user_id})).json()
    asked = {"features": known["features"], "history": known["history"], "top_k": body.top_k}
    ranked = (await client.post(os.environ["RANK_ITEMS_URL"], json=asked)).json()
    return {"user_id": body.user_id, "recommendations": ranked["items"]}
