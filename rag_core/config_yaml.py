"""Reads a YAML file into plain values and remembers the line of every key, so that an error can point at it.

Unlike `yaml.safe_load` it refuses repeated keys, which YAML forbids and PyYAML silently resolves to the last.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rag_core.config_keys import Path as KeyPath


@dataclass
class YamlDocument:
    """The values of a file, and where they stand.

    Attributes:
        data: The top-level mapping; empty for an empty file.
        lines: Line of each key and list item, from 1, by path.
        repeated: Paths of keys written twice, with the line of the second and of the first.
    """

    data: dict[str, Any] = field(default_factory=dict)
    lines: dict[KeyPath, int] = field(default_factory=dict)
    repeated: list[tuple[KeyPath, int, int]] = field(default_factory=list)


class YamlError(ValueError):
    """The file is not the YAML that is needed; `line` is where, from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def read_yaml(path: Path) -> YamlDocument:
    """Read a file whose top level is a mapping.

    Raises:
        OSError: It cannot be read.
        YamlError: It is not UTF-8, not YAML, or not a mapping.
    """
    loader: yaml.SafeLoader | None = None
    try:
        loader = yaml.SafeLoader(path.read_bytes())
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlError(f"not valid YAML: {error.problem or error.context}", mark.line + 1 if mark else 1) from error
    except (yaml.YAMLError, UnicodeError) as error:
        raise YamlError(f"not valid YAML: {str(error).splitlines()[0]}", 1) from error
    finally:
        if loader is not None:
            loader.dispose()
    document = YamlDocument()
    if node is None:
        return document
    if not isinstance(node, yaml.MappingNode):
        raise YamlError("expected `key: value` lines at the top, such as `store: {root: ./data}`", _line(node))
    document.data = _value(node, (), document, ())
    return document


def read_scalar(text: str) -> Any:
    """Read the value of an environment variable as YAML would; what is not YAML stays text."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _value(node: yaml.Node, path: KeyPath, document: YamlDocument, above: tuple[int, ...]) -> Any:
    if id(node) in above:
        raise YamlError("an alias (*name) refers to something that contains it", _line(node))
    inside = (*above, id(node))
    if isinstance(node, yaml.MappingNode):
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = _key(key_node)
            here = (*path, key)
            if key in values:
                document.repeated.append((here, _line(key_node), document.lines[here]))
                continue
            document.lines[here] = _line(key_node)
            values[key] = _value(value_node, here, document, inside)
        return values
    if isinstance(node, yaml.SequenceNode):
        items = []
        for number, item in enumerate(node.value):
            document.lines[(*path, number)] = _line(item)
            items.append(_value(item, (*path, number), document, inside))
        return items
    return _scalar(node)


def _key(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise YamlError("a key must be a plain name", _line(node))
    return str(node.value)


def _scalar(node: yaml.Node) -> Any:
    constructor = yaml.constructor.SafeConstructor()
    try:
        return constructor.construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        raise YamlError(f"not a value that can be read: {str(error).splitlines()[0]}", _line(node)) from error
