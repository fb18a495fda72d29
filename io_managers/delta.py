"""Assets hand one another slices of Delta tables: which table, which partitions, which version; never the rows."""

import dagster as dg

from rag_core.tables.delta import TableSlice
from resources.platform import PlatformResource


class DeltaIOManager(dg.ConfigurableIOManager):
    """Loads an upstream asset as a `TableSlice` of the run's partitions at the table's newest version.

    Rows are committed by the asset's own step (`rag_assets.materialize`), since its data version is a digest of them;
    the output that arrives here is the slice after the commit, and a slice of another table is refused.
    """

    platform: dg.ResourceDependency[PlatformResource]

    def handle_output(self, context: dg.OutputContext, obj: TableSlice) -> None:
        """Record which table and version the materialization stands for."""
        table = context.asset_key.path[-1]
        if obj.table != table:
            raise dg.DagsterInvariantViolationError(f"asset {table} handed over a slice of table {obj.table}")
        context.add_output_metadata({"table_version": obj.version, "dagster/uri": self.platform.store.table_uri(table)})

    def load_input(self, context: dg.InputContext) -> TableSlice:
        """Return the upstream table, narrowed to the partitions of this run (all of them for unpartitioned assets)."""
        keys = sorted(context.asset_partition_keys) if context.has_asset_partitions else None
        return self.platform.slice(context.asset_key.path[-1], keys)
