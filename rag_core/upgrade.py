"""What another version of the program or of rag.yaml means for a store, before it is rolled out.

Fingerprints of parser, chunker, model and index are compared with those that made the rows and the published index.
Sources are not listed: what changed there is a matter of every run, and of `rag plan`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import Schema
from deltalake.exceptions import TableNotFoundError

from rag_core.config import RagConfig
from rag_core.engine.chunkers import chunker_fingerprints
from rag_core.generation import Generation
from rag_core.parsing.settings import ParseSettings, parser_fingerprint
from rag_core.partitions import source_of
from rag_core.stages.plan import IndexPlan, Plan, make_plan
from rag_core.stages.publication import Manifest, generations, held_by_rollback, latest_manifest
from rag_core.stages.retirement import retired_partitions
from rag_core.stages.seen import seen_source
from rag_core.tables.delta import SCHEMAS, TableSlice, partition_columns, partition_values
from rag_core.tables.handles import open_table
from rag_core.tables.store import Store

Verdict = Literal["nothing", "work", "refused"]

_EXAMPLES: Final = 4
_MOVE_AWAY: Final = (
    "move the folder `tables` of the store away (vectors are kept beside it and are reused), then: rag run"
)


@dataclass(frozen=True)
class Layout:
    """A Delta table's columns and their types, as text, and the columns it is partitioned by."""

    columns: Mapping[str, str]
    partition_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Changed:
    """A fingerprint that is not the one that made what is there: `parser of SOURCE`, `chunker`, `model`, `index`."""

    part: str
    was: str
    now: str


@dataclass(frozen=True)
class Parsing:
    """Objects of a source that are parsed again although they did not change, in so many partitions."""

    source: str
    objects: int
    partitions: int


@dataclass(frozen=True)
class Upgrade:
    """What a version and a rag.yaml mean for a store.

    Attributes:
        refused: Why they do not work with it, a sentence each; nothing else was looked at then.
        changed: The fingerprints that differ.
        changed_settings: In what the index that is asked for differs from the one that is served.
        parsing: What is parsed again, by source; documents that come out the same go no further.
        indexes: The work on the served index, if another is asked for, and on the one that is asked for.
        partitions: Partitions that something is to be done in behind the parser.
        second_index: Whether an index is built beside the served one.
        notes: What else whoever rolls it out has to know, a sentence each.
    """

    refused: tuple[str, ...] = ()
    changed: tuple[Changed, ...] = ()
    changed_settings: tuple[str, ...] = ()
    parsing: tuple[Parsing, ...] = ()
    indexes: tuple[IndexPlan, ...] = ()
    partitions: int = 0
    second_index: bool = False
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """Whether the store is refused, there is work on it, or nothing."""
        if self.refused:
            return "refused"
        return "work" if self.changed or self.parsing or self.partitions or self.second_index else "nothing"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and the verdict for JSON."""
        return {"verdict": self.verdict, **asdict(self)}


def check_upgrade(store: Store, config: RagConfig) -> Upgrade:
    """Compare a store with this program and a configuration. No row is written; a table that is new is created empty.

    Raises:
        ConfigError: The model is not there, or reads less than a chunk.
    """
    found = {name: layout for name in SCHEMAS if (layout := _layout_of(store, name)) is not None}
    if "documents" not in found:
        return Upgrade(notes=(f"{store.root} holds no documents yet: the first run makes everything",))
    if refused := tuple(
        sentence for name, layout in found.items() if (sentence := refusal(store.table_uri(name), name, layout))
    ):
        return Upgrade(refused)
    known, manifest = generations(store, config), latest_manifest(store)
    target = known.target
    plan = make_plan(store, config, listing=False)
    retired = retired_partitions(store, config)
    second = manifest is not None and manifest.collection != target.collection
    notes = (known.lost, held_by_rollback(manifest, target), _guard(plan), _removal(retired))
    return Upgrade(
        changed=(*_parsers(store, config), *_chunkers(store, config, target), *index_changes(manifest, target)),
        changed_settings=tuple(plan.changed_settings) if second else (),
        parsing=_parsing(store, config),
        indexes=tuple(plan.indexes),
        partitions=len(plan.partitions) + len(retired),
        second_index=second,
        notes=tuple(note for note in notes if note),
    )


def declared(name: str) -> Layout:
    """Return the layout that this version gives a table."""
    return Layout(_types(Schema.from_arrow(SCHEMAS[name])), partition_columns(name))


def refusal(uri: str, name: str, found: Layout) -> str:
    """Say why a table cannot be worked with; empty if it can.

    A column that is missing or of another type was written by an earlier version. One that is not known was written by
    a later one, and appends to such a table fail.
    """
    wanted = declared(name)
    if missing := sorted(wanted.columns.keys() - found.columns.keys()):
        return f"table {name} at {uri} was written by an earlier version: no column {', '.join(missing)}; {_MOVE_AWAY}"
    if unknown := sorted(found.columns.keys() - wanted.columns.keys()):
        return (
            f"table {name} at {uri} was written by a later version: this one does not know the column "
            f"{', '.join(unknown)} and cannot append to it; go on with that version, or bring a snapshot of before back"
        )
    if others := [column for column in wanted.columns if found.columns[column] != wanted.columns[column]]:
        listed = ", ".join(f"{one} is {found.columns[one]}, expected {wanted.columns[one]}" for one in others)
        return f"table {name} at {uri} has columns of another type: {listed}; {_MOVE_AWAY}"
    if found.partition_by != wanted.partition_by:
        parts = (", ".join(one) or "nothing" for one in (found.partition_by, wanted.partition_by))
        return f"table {name} at {uri} is partitioned by {next(parts)}, expected {next(parts)}; {_MOVE_AWAY}"
    return ""


def index_changes(manifest: Manifest | None, target: Generation) -> tuple[Changed, ...]:
    """Compare what is published with what is asked for: chunker of the configuration, model, index as a whole."""
    if manifest is None:
        return ()
    pairs = (
        Changed("chunker", manifest.chunk_lane, target.chunk_lane),
        Changed("model", manifest.model_fingerprint, target.spec.fingerprint),
        Changed("index", manifest.collection, target.collection),
    )
    return tuple(one for one in pairs if one.was != one.now)


def _layout_of(store: Store, name: str) -> Layout | None:
    try:
        table = open_table(store, name)
    except TableNotFoundError:
        return None
    return Layout(_types(table.schema()), tuple(table.metadata().partition_columns))


def _types(schema: Schema) -> dict[str, str]:
    return {one.name: one.type.to_json().strip('"') for one in schema.fields}


def _parsers(store: Store, config: RagConfig) -> list[Changed]:
    """Find parsers that made documents and are not those of now; limits count for rejected documents only."""
    rows = TableSlice.newest(store, "documents").read(
        ["source", "parser_fingerprint"], pc.field("status") != "rejected"
    )
    now = {source.name: parser_fingerprint(ParseSettings.of(config.parsing, source)) for source in config.sources}
    return _unlike("parser", rows, "parser_fingerprint", now)


def _parsing(store: Store, config: RagConfig) -> tuple[Parsing, ...]:
    """Find the objects whose documents another parser made, or that lie in a partition that is not theirs any more."""
    documents = TableSlice.newest(store, "documents")
    keys = partition_values(store, "documents", "partition_key")
    found = []
    for source in config.sources:
        own = [key for key in keys if source_of(key) == source.name]
        settings = ParseSettings.of(config.parsing, source)
        seen = seen_source(documents, source.name, own, config.buckets_of(source), settings)
        now = parser_fingerprint(settings)
        stale = [seen.partitions[key] for key, one in seen.objects.items() if one.parser_fingerprint != now]
        found.append(Parsing(source.name, len(stale), len(set(stale))))
    return tuple(one for one in found if one.objects)


def _chunkers(store: Store, config: RagConfig, target: Generation) -> list[Changed]:
    """Find sources whose own chunking changed: it applies in place, in the lane that all sources share."""
    rows = TableSlice.newest(store, "chunks", lane=target.chunk_lane).read(["source", "chunker_fingerprint"])
    return _unlike("chunker", rows, "chunker_fingerprint", chunker_fingerprints(config))


def _unlike(part: str, rows: pa.Table, column: str, now: Mapping[str, str]) -> list[Changed]:
    """List the fingerprints in rows that are not those of now; sources that are no longer configured do not count."""
    made = sorted((row["source"], row[column]) for row in rows.group_by(["source", column]).aggregate([]).to_pylist())
    return [Changed(f"{part} of {name}", was, now[name]) for name, was in made if now.get(name, was) != was]


def _removal(retired: Sequence[str]) -> str:
    if not retired:
        return ""
    listed = ", ".join(retired[:_EXAMPLES]) + (", ..." if len(retired) > _EXAMPLES else "")
    return f"rag.yaml no longer has {len(retired):,} partitions that hold rows ({listed}): a run removes them"


def _guard(plan: Plan) -> str:
    if not plan.refused:
        return ""
    share = plan.indexes[-1].reembed_share
    return (
        f"{share:.0%} of the served chunks would be embedded anew, more than publication.max_reembed_share allows: "
        "runs refuse until one is told to, by `rag run --rebuild` (run tag rag/rebuild: allow)"
    )
