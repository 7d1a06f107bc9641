"""Everything in one FastAPI process: `uvicorn tools.bench.compared.monolith:app`."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field

from tools.bench.compared import work

app = FastAPI()


class Request(BaseModel):
    """The body of a request."""

    user_id: str = Field(min_length=1, max_length=128)
    top_k: int = Field(5, ge=1, le=100)


@app.post("/")
async def recommend(request: Request) -> dict[str, Any]:
    """Recommend items."""
    features, history = await work.extract(request.user_id)
    return {"user_id": request.user_id, "recommendations": work.rank(features, history, request.top_k)}
