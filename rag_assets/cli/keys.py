"""`rag keys`: makes API keys of the service, and lists those it would accept."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from rag_assets.cli.output import CONSOLE, ERRORS, print_json, print_text, table
from rag_core.access_key_file import append_key, entry_yaml, read_key_file
from rag_core.access_keys import KeyEntry, hash_of, new_key, parse_keys
from rag_core.config_loader import load_config
from rag_core.errors import ConfigError

app = typer.Typer(help="API keys of the service: make one, list those there are.", no_args_is_help=True)

File = Annotated[Path | None, typer.Option("--file", help="YAML list of keys, as serving.access.keys_file names it.")]


@app.command("new")
def new(
    id: Annotated[str, typer.Option("--id", help="Whose key it is, such as ci-bot; several keys may have one id.")],
    principal: Annotated[
        list[str] | None,
        typer.Option("--principal", help="A name that documents admit, such as group:eng; may be repeated."),
    ] = None,
    expires_days: Annotated[
        int | None, typer.Option("--expires-days", min=1, max=36_500, help="Days until it expires; default: never.")
    ] = None,
    note: Annotated[str, typer.Option("--note", help="A note for whoever reads the list.")] = "",
    file: File = None,
) -> None:
    """Make a key. It is printed once, on stdout, and kept nowhere; the list holds its hash."""
    key = new_key()
    now = datetime.now(UTC).replace(microsecond=0)
    expires_at = None if expires_days is None else now + timedelta(days=expires_days)
    try:
        entry = KeyEntry(id=id, hash=hash_of(key), principals=tuple(principal or ()), expires_at=expires_at, note=note)
    except ValidationError as error:
        field = str(error.errors()[0]["loc"][0])
        name = {"id": "--id", "principals": "--principal"}.get(field, field)
        expected = "a name without spaces" if name == "--principal" else KeyEntry.model_fields[field].description
        raise ConfigError(f"{name}: expected {expected}") from None
    if file is None:
        print_text(ERRORS, "Add this to the list of keys, the file that serving.access.keys_file names:\n")
        ERRORS.print(entry_yaml(entry), markup=False, highlight=False, soft_wrap=True, end="\n")
    else:
        append_key(file, entry)
        print_text(ERRORS, f"Added to {file}. A running service takes it up within a second.")
    print_text(ERRORS, "The key, which is shown only now:")
    typer.echo(key)


@app.command("check")
def check(
    file: File = None, json_output: Annotated[bool, typer.Option("--json", help="A JSON array.")] = False
) -> None:
    """List the keys that the service accepts, whom each stands for and until when; exit code 2 if a list is broken."""
    now = datetime.now(UTC)
    rows = [
        {
            "id": entry.id,
            "principals": list(entry.principals),
            "expires_at": entry.expires_at,
            "state": "expired" if entry.is_expired(now) else "valid",
            "hash": entry.hash[:8],  # tells two keys of one id apart
            "note": entry.note,
        }
        for entry in _entries(file)
    ]
    if json_output:
        print_json(rows)
    elif rows:
        cells = ([", ".join(value) if isinstance(value, list) else value for value in row.values()] for row in rows)
        CONSOLE.print(table("API keys", rows[0], cells))
    else:
        CONSOLE.print("no API keys", highlight=False)


def _entries(file: Path | None) -> list[KeyEntry]:
    if file is not None:
        return list(read_key_file(file))
    access = load_config(check_files=False).config.serving.access
    entries = list(read_key_file(access.keys_file)) if access.keys_file is not None else []
    if access.keys is not None:
        entries += parse_keys(access.keys.get_secret_value(), where="env RAG_SERVING__ACCESS__KEYS")
    return entries
