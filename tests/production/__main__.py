"""`make demo-production`: the example corpus in both shapes, laptop and production, and whether they are equal."""

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.production.demo import run_demo


def main() -> int:
    """Run the demo; the exit code is 1 if the shapes differ."""
    parser = argparse.ArgumentParser(prog="python -m tests.production", description=__doc__)
    parser.add_argument("--folder", type=Path, help="where everything is kept; default: a folder that is removed")
    arguments = parser.parse_args()
    console = Console(soft_wrap=True, highlight=False)
    if arguments.folder:
        return run_demo(arguments.folder.absolute(), console)
    with tempfile.TemporaryDirectory(prefix="rag-production-", ignore_cleanup_errors=True) as folder:
        return run_demo(Path(folder), console)


if __name__ == "__main__":
    sys.exit(main())
