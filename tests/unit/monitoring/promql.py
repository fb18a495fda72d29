"""Reading names out of PromQL, as far as tests of dashboards and rules need it."""

import re
from collections.abc import Iterator
from typing import Final

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_SELECTOR: Final = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(\{[^}]*\})")
_GROUPING: Final = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_NAME: Final = re.compile(r"(?<![a-zA-Z0-9_:.$])[a-zA-Z_:][a-zA-Z0-9_:]*(?![a-zA-Z0-9_:]|\s*\()")
_LABEL: Final = re.compile(r"([a-zA-Z_][a-zA-Z0-9_]*)\s*(?:=~|!~|!=|=)")
_WORDS: Final = frozenset({"and", "or", "unless", "bool", "offset", "inf", "nan"})


def metrics_of(expr: str) -> set[str]:
    """Return the names of the metrics that an expression asks for."""
    bare = re.sub(r"\[[^\]]*\]|\boffset\s+\w+", "", _STRING.sub("", expr))
    bare = _GROUPING.sub("", re.sub(r"\{[^}]*\}", "", bare))
    return {name for name in _NAME.findall(bare) if name.lower() not in _WORDS}


def labels_of(expr: str) -> Iterator[tuple[str, str]]:
    """Yield (metric, label) for each label that an expression asks for by a matcher."""
    for metric, braces in _SELECTOR.findall(_STRING.sub('""', expr)):
        for label in _LABEL.findall(braces):
            yield metric, label


def filled(expr: str, interval: str = "5m") -> str:
    """Fill Grafana's variables in: everything is chosen, and rates are over `interval`."""
    return re.sub(r"\$(instance|source)\b", ".*", expr).replace("$__rate_interval", interval)
