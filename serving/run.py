"""Run the service: `rag serve`, or `python -m serving`."""

import uvicorn

from rag_core.config import RagConfig
from serving.app import create_app
from serving.observability.logs import setup_logging


def serve(config: RagConfig) -> None:
    """Serve until SIGINT or SIGTERM, then let the requests in flight end.

    Raises:
        ConfigError: See `serving.app.create_app`.
    """
    serving = config.serving
    setup_logging(serving.observability)
    uvicorn.run(
        create_app(config),
        host=serving.host,
        port=serving.port,
        log_config=None,
        access_log=False,  # the middleware's has request ids and callers
        server_header=False,
        timeout_graceful_shutdown=max(1, round(serving.drain_s)),
    )
