"""PowerPoint files to Markdown, a page per slide: titles, text in reading order, tables, chart labels, notes.

Written here because kreuzberg refuses a presentation for one linked picture and gives no page for most slides.
"""

import io
import posixpath
import zipfile
from collections.abc import Iterator
from typing import Any, Final

from rag_core.parsing.markdown import escape_lines, heading, markdown_table
from rag_core.parsing.model import Extract, UnreadableError, clean_line

_MAX_PART_BYTES: Final = 64 * 1024 * 1024  # of one XML part, unpacked
_MAX_SLIDES: Final = 5_000
_MAX_DEPTH: Final = 60  # groups inside groups
_TITLES: Final = frozenset({"title", "ctrTitle"})
_REPEATED: Final = frozenset({"dt", "ftr", "hdr"})  # the same on each slide: written once


class _Package:
    """The parts of an OOXML file, read with a bound on their unpacked size."""

    def __init__(self, data: bytes) -> None:
        self._archive = zipfile.ZipFile(io.BytesIO(data))
        self._names = {name.lstrip("/"): name for name in self._archive.namelist()}

    def xml(self, name: str) -> Any:
        """Parse a part; None where it is absent or broken beyond repair."""
        from lxml import etree

        if name not in self._names:
            return None
        with self._archive.open(self._names[name]) as part:
            content = part.read(_MAX_PART_BYTES + 1)
        if len(content) > _MAX_PART_BYTES:
            raise UnreadableError(f"Part {name} of the presentation unpacks to more than {_MAX_PART_BYTES} bytes.")
        parser = etree.XMLParser(resolve_entities=False, no_network=True, recover=True, huge_tree=True)
        return etree.fromstring(content, parser)

    def targets(self, name: str) -> dict[str, tuple[str, str]]:
        """Return the relations of a part: id to (kind, target part)."""
        folder, base = posixpath.split(name)
        tree = self.xml(f"{folder}/_rels/{base}.rels")
        found: dict[str, tuple[str, str]] = {}
        for relation in tree if tree is not None else ():
            target, kind = relation.get("Target") or "", (relation.get("Type") or "").rsplit("/", 1)[-1]
            if relation.get("TargetMode") != "External" and relation.get("Id"):
                path = target.lstrip("/") if target.startswith("/") else posixpath.normpath(f"{folder}/{target}")
                found[relation.get("Id")] = (kind, path)
        return found


def _name(element: Any) -> str:
    return element.tag.rsplit("}", 1)[-1] if isinstance(element.tag, str) else ""


def _children(element: Any, name: str) -> Iterator[Any]:
    return (child for child in element if _name(child) == name)


def _paragraphs(body: Any) -> Iterator[tuple[int, str]]:
    """Yield (indent level, text) of each paragraph with text."""
    for paragraph in body.iter("{*}p"):
        text, level = "", 0
        for part in paragraph:
            kind = _name(part)
            if kind in {"r", "fld"}:
                text += "".join(t.text or "" for t in part.iter("{*}t"))
            elif kind == "br":
                text += "\n"
            elif kind == "pPr":
                level = int(part.get("lvl")) if (part.get("lvl") or "").isdecimal() else 0
        if text.strip():
            yield min(level, 8), text.strip()


def _table(element: Any) -> str:
    rows = []
    for row in element.iter("{*}tr"):
        rows.append(["\n".join(text for _, text in _paragraphs(cell)) for cell in _children(row, "tc")])
    return markdown_table([row for row in rows if any(row)]) if any(any(row) for row in rows) else ""


def _placeholder(shape: Any) -> str:
    mark = next(shape.iter("{*}ph"), None)
    return "" if mark is None else (mark.get("type") or "body")


def _text_block(shape: Any) -> str:
    lines = list(_paragraphs(shape))
    if len(lines) < 2 and not any(level for level, _ in lines):
        return escape_lines("\n".join(text for _, text in lines))
    return "\n".join(f"{'  ' * level}- {text.replace(chr(10), ' ')}" for level, text in lines)


class _Slide:
    """Writes one slide."""

    def __init__(self, package: _Package, part: str, seen: set[str]) -> None:
        self._package = package
        self._seen = seen
        self._relations = package.targets(part)
        self.title: str | None = None
        self._tree = package.xml(part)

    def markdown(self) -> str:
        """Write the slide: its title as a heading, its shapes, its notes."""
        blocks = [] if self._tree is None else list(self._shapes(self._tree.find("{*}cSld/{*}spTree"), 0))
        for kind, target in self._relations.values():
            if kind == "notesSlide":
                blocks.extend(self._notes(target))
        title = heading(2, self.title or "")
        return "\n\n".join([*title, *filter(None, blocks)])

    def _shapes(self, tree: Any, depth: int) -> Iterator[str]:
        if tree is None or depth > _MAX_DEPTH:
            return
        for shape in tree:
            kind = _name(shape)
            if kind in {"grpSp", "AlternateContent", "Choice"}:
                yield from self._shapes(shape, depth + 1)
            elif kind == "graphicFrame":
                table = next(shape.iter("{*}tbl"), None)
                yield _table(table) if table is not None else self._graphic(shape)
            elif kind == "pic":
                yield from self._picture(shape)
            elif kind in {"sp", "cxnSp"}:
                role = _placeholder(shape)
                if role in _TITLES and self.title is None:
                    self.title = clean_line(" ".join(text for _, text in _paragraphs(shape)))
                elif role != "sldNum":
                    text = _text_block(shape)
                    if role not in _REPEATED or text not in self._seen:
                        yield text
                    if role in _REPEATED:
                        self._seen.add(text)

    def _picture(self, shape: Any) -> Iterator[str]:
        properties = next(shape.iter("{*}cNvPr"), None)
        description = clean_line(properties.get("descr")) if properties is not None else None
        if description and " " in description:
            yield description

    def _graphic(self, frame: Any) -> str:
        """Write the texts of a chart or diagram: titles, categories, series names, node labels."""
        texts: list[str] = []
        for reference in frame.iter("{*}chart", "{*}relIds"):
            for key, value in reference.attrib.items():
                if key.rsplit("}", 1)[-1] in {"id", "dm"} and value in self._relations:
                    tree = self._package.xml(self._relations[value][1])
                    if tree is not None:
                        texts += [e.text.strip() for e in tree.iter("{*}t", "{*}v") if e.text and e.text.strip()]
        return escape_lines("\n".join(dict.fromkeys(texts)))

    def _notes(self, part: str) -> list[str]:
        tree = self._package.xml(part)
        if tree is None:
            return []
        bodies = [shape for shape in tree.iter("{*}sp") if _placeholder(shape) == "body"]
        text = "\n".join(line for shape in bodies for _, line in _paragraphs(shape))
        return [f"Notes: {text}"] if text else []


def _slide_parts(package: _Package) -> list[str]:
    main = next((t for kind, t in package.targets("").values() if kind == "officeDocument"), "ppt/presentation.xml")
    tree, relations = package.xml(main), package.targets(main)
    parts = []
    for entry in tree.iter("{*}sldId") if tree is not None else ():
        keys = [value for key, value in entry.attrib.items() if key.startswith("{")]
        parts += [relations[key][1] for key in keys if key in relations and relations[key][0] == "slide"]
    return parts[:_MAX_SLIDES]


def pptx_extract(data: bytes) -> Extract:
    """Extract the slides of a presentation in their order.

    Raises:
        UnreadableError: The archive is damaged, or a part unpacks to too much.
    """
    try:
        package = _Package(data)
        seen: set[str] = set()
        slides = [_Slide(package, part, seen) for part in _slide_parts(package)]
        pages = [slide.markdown() for slide in slides]
        properties = package.xml("docProps/core.xml")
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise UnreadableError(f"The presentation is damaged or truncated ({error}). Get a complete copy.") from error
    title = None if properties is None else properties.findtext("{*}title")
    empty = "The presentation has no text, only pictures." if pages else "The presentation has no slides."
    return Extract(pages=pages, title=title or next((s.title for s in slides if s.title), None), empty_reason=empty)
