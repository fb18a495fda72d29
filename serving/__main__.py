"""`python -m serving`: the service as a process of its own."""

import sys

from rag_core.config_loader import load_config
from rag_core.errors import ConfigError
from serving.run import serve


def main() -> int:
    """Serve what rag.yaml says; errors of configuration are one line."""
    try:
        serve(load_config().config)
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201 -- there is no log yet
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
