"""
Three FastAPI services connected by httpx. Run each with `uvicorn tools.bench.baselines.composition:NAME`.

NAME is `extract_features`, `rank_items` or `recommend`. `recommend` reads the URLs of the other two from
EXTRACT_FEATURES_URL and RANK_ITEMS_URL.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI, Request
from pydantic import BaseModel, Field

from tools.bench.baselines import work


class FeaturesBody(BaseModel):
    """The request body of extract_features."""

    user_id: str


class RankBody(BaseModel):
    """The request body of rank_items."""

    features: dict[str, Any]
    history: list[str]
    top_k: int


class RecommendBody(BaseModel):
    """The request body of recommend."""

    user_id: str = Field(min_length=1, max_length=128)
    top_k: int = Field(5, ge=1, le=100)


@asynccontextmanager
async def with_client(app: FastAPI) -> AsyncIterator[None]:
    """Open one httpx client for the lifetime of the process."""
    async with httpx.AsyncClient() as client:
        app.state.client = client
        yield


extract_features = FastAPI()
rank_items = FastAPI()
recommend = FastAPI(lifespan=with_client)


@extract_features.post("/")
async def _extract(body: FeaturesBody) -> dict[str, Any]:
    features, history = await work.extract(body.user_id)
    return {"user_id": body.user_id, "features": features, "history": history}


@rank_items.post("/")
async def _rank(body: RankBody) -> dict[str, Any]:
    return {"items": work.rank(body.features, body.history, body.top_k)}


@recommend.post("/")
async def _recommend(request: Request, body: RecommendBody) -> dict[str, Any]:
    client: httpx.AsyncClient = request.app.state.client
    user = (await client.post(os.environ["EXTRACT_FEATURES_URL"], json={"user_id": body.user_id})).json()
    query = {"features": user["features"], "history": user["history"], "top_k": body.top_k}
    ranked = (await client.post(os.environ["RANK_ITEMS_URL"], json=query)).json()
    return {"user_id": body.user_id, "recommendations": ranked["items"]}
