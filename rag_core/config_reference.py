"""Writes docs/configuration.md from the types: `python -m rag_core.config_reference`, `--check` to compare only."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic.fields import FieldInfo

from rag_core.config import RagConfig
from rag_core.config_base import Section
from rag_core.config_keys import SOURCE_KINDS, ConfigKey, entry_section_of, keys_of, section_of, type_text

PAGE = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"

_INTRODUCTION = """\
# Configuration

<!-- Made by `python -m rag_core.config_reference`; change the types in rag_core/config.py instead. -->

One file, `rag.yaml`, says what is indexed and how. It is looked for at the path in `RAG_CONFIG`, then in the current
folder, then beside `definitions.py`. The smallest one:

```yaml
store: {root: ./data}
sources: [{name: handbook, kind: files, root: examples/corpus}]
```

Several sources, with their own settings:

```yaml
store: {root: ./data}
buckets: 16
sources:
  - name: handbook
    kind: files
    root: /srv/handbook
    include: ["**/*.md", "**/*.pdf"]
    exclude: ["drafts/**"]
    principals: [group:staff]
  - name: chat
    kind: slack
    root: exports/slack.zip
  - name: tickets
    kind: jsonl
    root: exports/tickets.jsonl
    modified_at_field: updated_at
    chunking: {strategy: recursive, max_tokens: 128}
chunking: {overlap_tokens: 32}
embedding:
  model: ./models/bge-small-en-v1.5
  query_prefix: "Represent this sentence for searching relevant passages: "
```

- `rag config show` prints every key with its value and where that came from.
- Relative paths are relative to the file; those in environment variables to the current folder. `~` is the home folder.
- Unknown and repeated keys are errors. All that is wrong is reported at once, with file, line, key and value.
- Globs: `*` and `?` stay inside a name, `**` stands for any number of folders, `[ab]` for one of the characters.

## Environment variables

Every key can be set as `RAG_<SECTION>__<KEY>`; the variable wins over the file. Values are read as YAML would read them
(`RAG_BUCKETS=16`, `RAG_INDEX__SEARCH_PARAMS='{ef: 128}'`); where a key takes text, the value is taken as it stands. A
source is addressed by its name: `RAG_SOURCES__handbook__ROOT=/mnt/handbook`. An empty variable counts as not set.

Secrets come from the environment only; in the file they are an error.
"""


def reference() -> str:
    """Return the page."""
    values = [ConfigKey((name,), field) for name, field in RagConfig.model_fields.items() if not _section(field)]
    parts = [_INTRODUCTION, "## Top level\n", _table([key for key in values if key.path != ("sources",)], ())]
    parts.append(_source_parts())
    for name, field in RagConfig.model_fields.items():
        section = _section(field)
        if section is not None:
            keys = list(keys_of(section, (name,)))
            parts += [f"## `{name}`\n", _about(section), _table(keys, (name,)), *filter(None, map(_entries, keys))]
    return "\n".join(parts).rstrip() + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or say with `--check` whether it is current; the exit status is 1 where it is not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only")
    if not parser.parse_args(arguments).check:
        PAGE.write_text(reference(), encoding="utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == reference():
        return 0
    sys.stderr.write(f"{PAGE} is not current; run python -m rag_core.config_reference\n")
    return 1


def _source_parts() -> str:
    common = [name for name in SOURCE_KINDS["files"].model_fields if _is_common(name)]
    rows = {kind: list(keys_of(section, ("sources", "NAME"))) for kind, section in SOURCE_KINDS.items()}
    prefix = ("sources", "NAME")
    shared = [key for key in rows["files"] if key.path[2] in common and key.path[2] != "kind"]
    text = "## `sources`\n\nA list. Every entry has a `kind`, which decides on further keys, and these:\n\n"
    text += _table(shared, prefix)
    text += f"\n`chunking`: {SOURCE_KINDS['files'].model_fields['chunking'].description}\n"
    for kind, keys in rows.items():
        own = [key for key in keys if key.path[2] not in common]
        text += f"\n### `kind: {kind}`\n\n{_about(SOURCE_KINDS[kind])}\n{_table(own, prefix)}"
    return text


def _entries(key: ConfigKey) -> str:
    """Describe the entries of a list of sections; empty for other keys."""
    section = entry_section_of(key.field.annotation)
    if section is None:
        return ""
    # An entry has no variable of its own: the variable of the list takes all of it as YAML.
    return f"### Entries of `{key.dotted}`\n\n{_about(section)}\n{_table(list(keys_of(section)), (), variables=False)}"


def _is_common(name: str) -> bool:
    return name == "kind" or all(
        name in section.model_fields and section.model_fields[name].description == field.description
        for section in SOURCE_KINDS.values()
        for field in [SOURCE_KINDS["files"].model_fields[name]]
    )


def _section(field: FieldInfo) -> type[Section] | None:
    return section_of(field.annotation)


def _about(section: type[Section]) -> str:
    return (section.__doc__ or "").strip() + "\n"


def _table(keys: list[ConfigKey], prefix: tuple[str, ...], *, variables: bool = True) -> str:
    columns = ("key", "type", "default", "meaning", "variable")[: 5 if variables else 4]
    lines = [_row(columns), _row(["---"] * len(columns))]
    for key in keys:
        name = ".".join(key.path[len(prefix) :])
        kind = ", ".join([type_text(key.field.annotation), *_bounds(key.field)])
        default = (
            "required" if key.field.is_required() else "environment only" if key.is_secret else _default(key.field)
        )
        meaning = (key.field.description or "").replace("|", "\\|")
        lines.append(_row((f"`{name}`", kind, default, meaning, f"`{key.env_name}`")[: len(columns)]))
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _bounds(field: FieldInfo) -> Iterator[str]:
    for limit in field.metadata:
        match limit:
            case Ge(ge=bound):
                yield f"at least {bound}"
            case Gt(gt=bound):
                yield f"above {bound}"
            case Le(le=bound):
                yield f"at most {bound}"
            case Lt(lt=bound):
                yield f"below {bound}"
            case MinLen(min_length=bound):
                yield f"at least {bound} entries"


def _default(field: FieldInfo) -> str:
    value: Any = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    return f"`{value if value and isinstance(value, str) else json.dumps(value, ensure_ascii=False)}`"


if __name__ == "__main__":
    sys.exit(main())
