"""Nobody sees what they may not: random callers and questions on every way to a text, caches and answers included."""

import base64
import json
import random
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.pipeline_helpers import Platform
from tests.integration.serving_corpus import KEYS, TOPICS, key_list, may_see
from tests.integration.serving_helpers import Served, served

pytestmark = [pytest.mark.milvus, pytest.mark.slow]

_WORDS = sorted({word.strip(".,;") for text in TOPICS.values() for word in text.split()})
# A word of its own for each topic, by which a text is recognised wherever it turns up.
_TELLING = {
    "salary": "Petra Vogel", "incident": "45 minutes", "travel": "140 euros", "garden": "dogs", "backup": "restored",
    "merger": "Nordlicht",
}  # fmt: skip


@pytest.fixture(scope="module")
def service(indexed: Platform) -> Iterator[Served]:
    limits = {"requests_per_minute": 1_000_000}
    with served(indexed, {"limits": limits}, env={"RAG_SERVING__ACCESS__KEYS": key_list()}) as made:
        yield made


@pytest.fixture(scope="module")
def ids(service: Served) -> dict[str, tuple[str, str]]:
    """Topic -> its document and chunk, found by somebody who may see it."""
    found: dict[str, tuple[str, str]] = {}
    for name in KEYS:
        for hit in service.found(" ".join(TOPICS), KEYS[name], filters={"sources": ["topics"]}, top_k=50):
            found[hit["external_id"]] = hit["doc_id"], hit["chunk_id"]
    assert found.keys() == TOPICS.keys()
    return found


def leaks(text: str, name: str) -> list[str]:
    """Return the topics in an answer that the holder of a key may not see."""
    return [topic for topic, telling in _TELLING.items() if telling in text and topic not in may_see(name)]


questions = st.one_of(
    st.sampled_from(list(TOPICS.values())),
    st.lists(st.sampled_from(_WORDS), min_size=1, max_size=8).map(" ".join),
)
bodies = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["dense", "bm25", "hybrid"]),
        "top_k": st.integers(1, 50),
        "neighbours": st.integers(0, 5),
        "explain": st.booleans(),
        "filters": st.sampled_from([{}, {"sources": ["topics"]}, {"languages": ["en"]}]),
    }
)


@given(name=st.sampled_from(sorted(KEYS)), question=questions, body=bodies)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_searches(service: Served, name: str, question: str, body: dict[str, Any]) -> None:
    answer = service.search(question, KEYS[name], **body)
    assert answer.status_code == 200
    # The question itself may hold the words: only what was found counts.
    assert not leaks(json.dumps(answer.json()["hits"]), name)
    topics = {hit["external_id"] for hit in answer.json()["hits"] if hit["source"] == "topics"}
    assert topics <= may_see(name)


@given(name=st.sampled_from(sorted(KEYS)), question=questions, stream=st.booleans())
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_answers(service: Served, name: str, question: str, stream: bool) -> None:
    body = {"model": "rag", "messages": [{"role": "user", "content": question}], "stream": stream}
    with service.client(KEYS[name]) as client:
        answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200
    assert not leaks(answer.text, name)


@given(asker=st.sampled_from(sorted(KEYS)), other=st.sampled_from(sorted(KEYS)), topic=st.sampled_from(sorted(TOPICS)))
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_caches_answers_and_documents(
    service: Served, ids: dict[str, tuple[str, str]], asker: str, other: str, topic: str
) -> None:
    """What one caller has just asked is in every cache; another asks the same, by every name it has."""
    answer = service.ask(TOPICS[topic], KEYS[asker])
    same = service.ask(TOPICS[topic], KEYS[other])
    assert not leaks(json.dumps(same), other)
    document, chunk = ids[topic]
    with service.client(KEYS[other]) as client:
        wanted = 200 if topic in may_see(other) else 404
        assert client.get(f"/v1/documents/{document}").status_code == wanted
        assert client.get(f"/v1/chunks/{chunk}", params={"neighbours": 10}).status_code == wanted
        replay = client.get(f"/v1/answers/{answer['rag']['answer_id']}")
        assert replay.status_code == (200 if asker == other else 404)
        # The question is the caller's own, whatever words it has.
        assert not leaks(json.dumps({**replay.json(), "question": ""}), other)
        rated = client.post("/v1/feedback", json={"answer_id": answer["rag"]["answer_id"], "rating": "up"})
        assert rated.status_code == (201 if asker == other else 404)
        assert not leaks(client.get("/metrics").text, other)


def test_sources_of_others_are_not_listed(service: Served) -> None:
    listed = {}
    for name, key in KEYS.items():
        with service.client(key) as client:
            listed[name] = [source["name"] for source in client.get("/v1/index").json()["sources"]]
    assert listed["nobody"] == []
    assert listed["guest"] == ["topics", "handbook"]


def _unsigned(claims: dict[str, Any]) -> str:
    parts = [{"alg": "none", "typ": "JWT"}, claims]
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


def test_nobody_else_is_let_in(service: Served, ids: dict[str, tuple[str, str]]) -> None:
    drawn = random.Random(3)
    key = KEYS["hr"]
    guesses = ["", "rag_", key[:-1], key + "x", key.swapcase(), key.removeprefix("rag_"), "null", "\u00e9" * 8]
    for _ in range(200):
        at = drawn.randrange(len(key))
        other = drawn.choice("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
        guesses.append(key[:at] + other + key[at + 1 :])
    guesses = [guess for guess in guesses if guess != key]
    guesses += [_unsigned({"sub": "chair", "groups": ["group:hr"], "exp": 4_000_000_000})]
    document, chunk = ids["incident"]
    ways = [
        ("POST", "/v1/search", {"question": "salary"}),
        ("POST", "/v1/chat/completions", {"model": "rag", "messages": [{"role": "user", "content": "salary"}]}),
        ("GET", f"/v1/documents/{document}", None),
        ("GET", f"/v1/chunks/{chunk}", None),
        ("GET", f"/v1/answers/{'0' * 32}", None),
        ("POST", "/v1/feedback", {"answer_id": "0" * 32, "rating": "up"}),
        ("GET", "/v1/models", None),
        ("GET", "/v1/index", None),
        ("GET", "/metrics", None),
    ]
    with httpx.Client(base_url=service.url) as client:
        for number, guess in enumerate(guesses):
            method, way, body = ways[number % len(ways)]
            headers = {"Authorization": f"Bearer {guess}".strip().encode()}
            answer = client.request(method, way, json=body, headers=headers)
            assert answer.status_code == 401, (guess, way)
            assert answer.headers["www-authenticate"].startswith("Bearer")
        for method, way, body in ways:
            assert client.request(method, way, json=body).status_code == 401, way
            basic = {"Authorization": "Basic " + base64.b64encode(f"x:{key}".encode()).decode()}
            assert client.request(method, way, json=body, headers=basic).status_code == 401, way
        assert client.get("/healthz").status_code == 200
