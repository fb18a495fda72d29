"""Turns a declared test into an expectation of Great Expectations, with thresholds that may come from history."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import great_expectations.expectations as gxe
from great_expectations.expectations.row_conditions import PassThroughCondition

from rag_core.quality import conditions, expectations, kinds
from rag_core.quality.columns import stand_in
from rag_core.quality.declared import KEYS, DeclaredTest
from rag_core.quality.kinds import Declared
from rag_core.quality.results import Baseline, Measured, figure

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Given:
    """What a threshold may depend on besides the declaration.

    Attributes:
        baseline: The partition's last passing result of the test; None for the first.
        dim: Dimension of the model whose vectors are in the lane, if that is known.
    """

    baseline: Baseline | None = None
    dim: int | None = None


@dataclass(frozen=True)
class Compiled:
    """A test, ready to be run on a frame.

    Attributes:
        test: The declaration.
        settings: Its settings for the partition's source.
        expectation: What Great Expectations evaluates.
        threshold: What is expected, in words.
        sentence: What the test says.
        key: Column of the frame that names a row.
        shown: Columns of the frame that are shown of a failing row.
        added: Columns of the frame that the expectation needs, as conditions to be evaluated.
        largest: Column whose largest value is the value of the test, instead of the number of failing rows.
        marks: Condition that tells failing rows of a test of the whole partition, if there are any.
    """

    test: DeclaredTest
    settings: Declared
    expectation: Any
    threshold: str
    sentence: str
    key: str
    shown: tuple[str, ...]
    added: Mapping[str, str] = field(default_factory=dict)
    largest: str | None = None
    marks: str | None = None


@dataclass
class _Draft:
    """An expectation before what all have in common is added to it."""

    make: type[Any]
    arguments: dict[str, Any]
    threshold: str
    sentence: str
    shown: tuple[str, ...]
    added: dict[str, str] = field(default_factory=dict)
    largest: str | None = None
    marks: str | None = None


def compile_test(test: DeclaredTest, settings: Declared, frame: "pd.DataFrame", given: Given) -> Compiled | Measured:
    """Compile a test for a partition; a test that there are too few rows for passes at once."""
    draft = _row_draft(test, settings, frame, given) or _table_draft(test, settings, frame, given)
    if isinstance(draft, Measured):
        return draft
    assert draft is not None, test.kind
    arguments = dict(draft.arguments)
    if isinstance(settings, kinds.RowTest):
        arguments["mostly"] = 1 - settings.max_failing
        if settings.max_failing:
            draft.threshold += f", for all but {settings.max_failing:.1%} of the rows"
    if settings.where is not None and not isinstance(settings, kinds.Covers):
        arguments["row_condition"] = PassThroughCondition(pass_through_filter=conditions.parse(settings.where).query)
        draft.sentence = f"{draft.sentence.rstrip('.')}, where {settings.where}."
    sentence = settings.description or draft.sentence
    expectation = draft.make(
        **arguments,
        description=sentence.replace("$", "$$"),  # Data Docs take it for a template
        severity="critical" if settings.severity == "error" else "warning",
        meta={"test": test.name, "kind": test.kind, "threshold": draft.threshold},
    )
    key = "value" if isinstance(settings, kinds.Covers) else KEYS[test.table]
    return Compiled(
        test=test,
        settings=settings,
        expectation=expectation,
        threshold=draft.threshold,
        sentence=sentence,
        key=key,
        shown=draft.shown,
        added=draft.added,
        largest=draft.largest,
        marks=draft.marks,
    )


def _row_draft(  # noqa: PLR0911, PLR0912  (one case a kind)
    test: DeclaredTest, settings: Declared, frame: "pd.DataFrame", given: Given
) -> _Draft | Measured | None:
    """Draft a test that looks at each row by itself, or at each row among the others."""
    column = test.columns[0] if test.columns else ""
    read = settings.reads(test.columns)
    match settings:
        case kinds.NotNull():
            read = (stand_in(test.table, column),)
            return _Draft(gxe.ExpectColumnValuesToNotBeNull, {"column": read[0]}, "no null",
                          f"{column} is never missing.", read)  # fmt: skip
        case kinds.Unique():
            if len(read) > 1:
                return _Draft(gxe.ExpectCompoundColumnsToBeUnique, {"column_list": list(read)}, "no combination twice",
                              f"{' and '.join(read)} are unique together.", read)  # fmt: skip
            return _Draft(gxe.ExpectColumnValuesToBeUnique, {"column": column}, "no value twice",
                          f"{column} is unique.", read)  # fmt: skip
        case kinds.AcceptedValues(values=values):
            listed = ", ".join(map(str, values))
            return _Draft(gxe.ExpectColumnValuesToBeInSet, {"column": column, "value_set": list(values)},
                          f"one of {listed}", f"{column} is one of {listed}.", read)  # fmt: skip
        case kinds.AcceptedRange(min=low, max=high):
            limits = {"column": read[0], "min_value": low, "max_value": high}
            return _Draft(gxe.ExpectColumnValuesToBeBetween, limits, _range(low, high),
                          f"{read[0]} is {_range(low, high)}.", read)  # fmt: skip
        case kinds.Relationships(to=to):
            return _Draft(expectations.ExpectValuesToHaveParent, {"column": read[0], "value_set": [True]},
                          f"a row of {to}", f"Every {column} occurs in {to}.", (column,))  # fmt: skip
        case kinds.Covers(of=of, where=where):
            rows = f"Every row of {of.partition('.')[0]}" + (f" with {where}" if where else "")
            return _Draft(expectations.ExpectParentsToBeCovered, {"column": "found", "value_set": [True]},
                          f"a row of {test.table}", f"{rows} has a row of {test.table}.", ("value",))  # fmt: skip
        case kinds.VectorDim(dim=dim):
            dim = dim or given.dim or _most_common(frame, read[0])
            return _Draft(expectations.ExpectVectorsToHaveDimension, {"column": read[0], "value_set": [dim]},
                          f"{dim} entries", f"Every {column} has {dim} entries.", read)  # fmt: skip
        case kinds.UnitNorm(tolerance=tolerance):
            limits = {"column": read[0], "min_value": 1 - tolerance, "max_value": 1 + tolerance}
            return _Draft(expectations.ExpectVectorsToHaveUnitLength, limits, f"1 ± {tolerance:g}",
                          f"Every {column} has length 1.", read)  # fmt: skip
        case kinds.NoNan():
            return _Draft(expectations.ExpectVectorsToBeFinite, {"column": read[0], "min_value": 0, "max_value": 0},
                          "finite numbers only", f"Every entry of {column} is a finite number.", read)  # fmt: skip
        case kinds.Pii(patterns=names):
            listed = ", ".join(names)
            return _Draft(expectations.ExpectTextsToHoldNoPersonalData,
                          {"column": read[0], "regex": rf"\b(?:{'|'.join(names)})\b"}, f"none of {listed}",
                          f"{column} holds nothing that looks like {listed}.", read)  # fmt: skip
        case kinds.Boilerplate(max_share=share, document=document, min_documents=fewest):
            if frame[document].nunique() < fewest:
                return _too_few(f"documents are fewer than {fewest}", frame)
            return _Draft(expectations.ExpectTextsNotToBeBoilerplate,
                          {"column": read[0], "min_value": 0, "max_value": share}, f"at most {share:.0%} of documents",
                          f"No {column} occurs in more than {share:.0%} of the documents.", (column, read[0]),
                          largest=read[0])  # fmt: skip
        case kinds.Expression(that=that):
            parsed, name = conditions.parse(that), f"holds@{test.name}"
            return _Draft(expectations.ExpectRowsToSatisfy, {"column": name, "value_set": [True]}, that,
                          f"Every row has {that}.", tuple(sorted(parsed.columns)), {name: parsed.query})  # fmt: skip
    return None


def _table_draft(  # noqa: PLR0911  (one case a kind)
    test: DeclaredTest, settings: Declared, frame: "pd.DataFrame", given: Given
) -> _Draft | Measured | None:
    """Draft a test of the partition as a whole."""
    column = test.columns[0] if test.columns else ""
    read = settings.reads(test.columns)
    match settings:
        case kinds.Constant():
            marks = None
            if frame[column].nunique() > 1:
                marks = f"`{column}` != {frame[column].mode().iloc[0]!r}"
            return _Draft(gxe.ExpectColumnUniqueValueCountToBeBetween, {"column": column, "max_value": 1}, "one value",
                          f"All rows have the same {column}.", read, marks=marks)  # fmt: skip
        case kinds.NotCollapsed(max_share=share, text=text, min_rows=fewest):
            if frame[text].nunique() < fewest:
                return _too_few(f"texts are fewer than {fewest}", frame)
            return _Draft(expectations.ExpectVectorsToDiffer, {"column": read[0], "min_value": 0, "max_value": share},
                          f"at most {share:.0%} of texts share a vector", "Different texts have different vectors.",
                          (text,), marks=f"`{read[0]}` == 1")  # fmt: skip
        case kinds.Language(max_shift=shift):
            earlier = _earlier(settings, given, len(frame))
            shares = dict(earlier.profile) if earlier and earlier.profile else None
            threshold = f"at most {shift:.0%} shifted" + ("" if shares else "; nothing to compare with yet")
            return _Draft(expectations.ExpectCategorySharesToHold,
                          {"column": column, "earlier": shares, "max_shift": shift}, threshold,
                          f"The shares of {column} do not jump.", read)  # fmt: skip
        case kinds.RowCount():
            low, high, threshold = _count_limits(settings, given)
            return _Draft(gxe.ExpectTableRowCountToBeBetween, {"min_value": low, "max_value": high}, threshold,
                          "The number of rows is in its range and does not jump.", ())  # fmt: skip
        case kinds.Distribution(share_of=share_of):
            added = {} if share_of is None else {f"share@{test.name}": conditions.parse(share_of).query}
            of = next(iter(added), None) or read[0]
            if not len(frame) or (share_of is None and not frame[of].notna().any()):
                return _too_few("there is no value", frame)
            low_mean, high_mean, threshold = _mean_limits(settings, given, len(frame))
            about = f"share of rows with {share_of}" if share_of else f"mean of {of}"
            return _Draft(gxe.ExpectColumnMeanToBeBetween,
                          {"column": of, "min_value": low_mean, "max_value": high_mean}, threshold,
                          f"The {about} is in its range and does not jump.", (), added)  # fmt: skip
    return None


def _most_common(frame: "pd.DataFrame", column: str) -> int:
    """Return the dimension that most vectors have, for a lane whose model is not known any more."""
    values = frame[column].dropna().mode()
    return int(values.iloc[0]) if len(values) else 0


def _too_few(why: str, frame: "pd.DataFrame") -> Measured:
    return Measured(True, None, f"not tested: {why}", len(frame))


def _earlier(settings: kinds.OnHistory, given: Given, rows: int | None) -> Baseline | None:
    """Return what to compare with; None if there is nothing or too few rows, then or now."""
    earlier = given.baseline
    enough = earlier is not None and earlier.rows >= settings.min_rows and (rows is None or rows >= settings.min_rows)
    return earlier if enough else None


def _count_limits(settings: kinds.RowCount, given: Given) -> tuple[int | None, int | None, str]:
    low, high = settings.min or 0, settings.max
    earlier = _earlier(settings, given, None)  # a table that was emptied is what this test is for
    if earlier is not None and settings.max_drop is not None:
        low = max(low, math.ceil(earlier.value * (1 - settings.max_drop) - 1e-9))
    if earlier is not None and settings.max_growth is not None:
        grown = math.floor(earlier.value * (1 + settings.max_growth) + 1e-9)
        high = grown if high is None else min(high, grown)
    note = f", was {figure(earlier.value)}" if earlier is not None else ""
    return low, high, _range(low, high) + " rows" + note


def _mean_limits(settings: kinds.Distribution, given: Given, rows: int) -> tuple[float | None, float | None, str]:
    low, high = settings.min, settings.max
    earlier = _earlier(settings, given, rows)
    if earlier is not None:
        by_share = None if settings.max_change is None else settings.max_change * abs(earlier.value)
        allowed = min((limit for limit in (by_share, settings.max_shift) if limit is not None), default=None)
        if allowed is not None:
            low = earlier.value - allowed if low is None else max(low, earlier.value - allowed)
            high = earlier.value + allowed if high is None else min(high, earlier.value + allowed)
    note = f", was {figure(earlier.value)}" if earlier is not None else ""
    return low, high, _range(low, high) + note


def _range(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"exactly {figure(low)}" if low == high else f"between {figure(low)} and {figure(high)}"
    if low is not None:
        return f"at least {figure(low)}"
    return "any; nothing to compare with yet" if high is None else f"at most {figure(high)}"
