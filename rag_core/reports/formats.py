"""How figures read on a page: numbers, shares, ages, times; and the environment that templates are filled in."""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from jinja2 import Environment

NOTHING: Final = "–"

_THEME: Final = {
    "000000|333333|444444": "currentColor",
    "5a5a5a": "var(--soft)",
    "b0b0b0|e5e5e5": "var(--line)",
    "1f5fa8|2b6cb0": "var(--accent)",
    "c0392b": "var(--bad)",
}
"""Colours of the plots, and what takes their place on a page that may be dark."""


def render(template: str, **values: Any) -> str:
    """Fill a template of this package; every value is escaped."""
    return environment().get_template(template).render(**values)


@cache
def environment() -> "Environment":
    """Make the Jinja environment of the pages."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("rag_core.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": number,
        "counted": counted,
        "share": share,
        "age": age,
        "time": time,
        "figure": figure,
        "measure": measure,
        "short": short,
        "place": place,
        "pairs": pairs,
    }
    return made


def number(value: float | None) -> str:
    """Write a count with separators."""
    return NOTHING if value is None else f"{value:,.0f}"


def counted(value: int, noun: str) -> str:
    """Write a count with its noun, in the plural unless it is one."""
    return f"{number(value)} {noun}" if value == 1 else f"{number(value)} {noun}s"


def figure(value: float | None, digits: int = 3) -> str:
    """Write what a test found, which may be a count or a measure: whole numbers without decimals, others with some."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 1 else f"{value:,.{digits}f}"


def measure(value: float | None, digits: int = 3) -> str:
    """Write a measure with a fixed number of decimals."""
    return NOTHING if value is None else f"{value:,.{digits}f}"


def share(part: float, whole: float) -> str:
    """Write a part of a whole in percent; what is not nothing is not written as 0 %, nor what is not all as 100 %."""
    if not whole:
        return NOTHING
    percent = 100 * part / whole
    if 0 < percent < 1 or 99 < percent < 100:
        return "< 1 %" if percent < 1 else "> 99 %"
    return f"{percent:.0f} %"


def age(value: timedelta | float | None) -> str:
    """Write a duration, in seconds or as such, in its largest sensible unit."""
    if value is None:
        return NOTHING
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    units = ((31_557_600, "years"), (86_400, "days"), (3_600, "hours"), (60, "min"), (1, "s"))
    for length, name in units:
        if seconds >= 2 * length or length == 1:
            return f"{seconds / length:,.1f} {name}" if seconds < 10 * length else f"{seconds / length:,.0f} {name}"
    raise AssertionError(seconds)


def time(value: datetime | None) -> str:
    """Write a time to the minute, UTC."""
    return NOTHING if value is None else f"{value:%Y-%m-%d %H:%M} UTC"


def short(value: str, chars: int = 160) -> str:
    """Cut a text and put its white space in order."""
    text = " ".join(value.split())
    return text if len(text) <= chars else f"{text[: chars - 1]}…"


def place(uri: str, chars: int = 90) -> str:
    """Shorten where a document is to its end, which is what tells documents apart."""
    text = uri.removeprefix("file://")
    return text if len(text) <= chars else f"…{text[-chars + 1 :]}"


def pairs(values: Mapping[str, Any]) -> str:
    """Write settings as `name value`, comma-separated."""
    return ", ".join(f"{name} {value}" for name, value in values.items()) or NOTHING


def themed(svg: bytes, prefix: str) -> str:
    """Make a plot a part of a page: its ids are its own there, and black, white and grey follow the page's colours.

    Args:
        svg: As Matplotlib writes it.
        prefix: Begins its ids; another for each plot of a page.
    """
    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<path d="[^"]*" style="fill: )#ffffff', r"\1none", text)  # the background, not white labels
    for colours, ours in _THEME.items():
        text = re.sub(rf"#({colours})\b", ours, text)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    # Text without a colour of its own is black.
    return text.replace("<svg ", '<svg class="matplotlib" fill="currentColor" ', 1)
