"""Web pages and HTML bodies of mails to Markdown."""

import re
from typing import Any, Final

from rag_core.parsing.html_markdown import MarkdownWriter, flatten_inline
from rag_core.parsing.html_prune import prune
from rag_core.parsing.model import Extract

# Generators add the site's name to a page's title: "3. Binary packages — Debian Policy Manual", "Duck - Wikipedia".
_SITE_NAME: Final = re.compile(r"\s+(?:[|–—·»]|-|::)\s+[^|–—·»]{2,60}$")


def _parse(text: str) -> Any:
    from lxml import etree

    # Not lxml.html: its element classes are looked up in Python, a sixth of the whole time.
    parser = etree.HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True, no_network=True)
    try:
        return etree.fromstring(text.encode("utf-8", "replace"), parser)
    except etree.XMLSyntaxError:  # nothing but comments and white space
        return None


def _title(tree: Any) -> str | None:
    found = tree.find(".//title")
    title = " ".join("".join(found.itertext()).split()) if found is not None else ""
    if not title:
        return None
    first = [" ".join("".join(h.itertext()).replace("¶", "").split()) for h in tree.findall(".//h1")[:2]]
    shortened = _SITE_NAME.sub("", title)
    return shortened if shortened in first or (shortened and not first) else title


def html_extract(text: str) -> Extract:
    """Extract main content, title and declared language of a page.

    Args:
        text: The decoded page; a declared charset inside it no longer counts.
    """
    tree = _parse(text)
    if tree is None:
        return Extract()
    declared = (tree.get("lang") or tree.get("{http://www.w3.org/XML/1998/namespace}lang") or "")[:2].lower()
    title = _title(tree)
    body = tree.find("body")
    blocks: list[str] = []
    for content in prune(body if body is not None else tree):
        flatten_inline(content)
        blocks.extend(MarkdownWriter().blocks(content))
    return Extract(
        text="\n\n".join(blocks), title=title, language=declared if declared.isascii() and declared.isalpha() else None
    )
