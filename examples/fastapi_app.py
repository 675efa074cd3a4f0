"""A search endpoint in FastAPI: the model is loaded before the first request, and `/health` says how the reranker is.

pip install 'rerank-plugins' fastapi uvicorn
python -m uvicorn fastapi_app:app --app-dir examples
"""

from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

from rerank_plugins import InputError, RerankError, load_reranker

NOTES = [
    "A refund takes five working days once the parcel is back.",
    "Parcels are sent from our warehouse in Ghent.",
    "Gift cards cannot be returned.",
]
CANDIDATES = 50

# One reranker for the whole process. Until `awarmup` it has loaded and sent nothing.
reranker = load_reranker({"use": "embedded", "deadline": 2.0, "fallback": ["passthrough"], "top_n": 3})


@asynccontextmanager
async def lifespan(_app: FastAPI):
    await reranker.awarmup()
    yield
    await reranker.aclose()


app = FastAPI(lifespan=lifespan)


class Question(BaseModel):
    query: str = Field(min_length=1, max_length=1000)


@app.post("/search")
async def search(question: Question):
    candidates = NOTES[:CANDIDATES]  # your store's async client goes here, with this limit
    try:
        response = await reranker.arerank(question.query, candidates)
    except InputError as error:  # such as a query of blanks
        raise HTTPException(422, str(error)) from error
    except RerankError as error:
        raise HTTPException(503, str(error)) from error
    best = [{"text": result.document, "score": result.relevance_score} for result in response]
    return {"results": best, "degraded": response.degraded}


@app.get("/health")
async def health():
    return reranker.stats()
