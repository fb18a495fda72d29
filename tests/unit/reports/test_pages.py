from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from rag_core.reports.index_page import write_index
from rag_core.reports.pages import keep_newest, names_in, read_card, read_text, write_page, write_text
from rag_core.reports.serving import page_url, report_server
from rag_core.tables.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "data"))


def put(store: Store, path: str, text: str = "<p>") -> None:
    write_page(store, path, text, title=path, written_at=datetime.now(UTC).isoformat(), tone="warn", facts={"a": "1"})


def test_a_page_is_kept_and_the_latest_is_its_copy(store: Store) -> None:
    put(store, "reports/sources/x/one.html", "one")
    put(store, "reports/sources/x/two.html", "two")
    assert read_text(store, "reports/sources/x/one.html") == "one"
    assert read_text(store, "reports/sources/x/latest.html") == "two"
    card = read_card(store, "reports/sources/x/latest.html")
    assert card is not None
    assert (card.path, card.tone, card.facts) == ("reports/sources/x/two.html", "warn", {"a": "1"})
    assert Path(card.local_path).read_text() == "two"
    assert not [name for name in names_in(store, "reports/sources/x") if name.endswith(".part")]


def test_what_is_not_there_is_none(store: Store) -> None:
    assert read_text(store, "reports/none.html") is None
    assert read_card(store, "reports/none.html") is None
    assert names_in(store, "reports/nowhere") == []
    assert "No page of a source yet" in (read_text(store, write_index(store).path) or "")


def test_old_pages_go_with_their_cards(store: Store) -> None:
    for number in range(5):
        put(store, f"reports/sources/x/{number}.html")
    keep_newest(store, "reports/sources/x", 2)
    assert sorted(names_in(store, "reports/sources/x")) == [
        "3.html", "3.json", "4.html", "4.json", "latest.html", "latest.json",
    ]  # fmt: skip


@pytest.mark.slow
def test_the_server_shows_pages_and_nothing_else(store: Store) -> None:
    from threading import Thread

    put(store, "reports/sources/x/one.html", "one")
    write_index(store)
    write_text(store, "tables/secret.html", "secret")
    with report_server(store, port=0) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_address[1]}"
        found = httpx.get(page_url("reports/sources/x/one.html", base))
        assert (found.status_code, found.text) == (200, "one")
        assert "Reports" in httpx.get(f"{base}/").text
        for path in ("../tables/secret.html", "%2e%2e/tables/secret.html", "/etc/passwd", "none.html", "sources/x",
                     "sources/x/one.json", "//etc/hosts.html", "..%5ctables%5csecret.html"):  # fmt: skip
            assert httpx.get(f"{base}/{path}").status_code == 404, path
        server.shutdown()
