"""The rules of Prometheus as the resource that its operator takes."""

from pathlib import Path
from typing import Any, Final

import yaml

_MONITORING: Final = Path(__file__).resolve().parents[1]
RESOURCE: Final = _MONITORING.parent / "k8s" / "monitoring" / "prometheus-rule.yaml"
_HEAD: Final = "# Made from deploy/monitoring/rules by `python -m deploy.monitoring.build`.\n"


def rule_resource() -> str:
    """Return the text of a PrometheusRule with every group of deploy/monitoring/rules, in the order of the files."""
    groups: list[dict[str, Any]] = []
    for path in sorted((_MONITORING / "rules").glob("*.yml")):
        groups += yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "rag-assets", "labels": {"app.kubernetes.io/part-of": "rag-assets"}},
        "spec": {"groups": groups},
    }
    return _HEAD + yaml.safe_dump(resource, sort_keys=False, width=120, allow_unicode=True)
