"""`rag upgrade-check`: what another version or another rag.yaml means for the store, before it is rolled out."""

from typing import Annotated

import typer

from rag_assets.cli.output import CONSOLE, print_json, print_text, table
from rag_assets.cli.publishing import index_lines
from rag_core.config_loader import load_config
from rag_core.tables.store import Store
from rag_core.upgrade import Upgrade

EXIT_CODES = {"nothing": 0, "refused": 1, "work": 3}


def upgrade_check(
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say what this version and rag.yaml would make anew of what the store holds; 0 nothing, 3 work, 1 refused."""
    from rag_core.upgrade import check_upgrade

    config = load_config().config
    found = check_upgrade(Store.of(config.store), config)
    if json_output:
        print_json(found.to_dict())
    else:
        _print(found)
    if code := EXIT_CODES[found.verdict]:
        raise typer.Exit(code)


def _print(found: Upgrade) -> None:
    for sentence in found.refused:
        print_text(CONSOLE, f"refused: {sentence}")
    if found.changed:
        rows = [(one.part, one.was[:12], one.now[:12]) for one in found.changed if one.part != "index"]
        rows += [(one.part, one.was, one.now) for one in found.changed if one.part == "index"]
        CONSOLE.print(table("fingerprints that differ", ("of", "made by", "now"), rows))
    for setting in found.changed_settings:
        print_text(CONSOLE, f"  {setting}")
    for one in found.parsing:
        print_text(
            CONSOLE,
            f"{one.objects:,} objects of {one.source} in {one.partitions:,} partitions are parsed again; what comes "
            "out differently is cut, embedded and written beside what is counted here",
        )
    if found.partitions or found.second_index:
        for number, index in enumerate(found.indexes):
            CONSOLE.print(index_lines(index, is_target=number == len(found.indexes) - 1), highlight=False)
    for note in found.notes:
        print_text(CONSOLE, note)
    print_text(CONSOLE, _conclusion(found))


def _conclusion(found: Upgrade) -> str:
    if found.refused:
        return "this version does not work with this store; nothing else was looked at"
    if found.verdict == "nothing":
        return "nothing is made anew"
    if found.second_index and not (found.indexes[-1].documents_to_cut or found.indexes[-1].rows_to_write):
        return "the index that is asked for is complete; it takes the served one's place when it has passed its verdict"
    if found.second_index:
        return "a second index is built beside the served one, which serves on until the new one has passed its verdict"
    behind = f"work on {found.partitions:,} partitions behind the parser" if found.partitions else "the parser's work"
    return f"the served index is brought up to date in place: {behind}"
