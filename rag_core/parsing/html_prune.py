"""Cutting a web page down to its content: navigation, boilerplate and permalink marks go, the main part stays.

Rules look at tags, roles, and whole words of `class` and `id`; text is only weighed where a page has no such marks, for
rows of links above its first heading and at its very end. Known generators: Sphinx, DocBook (PostgreSQL, AsciiDoc),
MediaWiki, Docusaurus, MkDocs, javadoc, the usual blogs.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

_DROPPED_TAGS: Final = (
    "script style noscript template svg canvas iframe object embed applet nav audio video button input select textarea "
    "dialog map link meta base title head math-renderer"
)
_DROPPED_ROLES: Final = (
    "navigation search complementary contentinfo banner menu menubar menuitem toolbar tablist dialog alertdialog "
    "doc-backlink"
)
_DROPPED_WORDS: Final = """
    nav navbar navigation navheader navfooter nav-bar navlinks main-nav site-nav subnav pagination pager prev-next
    pagination-nav prev-next-area sphinxsidebar sphinxsidebarwrapper bd-sidebar wy-nav-side wy-breadcrumbs sidebar
    side-bar sidebar-wrapper theme-doc-sidebar-container breadcrumb breadcrumbs headerlink header-anchor hash-link
    anchorjs-link permalink id_link mobile-nav skip-link skip-to-content skiplink skipnav site-footer page-footer
    site-header footer-links global-footer cookie cookies cookie-banner cookie-notice cookie-consent consent-banner
    share-buttons social-share sharedaddy social-links mw-editsection mw-jump-link mw-indicators catlinks printfooter
    navbox vertical-navbox sistersitebox noprint mw-navigation mw-footer mw-hidden-catlinks vector-header-container
    vector-column-start vector-page-toolbar vector-dropdown mw-portlet linenos lineno line-numbers linenodiv
    navigationbar global-nav breadcrumb-nav footer boost_footer copyright-footer
toplang bottomlang copybtn copy-button sr-only visually-hidden screen-reader-text
"""
_CONTENTS_WORDS: Final = frozenset(
    {"toc", "contents", "local-toc", "table-of-contents", "tableofcontents", "vector-toc"}
)
_TAGS: Final = frozenset(_DROPPED_TAGS.split())
_ROLES: Final = frozenset(_DROPPED_ROLES.split())
_WORDS: Final = frozenset(_DROPPED_WORDS.split())
_CONTENTS_ONLY_CHARS: Final = 300  # a page with less beside its table of contents is one: then the contents stay
_MAIN_PATHS: Final = (
    "//main",
    '//*[@role="main"]',
    '//*[@id="mw-content-text"]',
    "//body//article",
    '//div[contains(concat(" ",@class," ")," markdown-body ") or contains(concat(" ",@class," ")," body ")]',
)
_MAIN_SHARE: Final = 0.4  # a "main" element with less of the page's text is a teaser, not the content
_PERMALINK_TEXT: Final = frozenset({"¶", "#", "§", "🔗", "\uf0c1", "Permalink", "[edit]", "[source]"})
# A list of articles beside a post is what a reader would look for, and says so in its label; menus do not.
_READING_LIST: Final = re.compile(r"(recent|latest|related|further|more) (posts?|articles?|stories|news|reading)", re.I)
_MIN_BAR_LINKS: Final = 3
_BAR_SHARE: Final = 0.8  # the rest are bars, arrows and dots between the links
_MAX_BAR_CHARS: Final = 1_500
_BAR_TAGS: Final = ("ul", "ol", "p", "div", "table", "tr", "center", "span")
_HIDDEN_STYLE: Final = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden")


def text_length(element: Any) -> int:
    """Count the characters of an element's text, white space excluded."""
    from lxml import etree

    return sum(len(part) for part in etree.tostring(element, method="text", encoding="unicode").split())


def _words(element: Any) -> set[str]:
    found = f"{element.get('class') or ''} {element.get('id') or ''}".split()
    return {word.lower() for word in found}


def _is_boilerplate(element: Any, tag: str, *, in_content: bool) -> bool:
    attributes = element.attrib
    if not attributes:
        return tag in {"footer", "header", "aside"} and not in_content and element.find(".//h1") is None
    if "hidden" in attributes or attributes.get("aria-hidden") == "true":
        return True
    if attributes.get("role") in _ROLES or _HIDDEN_STYLE.search(attributes.get("style") or ""):
        return True
    if ("class" in attributes or "id" in attributes) and not _WORDS.isdisjoint(_words(element)):
        return True
    if tag == "sup":
        return "reference" in _words(element)
    return tag in {"footer", "header", "aside"} and not in_content and element.find(".//h1") is None


def _is_permalink(element: Any) -> bool:
    if len(element) > 1 or "#" not in (element.get("href") or "#"):
        return False
    return "".join(element.itertext()).strip() in _PERMALINK_TEXT


def _inside_content(element: Any) -> bool:
    return any(parent.tag in {"article", "main", "blockquote"} for parent in element.iterancestors())


def _drop(elements: Iterable[Any]) -> None:
    """Take elements out of their tree; the text behind each stays."""
    for element in elements:
        parent = element.getparent()
        if parent is None:
            continue
        if element.tail:
            before = element.getprevious()
            if before is not None:
                before.tail = (before.tail or "") + element.tail
            else:
                parent.text = (parent.text or "") + element.tail
        parent.remove(element)


def _drop_contents(root: Any, contents: list[Any]) -> None:
    marked = set(contents)
    outermost = [element for element in contents if marked.isdisjoint(element.iterancestors())]
    if outermost and text_length(root) - sum(map(text_length, outermost)) >= _CONTENTS_ONLY_CHARS:
        _drop(outermost)


def _main_part(body: Any) -> Any:
    total = text_length(body)
    for path in _MAIN_PATHS:
        found = body.xpath(path)
        if len(found) == 1 and text_length(found[0]) >= _MAIN_SHARE * total:
            return found[0]
    return body


def _is_link_bar(element: Any) -> bool:
    """Tell a row or list of links with nothing between them but separators."""
    if not isinstance(element.tag, str) or element.tag in {"pre", "dl"}:
        return False
    total = text_length(element)
    if not total or total > _MAX_BAR_CHARS:
        return False
    links = [link for link in element.iter("a") if link.get("href")]
    return len(links) >= _MIN_BAR_LINKS and sum(map(text_length, links)) >= _BAR_SHARE * total


def _drop_link_bars(body: Any, kept: set[Any]) -> None:
    heading = next(body.iter("h1", "h2", "h3"), None)
    if heading is None:
        return
    bars: list[Any] = []
    for ancestor in (heading, *heading.iterancestors()):
        if ancestor is body:
            break
        for sibling in ancestor.itersiblings(preceding=True):
            bars.extend(element for element in sibling.iter(*_BAR_TAGS) if _is_link_bar(element))
    last = body
    while len(last) and (last is body or not _is_link_bar(last)):
        last = last[-1]
    if _is_link_bar(last) and heading not in last.iter():
        bars.append(last)
    _drop(bar for bar in bars if bar not in kept)


def _reading_lists(body: Any) -> list[Any]:
    labelled = body.xpath("//nav[@aria-label] | //aside[@aria-label]")
    return [element for element in labelled if _READING_LIST.search(element.get("aria-label"))]


def prune(body: Any) -> list[Any]:
    """Remove what is not content from a parsed page, in place, and return the elements that hold the content.

    Args:
        body: An lxml element, the page's `body` or a fragment's root.

    Returns:
        The main part, then lists of related articles that stood outside of it.
    """
    reading = _reading_lists(body)
    kept = {part for element in reading for part in (element, *element.iterancestors(), *element.iter("*"))}
    dropped: list[Any] = []
    contents: list[Any] = []
    for element in body.iter("*"):
        tag = element.tag
        if element is body or element in kept:
            continue
        if tag in _TAGS:
            dropped.append(element)
        elif tag == "a":
            if _is_boilerplate(element, tag, in_content=True) or _is_permalink(element):
                dropped.append(element)
        elif _is_boilerplate(
            element, tag, in_content=tag in {"footer", "header", "aside"} and _inside_content(element)
        ):
            dropped.append(element)
        elif element.attrib and not _CONTENTS_WORDS.isdisjoint(_words(element)):
            contents.append(element)
    _drop(dropped)
    _drop_contents(body, [element for element in contents if element.getparent() is not None])
    _drop_link_bars(body, kept)
    main = _main_part(body)
    return [main, *(element for element in reading if main not in (element, *element.iterancestors()))]
