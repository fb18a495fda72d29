"""Web pages keep their content as Markdown and lose what surrounds it."""

from tests.unit.parsing.parsing_helpers import parse_one

SPHINX = """<!DOCTYPE html><html lang="en"><head><title>3. Packages — Manual v4</title><style>p{}</style></head><body>
<div class="related" role="navigation"><a href="next.html">next page</a></div>
<div class="document"><div class="body" role="main"><section id="packages">
<h1>3. Packages<a class="headerlink" href="#packages" title="Permalink">¶</a></h1>
<p>A <code>.deb</code> package has <em>two</em> <a href="x.html">sets of files</a>.
   It wraps
   over lines.</p>
<div class="highlight-python"><div class="highlight"><pre><span></span><span class="k">def</span> f():
    <span class="k">return</span> 1
</pre></div></div>
<table><thead><tr><th>Field</th><th></th><th>Use</th></tr></thead>
<tbody><tr><td rowspan="2">Depends</td><td></td><td>a|b</td></tr><tr><td></td><td>c</td></tr></tbody></table>
<ul><li>one<ul><li>inner</li></ul></li><li><p>two</p><p>more of two</p></li></ul>
<ol start="4"><li>four</li><li>five</li></ol>
<dl><dt>term</dt><dd>definition</dd></dl>
<blockquote><p>said</p></blockquote>
<p>10<sup>6</sup> H<sub>2</sub>O</p>
</section></div></div>
<div class="sphinxsidebar" role="navigation"><h3>Previous topic</h3><a href="#">The Archive</a></div>
<div class="footer" role="contentinfo">Created using Sphinx.</div><script>var x = 1;</script></body></html>"""

EXPECTED = """# 3. Packages

A `.deb` package has two sets of files. It wraps over lines.

```python
def f():
    return 1
```

| Field | Use |
| --- | --- |
| Depends | a\\|b |
| Depends | c |

- one
  - inner
- two

  more of two

4. four
5. five

term

definition

> said

10⁶ H₂O"""


def test_a_sphinx_page() -> None:
    document = parse_one(SPHINX, "ch.html")
    assert document.text == EXPECTED
    assert (document.title, document.mime) == ("3. Packages", "text/html")


def test_docbook_navigation_and_permalinks_go() -> None:
    page = """<html><body><div class="navheader"><table><tr><td>Prev</td><td>Up</td></tr></table></div>
    <div class="sect1"><h2 class="title">5.1. Basics <a href="#B" class="id_link">#</a></h2>
    <p>Tables hold rows.</p></div>
    <div class="navfooter">Next</div></body></html>"""
    assert parse_one(page, "ddl.html").text == "## 5.1. Basics\n\nTables hold rows."


def test_a_table_of_contents_goes_unless_it_is_the_page() -> None:
    contents = '<div class="toc"><ul><li><a href="#a">First steps</a></li></ul></div>'
    long = f"<html><body><h1>Guide</h1>{contents}<p>{'word ' * 200}</p></body></html>"
    assert "First steps" not in parse_one(long, "a.html").text
    assert "First steps" in parse_one(f"<html><body><h1>Guide</h1>{contents}</body></html>", "a.html").text


def test_headers_and_footers_inside_an_article_stay() -> None:
    page = """<html><body><header><a href="/">Site</a></header><article><header><p>By Ann</p></header>
    <p>Text of the article.</p><footer>Filed under ducks</footer></article><footer>Imprint</footer></body></html>"""
    assert parse_one(page, "a.html").text == "By Ann\n\nText of the article.\n\nFiled under ducks"


def test_layout_tables_are_read_as_blocks_and_notes_keep_their_label() -> None:
    page = """<html><body><div class="admonitionblock"><table><tr><td class="icon"><div class="title">Note</div></td>
    <td class="content">Mind the gap.</td></tr></table></div></body></html>"""
    assert parse_one(page, "a.html").text == "Note: Mind the gap."


def test_hidden_text_is_not_indexed() -> None:
    page = '<html><body><p>seen</p><div style="display: none">unseen</div><p hidden>unseen</p></body></html>'
    assert parse_one(page, "a.html").text == "seen"


def test_inline_xbrl_and_deep_nesting_are_read() -> None:
    revenue = "<p>Revenue was <ix:nonFraction>1,234</ix:nonFraction> dollars</p>"
    page = f"<html><body>{revenue}{'<div>' * 1500}deep</body></html>"
    assert parse_one(page, "a.html").text == "Revenue was 1,234 dollars\n\ndeep"


def test_spans_cannot_blow_a_table_up() -> None:
    page = '<html><table><tr><td colspan="99999">a</td><td rowspan="99999">b</td></tr><tr><td>c</td></tr></table>'
    assert parse_one(page, "a.html").text == "| a | b |\n| --- | --- |\n| c |  |"


def test_rows_of_links_above_the_first_heading_and_at_the_end_go() -> None:
    bar = "<ul><li><a href='a'>Home</a> &gt;</li><li><a href='b'>Docs</a></li><li><a href='c'>Search</a></li></ul>"
    index = "<ul><li><a href='1'>One</a></li><li><a href='2'>Two</a></li><li><a href='3'>Three</a></li></ul>"
    page = (
        f"<html><body><div>Small. Fast.{bar}</div><h1>Index</h1><p>All of it:</p>{index}<p>End.</p>{bar}</body></html>"
    )
    text = parse_one(page, "a.html").text
    assert text == "Small. Fast.\n\n# Index\n\nAll of it:\n\n- One\n- Two\n- Three\n\nEnd."


def test_lists_of_articles_are_kept_and_parameters_keep_their_types() -> None:
    page = """<html lang="en"><body><aside><nav aria-label="Blog recent posts navigation"><ul>
    <li><a href="1">How we parse</a></li><li><a href="2">Why ducks</a></li></ul></nav></aside>
    <nav aria-label="Main"><a href="x">Menu</a></nav>
    <main><h1>Post</h1>
    <dl><dt><strong>x</strong><span class="classifier">array_like</span></dt></dl></main></body></html>"""
    document = parse_one(page, "a.html")
    assert document.text == "# Post\n\nx : array_like\n\n- How we parse\n- Why ducks"
    assert document.language == "en"
