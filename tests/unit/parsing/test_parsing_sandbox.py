"""The parser process keeps its limits, survives its documents and dies with its parent."""

import io
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag_core.parsing.model import ParsedDocument
from rag_core.parsing.sandbox import ParserProcess
from rag_core.parsing.settings import ParseSettings, parser_fingerprint
from tests.unit.parsing.parsing_helpers import an_object

OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
HOOK = "tests.unit.parsing.parsing_hooks:misbehave"


@pytest.fixture
def process() -> Iterator[ParserProcess]:
    with ParserProcess(ParseSettings(timeout_s=20, memory_mib=256), target=HOOK) as parser:
        yield parser


def run(parser: ParserProcess, text: str | bytes, key: str = "a.txt") -> ParsedDocument:
    data = text.encode() if isinstance(text, str) else text
    (document,) = parser.parse(an_object(key, data), data)
    return document


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_documents_come_back_and_one_child_serves_many(process: ParserProcess) -> None:
    assert process.pid is None
    pids = {run(process, "pid please").text for _ in range(3)}
    assert pids == {f"{process.pid} {os.getpid()}"}
    assert run(process, "# Title\n\nbody", "a.md").title == "Title"
    assert run(process, b"x" * 5_000_000).text == "x" * 5_000_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("exit", "crashed on this document (exit code 3)"),
        ("segfault", "crashed on this document (signal SIGSEGV)"),
        ("kill", "killed (signal SIGKILL)"),
        ("hog", "Out of memory: parsing needed more than 256 MiB"),
    ],
)
def test_a_death_costs_one_document(process: ParserProcess, text: str, words: str) -> None:
    document = run(process, text)
    assert (document.status, document.text, document.size_bytes) == ("rejected", "", len(text))
    assert words in (document.reason or "")
    assert process.pid is None
    assert run(process, "next document").status == "ok"


@pytest.mark.slow
def test_time_limit() -> None:
    with ParserProcess(ParseSettings(timeout_s=1, memory_mib=256), target=HOOK) as parser:
        run(parser, "warm")
        pid = parser.pid
        started = time.monotonic()
        document = run(parser, "sleep")
        assert time.monotonic() - started < 5
        assert (document.status, "longer than 1 s" in (document.reason or "")) == ("rejected", True)
        assert pid is not None and not alive(pid)
        assert run(parser, "next").status == "ok"


def relations_of(kind: str, target: str) -> str:
    package = "http://schemas.openxmlformats.org/package/2006/relationships"
    relation = f'<Relationship Id="r1" Type="{OFFICE}/{kind}" Target="{target}"/>'
    return f'<Relationships xmlns="{package}">{relation}</Relationships>'


@pytest.mark.slow
def test_a_workbook_that_unpacks_to_far_more_than_the_limit_is_rejected() -> None:
    """Native code that runs out of memory aborts the process; the reason still says what happened."""
    row = b'<row><c t="inlineStr"><is><t>some words in a cell</t></is></c></row>' * 10_000
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    sheets = f'<sheets xmlns:r="{OFFICE}"><sheet name="s" sheetId="1" r:id="r1"/></sheets>'
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("_rels/.rels", relations_of("officeDocument", "xl/workbook.xml"))
        archive.writestr("xl/workbook.xml", f'<workbook xmlns="{main}">{sheets}</workbook>')
        archive.writestr("xl/_rels/workbook.xml.rels", relations_of("worksheet", "worksheets/sheet1.xml"))
        with archive.open("xl/worksheets/sheet1.xml", "w") as part:
            part.write(f'<worksheet xmlns="{main}"><sheetData>'.encode())
            for _ in range(400):
                part.write(row)
            part.write(b"</sheetData></worksheet>")
    with ParserProcess(ParseSettings(timeout_s=60, memory_mib=256)) as parser:
        document = run(parser, buffer.getvalue(), "bomb.xlsx")
        assert document.status == "rejected"
        assert "Out of memory" in (document.reason or "")
        assert run(parser, "next").status == "ok"


@pytest.mark.slow
def test_output_of_libraries_does_not_break_the_protocol(process: ParserProcess) -> None:
    assert run(process, "print").status == "ok"


@pytest.mark.slow
def test_the_child_is_replaced_after_so_many_documents_or_when_it_has_grown() -> None:
    with ParserProcess(ParseSettings(), target=HOOK, recycle_after=2) as parser:
        first = [run(parser, "pid").text for _ in range(4)]
        assert first[0] == first[1] != first[2] == first[3]
    with ParserProcess(ParseSettings(), target=HOOK, recycle_rss_mib=150) as parser:
        before = run(parser, "pid").text
        run(parser, "keep")
        assert run(parser, "pid").text != before


@pytest.mark.slow
def test_a_child_that_died_idle_is_replaced_in_silence(process: ParserProcess) -> None:
    run(process, "warm")
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    time.sleep(0.2)
    assert run(process, "next").status == "ok"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_the_child_dies_with_a_parent_that_is_killed() -> None:
    program = """
        import sys
        from tests.unit.parsing.parsing_helpers import an_object
        from rag_core.parsing.sandbox import ParserProcess
        from rag_core.parsing.settings import ParseSettings
        parser = ParserProcess(ParseSettings(), target="tests.unit.parsing.parsing_hooks:misbehave")
        parser.parse(an_object("a.txt"), b"warm")
        sys.stdout.write(f"{parser.pid}\\n")
        sys.stdout.flush()
        parser.parse(an_object("a.txt"), b"sleep")
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, env=environment, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert alive(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(50):
        if not alive(child):
            return
        time.sleep(0.1)
    pytest.fail("the child outlived its parent")


@pytest.mark.slow
def test_nothing_is_written_outside_temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with ParserProcess(ParseSettings()) as parser:
        run(parser, b"{\\rtf1 hello world}", "a.rtf")
        run(parser, "<p>hello", "a.html")
    assert list(tmp_path.iterdir()) == []


def test_settings_travel_and_the_fingerprint_moves_with_what_matters() -> None:
    settings = ParseSettings(text_field="body")
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert ParseSettings.model_validate_json(settings.model_dump_json()) == settings
    assert parser_fingerprint(settings) != parser_fingerprint(ParseSettings())
    assert parser_fingerprint(settings.model_copy(update={"timeout_s": 5.0})) == parser_fingerprint(settings)
