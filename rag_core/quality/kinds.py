"""The kinds of tests, and what each may set. What a declared test is about is in `declared`."""

from typing import Any, ClassVar, Final, Literal

from pydantic import Field, field_validator, model_validator

from rag_core.config_base import Section
from rag_core.quality import conditions
from rag_core.quality.patterns import NAMES, PatternName


class Declared(Section):
    """What every test may set."""

    kind: ClassVar[str]
    shorthand: ClassVar[str | None] = None
    """The setting that is meant when a test has a plain value instead of a mapping."""
    for_table: ClassVar[bool] = False
    """Whether the test stands under the table's `tests` and not under a column's."""
    on_history: ClassVar[bool] = False

    name: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9_]+$", description="Unique in its table; default: kind and columns."
    )
    description: str | None = Field(default=None, description="What the test says, as a sentence.")
    severity: Literal["warn", "error"] = Field(default="error", description="What a failure is.")
    blocking: bool = Field(default=False, description="Whether a failure holds the partition back; needs `error`.")
    enabled: bool = Field(default=True, description="false: the test is not run.")
    where: str | None = Field(default=None, description="Only rows for which this condition holds.")
    sources: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Other settings for some sources, by name of the source."
    )

    @field_validator("where")
    @classmethod
    def _condition(cls, value: str | None) -> str | None:
        if value is not None:
            conditions.parse(value)
        return value

    @model_validator(mode="after")
    def _blocks_on_errors(self) -> "Declared":
        if self.blocking and self.severity == "warn":
            raise ValueError("a blocking test has severity error")
        return self

    @property
    def measure(self) -> str | None:
        """What the test looks at of its column, such as `length`; None: the column itself."""
        return None

    def reads(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        """Return the columns and measures that the test looks at, without those of `where`."""
        return tuple(f"{column}.{self.measure}" if self.measure else column for column in columns)


class RowTest(Declared):
    """A test of every row."""

    max_failing: float = Field(default=0.0, ge=0, lt=1, description="Share of rows that may fail.")


class NotNull(RowTest):
    """No value is missing."""

    kind = "not_null"


class Unique(RowTest):
    """No value, or combination of values, occurs twice."""

    kind = "unique"
    shorthand = "columns"
    columns: tuple[str, ...] | None = Field(
        default=None, min_length=2, description="Under the table's tests: the columns that are unique together."
    )


class AcceptedValues(RowTest):
    """Every value is one of a list; null is left out."""

    kind = "accepted_values"
    shorthand = "values"
    values: tuple[str | bool | int | float, ...] = Field(min_length=1, description="The values.")


class AcceptedRange(RowTest):
    """Every value lies in a range; null is left out."""

    kind = "accepted_range"
    min: float | None = Field(default=None, description="Smallest value.")
    max: float | None = Field(default=None, description="Largest value.")
    of: Literal["length", "dim"] | None = Field(
        default=None, description="length: characters of a text; dim: entries of a list."
    )

    @model_validator(mode="after")
    def _some_bound(self) -> "AcceptedRange":
        if self.min is None and self.max is None:
            raise ValueError("min, max or both")
        return self

    @property
    def measure(self) -> str | None:
        """What the test looks at of its column."""
        return self.of


class Relationships(RowTest):
    """Every value occurs in another table, in the same partition."""

    kind = "relationships"
    shorthand = "to"
    to: str = Field(pattern=r"^[a-z_]+\.[a-z_]+$", description="Table and column, such as documents.doc_id.")

    @property
    def parent(self) -> tuple[str, str]:
        """Table and column."""
        table, _, column = self.to.partition(".")
        return table, column

    @property
    def measure(self) -> str | None:
        """What the test looks at of its column."""
        return f"in.{self.to}"


class Covers(RowTest):
    """Every row of another table, in the same partition, has a row here with the same value.

    `where` chooses among the other table's rows, and it is those that are counted.
    """

    kind = "covers"
    shorthand = "of"
    of: str = Field(pattern=r"^[a-z_]+\.[a-z_]+$", description="Table and column, such as documents.doc_id.")

    @property
    def parent(self) -> tuple[str, str]:
        """Table and column."""
        table, _, column = self.of.partition(".")
        return table, column


class OnHistory(Declared):
    """A test against what the partition's earlier passing results of the same test measured; the first one passes."""

    on_history = True
    min_rows: int = Field(default=20, ge=0, description="Fewer rows, now or then, are not compared with history.")


class RowCount(OnHistory):
    """The number of rows is in a range, and does not jump."""

    kind = "row_count"
    for_table = True
    min: int | None = Field(default=None, ge=0, description="Fewest rows.")
    max: int | None = Field(default=None, ge=0, description="Most rows.")
    max_drop: float | None = Field(default=None, ge=0, le=1, description="Share of the earlier rows that may go.")
    max_growth: float | None = Field(default=None, ge=0, description="Share of the earlier rows that may be added.")


class Distribution(OnHistory):
    """The mean of a column, or the share of rows for which a condition holds, is in a range and does not jump."""

    kind = "distribution"
    of: Literal["length", "dim"] | None = Field(
        default=None, description="length: characters of a text; dim: entries of a list."
    )
    share_of: str | None = Field(default=None, description="Under the table's tests: the condition.")
    min: float | None = Field(default=None, description="Smallest mean.")
    max: float | None = Field(default=None, description="Largest mean.")
    max_change: float | None = Field(default=None, ge=0, description="Largest change as a share of the earlier mean.")
    max_shift: float | None = Field(default=None, ge=0, description="Largest change, in the unit of the mean.")

    @field_validator("share_of")
    @classmethod
    def _share_of(cls, value: str | None) -> str | None:
        if value is not None:
            conditions.parse(value)
        return value

    @property
    def measure(self) -> str | None:
        """What the test looks at of its column."""
        return self.of


class Language(OnHistory):
    """The shares of a column's values, such as languages, do not jump."""

    kind = "language"
    shorthand = "max_shift"
    max_shift: float = Field(default=0.3, ge=0, le=1, description="Share of rows that may have changed their value.")


class VectorDim(RowTest):
    """Every vector has the model's dimension."""

    kind = "vector_dim"
    shorthand = "dim"
    dim: int | None = Field(default=None, ge=1, description="The dimension; default: that of the lane's model.")

    @property
    def measure(self) -> str | None:
        """What the test looks at of its column."""
        return "dim"


class UnitNorm(RowTest):
    """Every vector has length 1."""

    kind = "unit_norm"
    shorthand = "tolerance"
    tolerance: float = Field(default=0.01, gt=0, description="How far the length may be from 1.")

    @property
    def measure(self) -> str | None:
        """What the test looks at of its column."""
        return "norm"


class NoNan(RowTest):
    """No vector holds a value that is not a finite number."""

    kind = "no_nan"

    @property
    def measure(self) -> str | None:
        """What the test looks at of its column."""
        return "nan_count"


class NotCollapsed(Declared):
    """Different texts have different vectors. Vectors count as one if they agree to three decimals."""

    kind = "not_collapsed"
    shorthand = "max_share"
    max_share: float = Field(default=0.1, ge=0, le=1, description="Share of texts that may share another's vector.")
    text: str = Field(default="text_hash", description="Column that tells texts apart.")
    min_rows: int = Field(default=20, ge=2, description="Fewer different texts are not tested.")

    @property
    def measure(self) -> str | None:
        """What the test looks at of its column."""
        return f"shared@{self.text}"


class Constant(Declared):
    """All rows of the partition have the same value."""

    kind = "constant"


class Pii(RowTest):
    """No text looks as if it held personal data."""

    kind = "pii"
    shorthand = "patterns"
    severity: Literal["warn", "error"] = Field(default="warn", description="What a failure is.")
    patterns: tuple[PatternName, ...] = Field(default=NAMES, min_length=1, description="What is looked for.")

    @property
    def measure(self) -> str | None:
        """What the test looks at of its column."""
        return "pii"


class Boilerplate(Declared):
    """No text occurs in too large a share of the partition's documents."""

    kind = "boilerplate"
    shorthand = "max_share"
    max_share: float = Field(default=0.3, gt=0, le=1, description="Share of documents that may hold the same text.")
    document: str = Field(default="doc_id", description="Column that tells documents apart.")
    min_documents: int = Field(default=10, ge=2, description="Fewer documents are not tested.")

    @property
    def measure(self) -> str | None:
        """What the test looks at of its column."""
        return f"document_share@{self.document}"


class Expression(RowTest):
    """A condition of your own holds for every row."""

    kind = "expression"
    shorthand = "that"
    for_table = True
    that: str = Field(description="The condition. A comparison with null does not hold.")

    @field_validator("that")
    @classmethod
    def _that(cls, value: str) -> str:
        conditions.parse(value)
        return value


KINDS: Final[dict[str, type[Declared]]] = {
    kind.kind: kind
    for kind in (NotNull, Unique, AcceptedValues, AcceptedRange, Relationships, Covers, RowCount, Distribution,
                 Language, VectorDim, UnitNorm, NoNan, NotCollapsed, Constant, Pii, Boilerplate, Expression)
}  # fmt: skip
