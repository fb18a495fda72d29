"""The page in a real browser: every state of it, by keyboard, on a phone, and with documents that mean harm."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.page_server import QUOTE, TEXT, PageServer, answers, extras, page_server, refuses

pytestmark = pytest.mark.browser

_EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def server() -> Iterator[PageServer]:
    with page_server() as made:
        yield made


@pytest.fixture
def page(browser: Browser, server: PageServer) -> Iterator[Page]:
    """The page, which must not have said anything to the console but that requests were refused."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(server.url)
    expect(page.locator("#standing-text")).not_to_have_text("…")
    yield page
    context.close()
    assert not [text for text in said if not text.startswith("Failed to load resource")]


def ask(page: Page, question: str = "When does the valve open?") -> None:
    page.fill("#question", question)
    page.keyboard.press("Enter")


def test_an_answer_streams_and_its_citation_opens(page: Page, server: PageServer) -> None:
    server.go_on.clear()
    ask(page)
    expect(page.locator(".wait")).to_have_text("Reading 2 passages…")
    expect(page.locator(".answer")).to_contain_text("opens at noon 😀 sharp.")
    assert page.locator(".sources").count() == 0, "it has not ended"
    server.go_on.set()
    expect(page.locator(".sources li")).to_have_count(1)
    expect(page.locator(".turn .notice")).to_contain_text("not written by a language model")
    page.click(".answer button.marker")
    expect(page.locator("#reader mark")).to_have_text(QUOTE)
    assert page.locator("#reader-text").inner_text().replace("\n", "") == TEXT.replace("\n", "")
    expect(page.locator("#reader mark")).to_be_in_viewport()
    expect(page.locator("#reader-about")).to_contain_text("manuals · page 3")
    page.keyboard.press("Escape")
    expect(page.locator("#reader")).to_be_hidden()
    expect(page.locator(".answer button.marker")).to_be_focused()


def test_all_of_it_by_keyboard(page: Page) -> None:
    page.locator("body").press("Tab")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    page.keyboard.type("When does")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("the valve open?")
    page.keyboard.press("Enter")
    expect(page.locator(".sources li")).to_have_count(1)
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.answer .marker')"):
            break
    page.keyboard.press("Enter")
    expect(page.locator("#reader-title")).to_be_focused()
    expect(page.locator("#reader mark")).to_be_visible()


def test_filters_are_in_the_request_and_in_the_address(page: Page, server: PageServer) -> None:
    page.click("#filters summary")
    page.check("input[value=wiki]")
    page.fill("#after", "2026-01-02")
    expect(page.locator("#filters-set")).to_have_text("(2 filters)")
    ask(page, "valve?")
    expect(page.locator(".sources")).to_be_visible()
    wanted = {"sources": ["wiki"], "modified_after": "2026-01-02T00:00:00Z"}
    assert server.asked[-1]["filters"] == wanted
    assert page.url.endswith("?q=valve%3F&source=wiki&after=2026-01-02")
    page.reload()
    expect(page.locator(".turn h2")).to_have_text("valve?")
    expect(page.locator(".sources")).to_be_visible()
    assert server.asked[-1]["filters"] == wanted
    assert page.is_checked("input[value=wiki]")
    page.click("#clear-filters")
    ask(page, "pump?")
    expect(page.locator(".sources")).to_have_count(2)
    assert server.asked[-1]["filters"] == {}
    assert [message["content"] for message in server.asked[-1]["messages"]] == ["valve?", f"{QUOTE} [1]", "pump?"]
    page.go_back()
    expect(page.locator("input[value=wiki]")).to_be_checked()


def test_a_key_is_asked_for_and_used(browser: Browser, server: PageServer) -> None:
    server.needed_key = "rag_right"
    page = browser.new_page()
    page.goto(f"{server.url}/?q=valve")
    expect(page.locator("#key")).to_be_focused()
    page.keyboard.type("rag_wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key-problem")).to_have_text("the key is not known")
    page.fill("#key", "rag_right")
    page.keyboard.press("Enter")
    expect(page.locator(".sources")).to_be_visible()
    expect(page.locator("#key-form")).to_be_hidden()
    page.click("#forget")
    expect(page.locator("#key-form")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0
    page.close()


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (refuses(503, "the index does not answer", Retry_After="2"), "The index cannot be searched"),
        (refuses(429, "slow down", Retry_After="2"), "Too many questions"),
    ],
)
def test_a_refusal_says_when_to_come_back(page: Page, server: PageServer, refusal: object, said: str) -> None:
    server.answering = refusal  # type: ignore[assignment]
    ask(page)
    expect(page.locator(".turn .warn")).to_contain_text(said)
    button = page.locator(".turn .warn button")
    expect(button).to_be_disabled()
    server.answering = answers()
    expect(button).to_be_enabled(timeout=10_000)
    button.click()
    expect(page.locator(".sources")).to_be_visible()
    expect(page.locator(".turn")).to_have_count(1)


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (refuses(403, "this key may not ask"), "No access: this key may not ask"),
        (refuses(413, "too large"), "The question is too long."),
        (refuses(422, "no such field"), "no such field"),
        (refuses(500, "internal error"), "internal error"),
    ],
)
def test_other_refusals(page: Page, server: PageServer, refusal: object, said: str) -> None:
    server.answering = refusal  # type: ignore[assignment]
    ask(page)
    expect(page.locator(".turn .warn p")).to_have_text(said)


def test_an_answer_that_breaks_off_stays(page: Page, server: PageServer) -> None:
    server.answering = answers(until=560)
    ask(page)
    expect(page.locator(".turn .warn")).to_contain_text("The answer broke off")
    server.answering = answers()
    page.click(".turn .warn button")
    expect(page.locator(".sources")).to_be_visible()


def test_escape_stops_an_answer(page: Page, server: PageServer) -> None:
    server.go_on.clear()
    ask(page)
    expect(page.locator(".answer")).to_contain_text("noon")
    page.keyboard.press("Escape")
    expect(page.locator(".turn .notice")).to_have_text("Stopped.")
    expect(page.locator("#send")).to_be_visible()


def test_what_is_not_in_the_documents_and_what_is_not_supported(page: Page, server: PageServer) -> None:
    sentence = {"text": "The documents do not say.", "citations": [], "supported": True, "support": 1.0}
    server.answering = answers(extras(kind="not_found", citations=[], sentences=[sentence]))
    ask(page)
    expect(page.locator(".not-found")).to_have_text("The documents do not say.")
    invented = {"text": "It opens at two. [1]", "citations": [1], "supported": False, "support": 0.1}
    index = {**extras()["index"], "stale": True}
    server.answering = answers(extras(kind="generated", degraded="timeout", sentences=[invented], index=index))
    ask(page, "And when else?")
    expect(page.locator(".unsupported")).to_contain_text("It opens at two.")
    expect(page.locator(".unsupported")).to_contain_text("not supported by the passages")
    expect(page.locator(".turn .notice").last).to_contain_text("earlier search")


def test_documents_are_text_and_never_html(page: Page, server: PageServer) -> None:
    quote = f"{_EVIL} & more"
    citation = extras()["citations"][0] | {"title": _EVIL, "quote": quote, "span": [0, len(quote)], "source": _EVIL}
    sentence = {"text": f"{_EVIL} [1]", "citations": [1], "supported": True, "support": 1.0}
    server.answering = answers(extras(citations=[citation], sentences=[sentence]))
    server.document = {"title": _EVIL, "text": quote + " and so on", "uri": f"file:///{_EVIL}"}
    ask(page, _EVIL)
    page.click(".answer button.marker")
    expect(page.locator("#reader mark")).to_have_text(quote)
    expect(page.locator("#reader-title")).to_have_text(_EVIL)
    assert page.locator("main img, main script, aside img, aside script").count() == 0
    assert page.title() == "Ask the documents"


def test_a_document_that_has_changed_is_not_marked_wrongly(page: Page, server: PageServer) -> None:
    server.document = {"text": "Something else stands here now."}
    ask(page)
    page.click(".source")
    expect(page.locator("#reader .warn")).to_contain_text("has changed since")
    expect(page.locator("#reader mark")).to_have_text(QUOTE)


def test_thumbs(page: Page, server: PageServer) -> None:
    ask(page)
    page.click("text=Not helpful")
    expect(page.get_by_role("button", name="Not helpful")).to_have_attribute("aria-pressed", "true")
    page.fill(".comment input", "It is about pumps")
    page.keyboard.press("Enter")
    expect(page.locator(".comment")).to_be_hidden()
    answer = {"answer_id": "a" * 32, "rating": "down"}
    assert server.feedback == [answer, answer | {"comment": "It is about pumps"}]


def test_how_fresh_it_is(page: Page, server: PageServer) -> None:
    expect(page.locator("#index")).to_contain_text("1,398 documents · 1,775 passages · recall@10 0.999")
    expect(page.locator("#freshness")).to_contain_text("wiki: falling behind fast, a change waits since 2 hours")
    expect(page.locator("#standing-text")).to_have_text("index falling behind fast")
    server.index = {**server.index, "problem": "the last look at the index failed"}
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("#problem")).to_contain_text("The last look at the index failed")


def test_on_a_phone(browser: Browser, server: PageServer) -> None:
    page = browser.new_page(viewport={"width": 375, "height": 812})
    page.goto(server.url)
    ask(page, "Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichen" * 2)
    expect(page.locator(".sources")).to_be_visible()
    page.click("#filters summary")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    page.click(".source")
    expect(page.locator("#reader mark")).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    assert page.locator("#reader").bounding_box() == {"x": 0, "y": 0, "width": 375, "height": 812}
    page.close()
