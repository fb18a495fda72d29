"""Answers a few requests with traces sent to an address; a process of its own, as tracing is set up once for each."""

import asyncio
import sys

from rag_core.config_serving import ObservabilityConfig
from serving.observability.tracing import setup_tracing
from tests.unit.serving.edge_helpers import Edge

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NOT_SAMPLED = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


async def ask() -> list[int]:
    async with Edge().client() as client:
        answers = [
            await client.get("/v1/things/7?q=secret", headers={"traceparent": SAMPLED, "X-Request-Id": "r1"}),
            await client.get("/v1/things/8", headers={"traceparent": NOT_SAMPLED}),
            await client.get("/v1/things/9", headers={"traceparent": "nonsense", "X-Request-Id": "r3"}),
            await client.get("/v1/broken"),
            await client.get("/healthz"),
        ]
    return [answer.status_code for answer in answers]


def main(endpoint: str) -> None:
    end = setup_tracing(ObservabilityConfig(otlp_endpoint=endpoint), "1.2.3")
    sys.stdout.write(f"{asyncio.run(ask())}\n")
    end()


if __name__ == "__main__":
    main(sys.argv[1])
