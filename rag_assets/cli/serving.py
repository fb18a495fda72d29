"""`rag serve`: the HTTP service with its page."""

from typing import Annotated

import typer

from rag_core.config_loader import load_config


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default: serving.host.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; default: serving.port.")] = None,
) -> None:
    """Serve search and cited answers over HTTP, with a page to ask on; Ctrl-C lets what is in flight end."""
    from serving.run import serve as run

    config = load_config().config
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    run(config.model_copy(update={"serving": config.serving.model_copy(update=given)}))
