"""What can be wrong with a declared test, in the words of the files: its settings, and whether its columns allow it."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rag_core.config_keys import Path as KeyPath
from rag_core.config_keys import type_text
from rag_core.config_problems import Problem, nearest, shown
from rag_core.quality import columns as columns_of
from rag_core.quality import conditions
from rag_core.quality.declared import KEYS, DeclaredTest
from rag_core.quality.kinds import Boilerplate, Covers, Declared, Distribution, Relationships, Unique

_BOUNDS = {
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "too_short": "at least {min_length}",
}


def problems_of_settings(
    error: ValidationError, kind: type[Declared], name: str, lines: Mapping[KeyPath, str], prefix: KeyPath = ()
) -> list[Problem]:
    """Turn a pydantic error about a test's settings into problems with their places."""
    return [
        Problem(
            place_of(lines, (*prefix, *detail["loc"])),
            ".".join([name, *map(str, (*prefix, *detail["loc"]))]),
            _expected(detail, kind),
            "" if detail["type"] == "missing" or isinstance(detail["input"], dict) else shown(detail["input"]),
        )
        for detail in error.errors(include_url=False)
    ]


def place_of(lines: Mapping[KeyPath, str], path: KeyPath) -> str:
    """Return the file and line of a setting, or of what is around it."""
    return next(lines[path[:length]] for length in range(len(path), -1, -1) if path[:length] in lines)


def _expected(error: ErrorDetails, kind: type[Declared]) -> str:  # noqa: PLR0911  (one case a type of error)
    fields, loc = kind.model_fields, error["loc"]
    known = fields.get(str(loc[0])) if loc else None
    context: dict[str, Any] = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            return f"unknown setting of {kind.kind}" + nearest(str(loc[-1]), fields)
        case "missing":
            return f"missing; expected {type_text(known.annotation)} ({known.description})" if known else "missing"
        case "literal_error":
            return f"expected one of {context['expected']}"
        case "value_error":
            return f"expected: {context['error']}"
        case "string_pattern_mismatch":
            return f"expected: {known.description if known else error['msg']}"
        case bound if bound in _BOUNDS:
            return f"expected {_BOUNDS[bound].format(**context)}"
    return f"expected {type_text(known.annotation)}" if known else f"expected: {error['msg']}"


def problems_of_test(test: DeclaredTest, lines: Mapping[KeyPath, str], sources: tuple[str, ...]) -> Iterator[Problem]:
    """Find what is wrong with a test whose settings are right by themselves: its place, columns and sources."""

    def wrong(expected: str, *path: str | int) -> Problem:
        return Problem(place_of(lines, path), ".".join([test.name, *map(str, path)]), expected)

    settings = test.settings
    for expected, setting in _misplaced(test, settings):
        yield wrong(expected, *([setting] if setting else []))
    for name in sorted(test.frame_columns(settings)):
        if problem := columns_of.problem_of(test.table, name):
            yield wrong(problem, *_setting_with(settings, name))
    for source, changed in settings.sources.items():
        if source not in sources:
            yield wrong(f"no such source{nearest(source, sources)}", "sources", source)
        try:
            settings.model_validate({**settings.model_dump(exclude_defaults=True), **changed})
        except ValidationError as error:
            yield from problems_of_settings(error, type(settings), test.name, lines, ("sources", source))


def _misplaced(test: DeclaredTest, settings: Declared) -> Iterator[tuple[str, str | None]]:
    """Yield what a test expects of its place and of other tables, with the setting that it is about."""
    if settings.for_table and test.columns:
        yield f"{test.kind} is a test of the table: under `tests` of the file, not of a column", None
    if isinstance(settings, Distribution) and (settings.share_of is None) == (not test.columns):
        yield "expected: under a column, or under the table's tests with share_of", None
    elif not test.columns and not settings.for_table and not isinstance(settings, Distribution):
        extra = "; or give `columns`" if isinstance(settings, Unique) else ""
        yield f"{test.kind} is a test of a column: under `tests` of a column{extra}", None
    if isinstance(settings, Relationships | Covers):
        written = settings.to if isinstance(settings, Relationships) else settings.of
        if problem := columns_of.parent_problem(written, tuple(KEYS)):
            yield problem, "to" if isinstance(settings, Relationships) else "of"
        elif isinstance(settings, Covers) and settings.where is not None:
            for name in sorted(conditions.parse(settings.where).columns):
                if problem := columns_of.problem_of(settings.parent[0], name):
                    yield problem, "where"
    if isinstance(settings, Boilerplate) and (problem := columns_of.problem_of(test.table, settings.document)):
        yield problem, "document"


def _setting_with(settings: Declared, column: str) -> tuple[str, ...]:
    """Return the setting in which a column is named; none if it is the column that the test stands under."""
    for name in ("where", "that", "share_of"):
        text = getattr(settings, name, None)
        if text is not None and column in conditions.parse(text).columns:
            return (name,)
    return ()
