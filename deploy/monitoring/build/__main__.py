"""Writes the dashboards, the rules as a resource of Kubernetes and the tables of docs/monitoring.md; with `--check` it
says whether they are current.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.monitoring.build import metrics
from deploy.monitoring.build.embedding import embedding
from deploy.monitoring.build.freshness import freshness
from deploy.monitoring.build.index import index
from deploy.monitoring.build.ingestion import ingestion
from deploy.monitoring.build.rule_resource import RESOURCE, rule_resource
from deploy.monitoring.build.serving import serving

FOLDER: Final = Path(__file__).resolve().parents[1] / "dashboards"
PAGES: Final[tuple[Callable[[], Dashboard], ...]] = (freshness, ingestion, embedding, index, serving)


def files() -> dict[Path, str]:
    """Return what every file must hold."""
    made = [build() for build in PAGES]
    texts = {FOLDER / f"{one.uid}.json": JSONEncoder(sort_keys=True, indent=2).encode(one) + "\n" for one in made}
    page = metrics.with_table(metrics.PAGE.read_text(encoding="utf-8"))
    return {**texts, RESOURCE: rule_resource(), metrics.PAGE: page}


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or say with `--check` which are not current; the exit status is 1 then."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only")
    check = parser.parse_args(arguments).check
    wanted = files()
    there = {path: path.read_text(encoding="utf-8") for path in [*FOLDER.glob("*.json"), RESOURCE, metrics.PAGE]}
    differing = sorted(path for path in {*wanted, *there} if wanted.get(path) != there.get(path))
    for path in differing:
        if check:
            sys.stderr.write(f"{path} is not current; run python -m deploy.monitoring.build\n")
        elif path in wanted:
            path.write_text(wanted[path], encoding="utf-8")
        else:
            path.unlink()
    return 1 if check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
