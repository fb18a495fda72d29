"""Schemas of the custom resources that the manifests use: of each the part that is used, and nothing else is taken.

After the published definitions: KEDA 2, prometheus-operator, external-secrets (v1), milvus-operator (v1beta1).
"""

from typing import Any, Final

Schema = dict[str, Any]


def of(required: str = "", **properties: Schema) -> Schema:
    """Return the schema of an object with these properties and no others."""
    return {
        "type": "object", "properties": properties, "required": required.split(), "additionalProperties": False
    }  # fmt: skip


def many(item: Schema) -> Schema:
    """Return the schema of a list that is not empty."""
    return {"type": "array", "items": item, "minItems": 1}


TEXT: Final[Schema] = {"type": "string", "minLength": 1}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
FLAG: Final[Schema] = {"type": "boolean"}
TEXTS: Final[Schema] = {"type": "object", "additionalProperties": {"type": "string"}}
ANYTHING: Final[Schema] = {"type": "object"}
DURATION: Final[Schema] = {"type": "string", "pattern": r"^([0-9]+(ms|s|m|h))+$"}
QUANTITY: Final[Schema] = {"type": "string", "pattern": r"^[0-9.]+(m|Ki|Mi|Gi)?$"}


def choice(*values: str) -> Schema:
    """Return the schema of one of some texts."""
    return {"enum": list(values)}


_ENDPOINT: Final[dict[str, Schema]] = {
    "port": TEXT, "path": TEXT, "interval": DURATION, "scrapeTimeout": DURATION,
    "relabelings": many(of("action", targetLabel=TEXT, replacement=TEXT, action=choice("replace"))),
}  # fmt: skip
_RESOURCES: Final = of(
    "requests limits",
    requests=of("cpu memory", cpu=QUANTITY, memory=QUANTITY),
    limits=of("memory", memory=QUANTITY),
)
_NODE: Final[dict[str, Schema]] = {"replicas": COUNT, "resources": _RESOURCES}

SPECS: Final[dict[tuple[str, str], Schema]] = {
    ("keda.sh/v1alpha1", "ScaledObject"): of(
        "scaleTargetRef triggers",
        scaleTargetRef=of("name", apiVersion=TEXT, kind=TEXT, name=TEXT),
        minReplicaCount=COUNT,
        maxReplicaCount=COUNT,
        fallback=of("failureThreshold replicas", failureThreshold=COUNT, replicas=COUNT),
        advanced=of(horizontalPodAutoscalerConfig=of(behavior=ANYTHING)),
        triggers=many(
            of(
                "type metadata",
                type=choice("cpu", "prometheus"),
                metricType=choice("Utilization", "AverageValue"),
                metadata=TEXTS,
            )
        ),
    ),
    ("monitoring.coreos.com/v1", "ServiceMonitor"): of(
        "selector endpoints", jobLabel=TEXT, selector=of(matchLabels=TEXTS), endpoints=many(of("port", **_ENDPOINT))
    ),
    ("monitoring.coreos.com/v1", "PodMonitor"): of(
        "selector podMetricsEndpoints",
        selector=of(matchLabels=TEXTS),
        podMetricsEndpoints=many(of("port", **_ENDPOINT)),
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): of(
        "groups",
        groups=many(
            of(
                "name rules",
                name=TEXT,
                interval=DURATION,
                rules=many(
                    of(
                        "expr",
                        alert=TEXT,
                        record=TEXT,
                        expr=TEXT,
                        labels=TEXTS,
                        annotations=TEXTS,
                        **{"for": DURATION, "keep_firing_for": DURATION},
                    )
                ),
            )
        ),
    ),
    ("external-secrets.io/v1", "ExternalSecret"): of(
        "secretStoreRef data",
        refreshInterval=DURATION,
        secretStoreRef=of("name", kind=choice("SecretStore", "ClusterSecretStore"), name=TEXT),
        target=of(name=TEXT, creationPolicy=choice("Owner", "Merge", "Orphan", "None")),
        data=many(of("secretKey remoteRef", secretKey=TEXT, remoteRef=of("key", key=TEXT, property=TEXT))),
    ),
    ("milvus.io/v1beta1", "Milvus"): of(
        "mode components dependencies",
        mode=choice("cluster", "standalone"),
        components=of(
            "image",
            image=TEXT,
            serviceAccountName=TEXT,
            enableRollingUpdate=FLAG,
            disableMetric=FLAG,
            podLabels=TEXTS,
            mixCoord=of(**_NODE),
            streamingNode=of(**_NODE),
            dataNode=of(**_NODE),
            queryNode=of(**_NODE),
            proxy=of(**_NODE, serviceType=choice("ClusterIP", "NodePort", "LoadBalancer")),
        ),
        config=ANYTHING,
        dependencies=of(
            msgStreamType=choice("woodpecker", "pulsar", "kafka"),
            etcd=of(
                external=FLAG,
                endpoints=many(TEXT),
                inCluster=of(deletionPolicy=choice("Delete", "Retain"), pvcDeletion=FLAG, values=ANYTHING),
            ),
            storage=of(external=FLAG, type=choice("MinIO", "S3", "Azure"), endpoint=TEXT, secretRef=TEXT),
        ),
    ),
}
