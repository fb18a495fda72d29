"""`rag report` as a user runs it, and its pages in a browser: narrow and wide, light and dark, without scripts."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from rag_core.config import RagConfig
from rag_core.reports.pages import read_text
from rag_core.stages.verdict import append_verdict
from rag_core.tables.store import Store
from tests.report_support import config_of, fill, verdict_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PAGES = ("reports/index.html", "reports/sources/handbook/latest.html", "reports/publications/latest.html")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose pages were written by the command, and its rag.yaml."""
    folder = tmp_path_factory.mktemp("reports")
    config = config_of(folder)
    store = Store.of(config.store)
    fill(store)
    append_verdict(store, verdict_of(config, passed=False))
    _write_yaml(folder, config)
    return folder


def _write_yaml(folder: Path, config: RagConfig) -> None:
    sources = [{"name": one.name, "kind": "files", "root": str(folder), "buckets": 2} for one in config.sources]
    (folder / "rag.yaml").write_text(yaml.safe_dump({"store": {"root": "./data"}, "sources": sources}))


def rag(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rag_assets.cli", *arguments]
    environment = {**os.environ, "RAG_CONFIG": str(folder / "rag.yaml"), "COLUMNS": "60"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def written(folder: Path) -> list[Path]:
    done = rag(folder, "report")
    assert done.returncode == 0, done.stderr
    return [Path(line) for line in done.stdout.splitlines()]


def test_it_prints_where_the_pages_are(written: list[Path], folder: Path) -> None:
    assert [path.exists() for path in written] == [True] * 4, "two sources, a verdict, the index"
    assert written[-1] == folder / "data" / "reports" / "index.html"
    again = rag(folder, "report", "--source", "wiki")
    assert len(again.stdout.splitlines()) == 2, "the verdict has its page"


def test_an_unknown_source_and_a_run_without_tests_are_told(written: list[Path], folder: Path) -> None:
    wrong = rag(folder, "report", "--source", "wikki")
    assert wrong.returncode == 2
    assert "expected one of handbook, wiki" in wrong.stderr
    assert "no validations are kept of run none" in rag(folder, "report", "--run", "none").stderr


def test_every_link_leads_to_a_page(written: list[Path]) -> None:
    import re

    for path in written:
        for href in re.findall(r'<a href="([^"]+)"', path.read_text()):
            assert (path.parent / href).resolve().is_file(), f"{path}: {href}"


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on PATH")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium)
        yield opened
        opened.close()


@pytest.mark.browser
@pytest.mark.parametrize("width", [420, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_and_load_nothing(
    browser: "Browser", written: list[Path], folder: Path, scheme: str, width: int
) -> None:
    store = Store(str(folder / "data"))
    for name in PAGES:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page, asked, errors = context.new_page(), [], []
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        page.on("console", lambda message, errors=errors: errors.append(message.text))
        page.goto((folder / "data" / name).as_uri())
        assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
        assert errors == []
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow == 0, f"{name} at {width} pixels is {overflow} too wide: wide tables must scroll by themselves"
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(18, 22, 28)") == (scheme == "dark")
        assert page.inner_text("h1") in (read_text(store, name) or "")
        context.close()
