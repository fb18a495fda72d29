"""`rag pools`: how many steps of each kind Dagster lets run at once."""

from rag_assets.cli.output import CONSOLE, table
from rag_core.config_loader import load_config
from rag_core.tables.store import Store


def pools() -> None:
    """Set the limits of Dagster's pools, over all runs, as rag.yaml says; `rag run` and `rag dev` do so too."""
    import dagster as dg

    from rag_assets.instance import dagster_home, pool_limits, set_pool_limits

    config = load_config(check_files=False).config
    with dg.DagsterInstance.from_config(str(dagster_home(Store.of(config.store), config))) as instance:
        set_pool_limits(instance, config)
    CONSOLE.print(table("", ("pool", "steps at once"), sorted(pool_limits(config).items())))
