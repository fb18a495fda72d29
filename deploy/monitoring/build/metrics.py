"""Every metric of the exporter and of the service, as the code declares them; the table of docs/monitoring.md."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from prometheus_client import CollectorRegistry, disable_created_metrics

from rag_assets.run_metrics import RunMetrics
from rag_core.config import RagConfig
from rag_core.monitoring.exporter import Exporter
from rag_core.monitoring.group import Group
from rag_core.monitoring.of_store import store_groups
from rag_core.tables.store import Store
from serving.observability.metrics import Metrics

PAGE: Final = Path(__file__).resolve().parents[3] / "docs" / "monitoring.md"
_BEGIN: Final = "<!-- metrics: made by `python -m deploy.monitoring.build` -->\n"
_END: Final = "<!-- end of metrics -->"
_PROCESS: Final = "process_"


@dataclass(frozen=True)
class Described:
    """A metric: its name as it is exposed (a counter's with `_total`), type, labels and meaning."""

    name: str
    type: str
    labels: tuple[str, ...]
    help: str


def exporter_groups() -> list[Group]:
    """Make every group, of a store that is not there: they declare their metrics without reading anything."""
    config = RagConfig.model_validate(
        {
            "store": {"root": "/nowhere"},
            "sources": [{"name": "any", "kind": "files", "root": "/nowhere"}],
            "backup": {"to": "/elsewhere"},
        }
    )
    return [*store_groups(Store.of(config.store), config), RunMetrics(_no_instance, ())]


def exporter_metrics() -> dict[str, list[Described]]:
    """Return the metrics of the exporter by group; `exporter` are those about itself."""
    groups = exporter_groups()
    about = Exporter(groups, refresh_s=1, stale_after_s=2)
    own = [
        Described(f"{one.name}_total" if one.type == "counter" else one.name, one.type, ("group",), one.documentation)
        for one in about.collect()
    ]
    return {**{group.name: list(_described(group.registry)) for group in groups}, "exporter": own}


def service_metrics() -> list[Described]:
    """Return the metrics of the service, those of its process left out."""
    return [one for one in _described(Metrics().registry) if not one.name.startswith(_PROCESS)]


def with_table(page: str) -> str:
    """Return the page with the tables of metrics as the code has them.

    Raises:
        ValueError: The page has no place for them.
    """
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{PAGE}: expected a line {_BEGIN.strip()!r} and after it one {_END!r}")
    parts = [f"**`{group}`**\n\n{_table(listed)}" for group, listed in exporter_metrics().items()]
    parts.append(f"### Of the service\n\n{_table(service_metrics())}")
    return f"{before}{begin}\n" + "\n".join(parts) + f"\n{end}{after}"


def _described(registry: CollectorRegistry) -> Iterator[Described]:
    disable_created_metrics()  # type: ignore[no-untyped-call]
    for one in registry.collect():
        # the library gives label names of a metric without series nowhere else
        collector = registry._names_to_collectors.get(one.name)
        labels = tuple(getattr(collector, "_labelnames", ()))
        yield Described(f"{one.name}_total" if one.type == "counter" else one.name, one.type, labels, one.documentation)


def _table(listed: list[Described]) -> str:
    lines = ["| metric | type | labels | meaning |", "| --- | --- | --- | --- |"]
    lines += [
        f"| `{one.name}` | {one.type} | {', '.join(f'`{label}`' for label in one.labels)} | {one.help} |"
        for one in listed
    ]
    return "\n".join(lines) + "\n"


def _no_instance() -> NoReturn:
    raise NotImplementedError("nothing is read here")
