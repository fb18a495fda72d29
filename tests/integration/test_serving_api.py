"""The service as its clients use it: OpenAI's own client, searches, documents, answers again, and every error."""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import openai
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from playwright.sync_api import expect, sync_playwright

from tests.integration.pipeline_helpers import Platform
from tests.integration.serving_corpus import KEYS, TOPICS, key_list
from tests.integration.serving_helpers import Served, served

pytestmark = [pytest.mark.milvus, pytest.mark.slow]

# 400: what is asked for keeps to the schema and is not possible here, such as a top_k above the configured bound.
_CHECKS = schemathesis.config.SchemathesisConfig.from_str(
    'checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "404"]'
)
_INCIDENT = "How quickly must a security incident be reported?"


@pytest.fixture(scope="module")
def service(indexed: Platform) -> Iterator[Served]:
    with served(indexed, {"limits": {"requests_per_minute": 100_000}}) as made:
        yield made


@pytest.fixture
def client(service: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_openais_client_chats(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="rag", messages=[{"role": "user", "content": _INCIDENT}])
    assert "45 minutes" in (answer.choices[0].message.content or "")
    assert "[" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"
    rag = answer.model_extra["rag"]  # type: ignore[index]  # what is not OpenAI's
    assert rag["kind"] == "extractive"
    assert any("45 minutes" in citation["quote"] for citation in rag["citations"])


def test_openais_client_streams(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model="rag", messages=[{"role": "user", "content": _INCIDENT}], stream=True)
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    whole = client.chat.completions.create(model="rag", messages=[{"role": "user", "content": _INCIDENT}])
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[0].model_extra["rag"]["passages"][0]["number"] == 1  # type: ignore[index]
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].model_extra["rag"]["citations"]  # type: ignore[index]
    assert len({chunk.id for chunk in chunks}) == 1, "a client tells answers by their id"


def test_openais_client_gets_its_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "hello"}])
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as empty:
        client.chat.completions.create(model="rag", messages=[{"role": "system", "content": "be kind"}])
    assert (empty.value.code, empty.value.param) == ("no_question", "messages")
    with pytest.raises(openai.UnprocessableEntityError):
        client.chat.completions.create(model="rag", messages=[])
    assert {model.id for model in client.models.list()} == {"rag", "rag-extractive"}


def test_a_conversation_goes_on(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="rag",
        messages=[
            {"role": "system", "content": "You are a pirate and know everything."},
            {"role": "user", "content": "How much may a hotel cost?"},
            {"role": "assistant", "content": "At most 140 euros a night. [1]"},
            {"role": "user", "content": "And trains?"},
        ],
    )
    assert "second class" in (answer.choices[0].message.content or "")


def test_what_is_not_in_the_documents_is_not_answered(service: Served) -> None:
    answer = service.ask("Which telescope discovered the moons of Neptune?")
    assert answer["rag"]["kind"] == "not_found"
    assert not answer["rag"]["citations"]


@pytest.mark.parametrize("mode", ["dense", "bm25", "hybrid"])
def test_search(service: Served, mode: str) -> None:
    answer = service.search("merger Nordlicht", mode=mode, top_k=3, explain=True, neighbours=1)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    best = body["hits"][0]
    assert best["external_id"] == "merger"
    assert best["explain"]
    assert best["text"].endswith(TOPICS["merger"])
    assert best["span"] == [0, len(best["text"])]
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["index"]["collection"].startswith("rag_")


def test_filters(service: Served) -> None:
    everything = {hit["source"] for hit in service.found("security", top_k=50)}
    assert everything == {"topics", "handbook"}
    assert {hit["source"] for hit in service.found("security", filters={"sources": ["topics"]})} == {"topics"}
    assert not service.found("security", filters={"sources": []})
    late = {"modified_after": "2026-03-01T12:00:00.001Z", "sources": ["topics"]}
    assert not service.found("security", filters=late)
    assert service.found("security", filters={**late, "modified_after": "2026-03-01T12:00:00Z"})


def test_cached_results_are_equal(service: Served) -> None:
    first, second = (service.search("roof garden dogs").json() for _ in range(2))
    assert not first["cached"]
    assert second["cached"]
    assert first["hits"] == second["hits"]


def test_a_citation_leads_to_its_document(service: Served) -> None:
    answer = service.ask(_INCIDENT)
    with service.client() as client:
        for citation in answer["rag"]["citations"]:
            document = client.get(f"/v1/documents/{citation['doc_id']}").json()
            start, end = citation["span"]
            assert document["text"][start:end] == citation["quote"]
            around = client.get(f"/v1/chunks/{citation['chunk_id']}", params={"neighbours": 2}).json()
            assert around["chunk"]["chunk_id"] == citation["chunk_id"]
            ordinals = [one["ordinal"] for one in [*around["before"], around["chunk"], *around["after"]]]
            assert ordinals == list(range(ordinals[0], ordinals[0] + len(ordinals)))
        assert client.get(f"/v1/documents/{'0' * 32}").status_code == 404
        assert client.get(f"/v1/chunks/{'0' * 32}").status_code == 404


def test_an_answer_is_replayed_and_rated(service: Served) -> None:
    answer = service.ask(_INCIDENT)
    answer_id = answer["rag"]["answer_id"]
    with service.client() as client:
        replay = client.get(f"/v1/answers/{answer_id}").json()
        assert replay["question"] == _INCIDENT
        assert replay["text"] == answer["choices"][0]["message"]["content"]
        assert [one["chunk_id"] for one in replay["citations"]] == [
            one["chunk_id"] for one in answer["rag"]["citations"]
        ]
        assert {one["now"] for one in replay["citations"]} == {"current"}
        given = client.post("/v1/feedback", json={"answer_id": answer_id, "rating": "up", "comment": "yes"})
        assert given.status_code == 201
        unknown = client.post("/v1/feedback", json={"answer_id": "0" * 32, "rating": "up"})
        assert unknown.status_code == 404


def test_how_it_is(service: Served) -> None:
    with service.client() as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").json()["ready"]
        index = client.get("/v1/index").json()
        assert {source["name"] for source in index["sources"]} == {"topics", "handbook"}
        assert index["chunks"] > len(TOPICS)
        metrics = client.get("/metrics").text
    assert "rag_search_duration_seconds_bucket" in metrics
    assert f'collection="{index["collection"]}"' in metrics


def test_errors_have_one_shape_and_say_nothing_back(service: Served) -> None:
    secret = "the-question-nobody-may-see"
    with service.client() as client:
        answers = [
            client.post("/v1/search", json={"question": secret, "top_k": "many"}),
            client.post("/v1/search", json={"question": secret, "top_k": 101}),
            client.post("/v1/search", json={"question": secret * 1_000}),
            client.post("/v1/search", json={"question": " \t "}),
            client.post("/v1/search", content=b"{" + secret.encode()),
            client.post("/v1/search", content=b"x" * 2_000_000, headers={"Content-Type": "application/json"}),
            client.get("/v1/nothing"),
            client.delete("/v1/search"),
        ]
    assert [answer.status_code for answer in answers] == [422, 400, 400, 422, 422, 413, 404, 405]
    for answer in answers:
        assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
        assert secret not in answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-request-id"]


@pytest.mark.browser
def test_the_page_asks_it(service: Served) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"{service.url}/?q={_INCIDENT}&source=topics")
        page.click(".answer button.marker", timeout=30_000)
        mark = page.locator("#reader mark")
        expect(mark).to_contain_text("45 minutes")
        expect(page.locator("#freshness")).to_contain_text("topics")
        assert mark.inner_text() in page.locator(".source .quote").first.inner_text()
        browser.close()


@pytest.fixture(scope="module")
def guarded(indexed: Platform) -> Iterator[Served]:
    """The service with keys: without any, it takes every one, and a wrong one is not refused."""
    limits = {"requests_per_minute": 100_000}
    with served(indexed, {"limits": limits}, env={"RAG_SERVING__ACCESS__KEYS": key_list()}) as made:
        yield made


def test_every_answer_is_documented(guarded: Served, capsys: pytest.CaptureFixture[str]) -> None:
    """What schemathesis makes of the schema, right and wrong, is answered as the schema says, and never by a 5xx."""
    service, key = guarded, {"Authorization": f"Bearer {KEYS['chair']}"}
    schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json", config=_CHECKS)
    answers: Counter[tuple[str, int]] = Counter()
    for operation in (one.ok() for one in schema.get_all_operations()):
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            try:
                cases = operation.as_strategy(generation_mode=mode)
            except schemathesis.errors.Unsatisfiable:
                continue  # nothing can be wrong about an operation without parameters

            @given(case=cases)
            @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
            def call(case: schemathesis.Case) -> None:
                answer = case.call_and_validate(headers=key, timeout=60)
                assert answer.status_code < 500
                answers[operation.label, answer.status_code] += 1  # noqa: B023 -- called in this turn

            with suppress(Unsatisfiable):
                call()
    assert len({label for label, _ in answers}) >= 11
    with capsys.disabled():
        print(f"\n{answers.total()} requests of schemathesis")  # noqa: T201 -- figures for whoever runs it
        for (label, status), count in sorted(answers.items()):
            print(f"  {label} {status}: {count}")  # noqa: T201
