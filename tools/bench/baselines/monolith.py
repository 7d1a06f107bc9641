"""The whole pipeline in one FastAPI process. Run it with `uvicorn tools.bench.baselines.monolith:app`."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field

from tools.bench.baselines import work

app = FastAPI()


class MonolithBody(BaseModel):
    """The request body."""

    user_id: str = Field(min_length=1, max_length=128)
    top_k: int = Field(5, ge=1, le=100)


@app.post("/")
async def recommend(body: MonolithBody) -> dict[str, Any]:
    """Recommend items."""
    features, history = await work.extract(body.user_id)
    return {"user_id": body.user_id, "recommendations": work.rank(features, history, body.top_k)}
