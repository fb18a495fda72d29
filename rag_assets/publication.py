"""The unpartitioned assets: how well the index retrieves, the verdict on it, and what is served."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import dagster as dg

from rag_assets.automation import AUTOMATED_TAG, FRESHNESS, publication_condition
from rag_assets.materialize import OWNERS, RETRY, failures_by_class, markdown_table
from rag_assets.reporting import report_metadata, report_path, write_reports
from rag_core import ids
from rag_core.config import RagConfig
from rag_core.faults import crash_point
from rag_core.generation import changed_settings
from rag_core.index.client import IndexClient
from rag_core.stages.judging import judge
from rag_core.stages.publication import (
    Generations,
    Publication,
    SearchChoice,
    generations,
    latest_manifest,
    publish,
)
from rag_core.stages.retention import collect
from rag_core.stages.verdict import Verdict, append_verdict, newest_verdict, why_judge
from rag_core.tables.delta import TableSlice
from rag_core.tables.store import Store
from resources.milvus import MilvusResource
from resources.platform import PlatformResource
from resources.progress import progress_of

PUBLISH_AGAIN_TAG = "rag/publish_again"
"""Set to `allow` on a run, it publishes a collection that was rolled back from."""

JUDGE_AGAIN_TAG = "rag/judge_again"
"""Set to `allow` on a run, it judges an index again that was refused, even if nothing changed since."""

_NAMED = 8  # partitions in a message
_KINDS = {"milvus", "deltalake"}


def build_publication_assets(config: RagConfig) -> Sequence[dg.AssetsDefinition]:
    """Return the verdict and publication, asked for at the ticks of `automation.publish_cron`."""
    conditions = {
        "retrieval_eval": publication_condition(config),
        "index_verdict": publication_condition(config, behind="retrieval_eval"),
        "published_index": publication_condition(config, behind="index_verdict", last=True),
    }

    def automated(spec: dg.AssetSpec) -> dg.AssetSpec:
        return spec.replace_attributes(automation_condition=conditions[spec.key.to_user_string()])

    return [assets.map_asset_specs(automated) for assets in (judged_index, published_index)]


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            "retrieval_eval",
            deps=["index_partitions"],
            description="Labelled or generated questions and how well the index answers them, one row per question, "
            "mode and evaluation; key `query_id`, `query_set`, `mode`, `collection`, `evaluated_at`.",
            group_name="index",
            owners=OWNERS,
            kinds=_KINDS,
            code_version="1",
        ),
        dg.AssetSpec(
            "index_verdict",
            deps=["retrieval_eval"],
            description="Whether the index that rag.yaml asks for may be served, and why, one row per verdict; key "
            "`verdict_id`. Checks, anti-entropy, ANN recall, relevance, and old against new on the same questions.",
            group_name="index",
            owners=OWNERS,
            kinds=_KINDS,
            code_version="1",
        ),
    ],
    retry_policy=RETRY,
)
def judged_index(
    context: dg.AssetExecutionContext, platform: PlatformResource, milvus: MilvusResource
) -> Iterator[dg.MaterializeResult[None]]:
    """Judge the index if it is complete and enough changed since the last verdict on it."""
    with failures_by_class(), milvus.client() as client:
        known = generations(platform.store, platform.config)
        asked = context.run.tags.get(JUDGE_AGAIN_TAG) == "allow"
        why = why_judge(platform.store, known, asked=asked)
        if why:
            context.log.info(f"{known.target.collection} is judged: {why}")
            verdict = judge(
                platform.store,
                known,
                client,
                run_id=context.run.run_id,
                on_progress=progress_of(context, "index_verdict"),
            )
            crash_point("index_verdict.before_commit")
            verdict = replace(verdict, report=report_path(verdict))
            append_verdict(platform.store, verdict)
            write_reports(platform.store, platform.config, verdict)
            crash_point("index_verdict.after_commit")
        last = newest_verdict(platform.store, known.target.collection)
        yield _evaluation_result(platform.store, last)
        yield _verdict_result(context, platform, known, last, judged_now=bool(why))


def _evaluation_result(store: Store, verdict: Verdict | None) -> dg.MaterializeResult[None]:
    table = TableSlice.newest(store, "retrieval_eval")
    columns = ("query_set", "source", "mode", "ndcg_at_10", "recall_at_10", "recall_at_100", "mrr", "queries")
    means = verdict.measures.get("relevance", []) if verdict else []
    shown = [{**one, **{name: f"{one[name]:.3f}" for name in columns[3:7]}} for one in means]
    return dg.MaterializeResult(
        asset_key="retrieval_eval",
        metadata={
            "table_version": table.version,
            "relevance": dg.MetadataValue.md(markdown_table(columns, shown) if shown else "nothing was asked"),
        },
        data_version=dg.DataVersion(str(table.version)),
    )


def _verdict_result(
    context: dg.AssetExecutionContext,
    platform: PlatformResource,
    known: Generations,
    verdict: Verdict | None,
    *,
    judged_now: bool,
) -> dg.MaterializeResult[None]:
    if verdict is None:
        metadata: dict[str, Any] = {"passed": False, "reasons": "not judged yet: the collection is incomplete"}
        version = f"{known.target.collection} not judged"
        return dg.MaterializeResult(
            asset_key="index_verdict", metadata=metadata, data_version=dg.DataVersion(ids.digest(version))
        )
    if not verdict.passed:
        context.log.error(f"{verdict.collection} is refused: {' '.join(verdict.reasons)}")
    metadata = {
        "passed": verdict.passed,
        "reasons": dg.MetadataValue.md("\n".join(f"- {reason}" for reason in verdict.reasons) or "none"),
        "collection": verdict.collection,
        "against": verdict.against or "nothing: it is the first, or the served one itself",
        **report_metadata(platform.store, platform.config, verdict.report),
        "judged_now": judged_now,
        "judged_at": dg.MetadataValue.timestamp(verdict.judged_at),
        "search_params": dg.MetadataValue.json(dict(verdict.search_params)),
    }
    if verdict.ann_recall_at_10 is not None:
        metadata["ann_recall_at_10"] = verdict.ann_recall_at_10
    return dg.MaterializeResult(
        asset_key="index_verdict", metadata=metadata, data_version=dg.DataVersion(verdict.verdict_id)
    )


@dg.asset(
    deps=["index_partitions", "index_verdict"],
    retry_policy=RETRY,
    pool="milvus_writes",
    group_name="index",
    owners=OWNERS,
    kinds=_KINDS,
    code_version="1",
    freshness_policy=FRESHNESS,
    output_required=False,
)
def published_index(
    context: dg.AssetExecutionContext, platform: PlatformResource, milvus: MilvusResource
) -> Iterator[dg.MaterializeResult[None]]:
    """The manifest of what is served, one row per publication; key `collection`, `published_at`.

    Points the alias that queries use at the collection once every partition is complete and the verdict allows it;
    until then the collection before stays published.
    """
    with failures_by_class():
        try:
            yield _publish(context, platform, milvus)
        except _NotPublishedError as why:
            if not why.is_news and context.run.tags.get(AUTOMATED_TAG):
                # Every minute would be another failed run; what serves, serves on, and what waits is tried again.
                context.log.warning(why.failure.description)
                return
            raise why.failure from None


class _NotPublishedError(Exception):
    """The index that rag.yaml asks for cannot be published now.

    Attributes:
        failure: Says why.
        is_news: Whether it came up in this run: a run that was not asked for by a person fails only then.
    """

    def __init__(self, failure: dg.Failure, *, is_news: bool = False) -> None:
        super().__init__(failure.description)
        self.failure, self.is_news = failure, is_news


def _publish(
    context: dg.AssetExecutionContext, platform: PlatformResource, milvus: MilvusResource
) -> dg.MaterializeResult[None]:
    with milvus.client() as client:
        known = generations(platform.store, platform.config)
        if known.lost:
            context.log.warning(known.lost)
        _refresh_served(context, platform.store, known, client)
        verdict = newest_verdict(platform.store, known.target.collection)
        if verdict is not None and not verdict.passed:
            raise _NotPublishedError(_refused(known, verdict), is_news=verdict.run_id == context.run.run_id)
        if why := why_judge(platform.store, known):
            raise _NotPublishedError(_unjudged(known, why))
        recall = verdict.ann_recall_at_10 if verdict else None
        params = verdict.search_params if verdict else known.target.config.index.search_params
        publication = publish(
            platform.store,
            known.target,
            client,
            choice=SearchChoice(json.dumps(dict(params), sort_keys=True), recall),
            run_id=context.run.run_id,
            forced=context.run.tags.get(PUBLISH_AGAIN_TAG) == "allow",
        )
        if publication.manifest is None:
            raise _NotPublishedError(_not_published(known, publication))
        removed = collect(platform.store, known, client, run_id=context.run.run_id)
        links = report_metadata(platform.store, platform.config, verdict.report if verdict else "")
        return _published(publication, removed, links)


def _refresh_served(context: dg.AssetExecutionContext, store: Store, known: Generations, client: IndexClient) -> None:
    """Bring the manifest of what is served up to date while another generation is built."""
    last = latest_manifest(store)
    if known.served is not None and last is not None:
        choice = SearchChoice(last.search_params, last.ann_recall_at_10)
        served = publish(store, known.served, client, choice=choice, run_id=context.run.run_id)
        if served.incomplete:
            context.log.warning(f"{known.served.collection} is served and behind: {_waiting(served)}")


def _refused(known: Generations, verdict: Verdict) -> dg.Failure:
    serving = f"; {known.served.collection} serves on" if known.served else ""
    return dg.Failure(
        description=f"not published: the verdict on {verdict.collection} of {verdict.judged_at:%Y-%m-%d %H:%M} UTC "
        f"refuses it{serving}.\n" + "\n".join(f"- {reason}" for reason in verdict.reasons),
        metadata={"reasons": dg.MetadataValue.json(list(verdict.reasons))},
        allow_retries=False,
    )


def _unjudged(known: Generations, why: str) -> dg.Failure:
    return dg.Failure(
        description=f"not published: {known.target.collection} must be judged first, because {why}; materialize "
        f"index_verdict, then published_index (rag publish does both)",
        allow_retries=False,
    )


def _not_published(known: Generations, publication: Publication) -> dg.Failure:
    if publication.held:
        return dg.Failure(description=f"not published: {publication.held}", allow_retries=False)
    rebuilding = ""
    if known.served:
        changed = "; ".join(changed_settings(known.served, known.target))
        rebuilding = (
            f" {known.served.collection} serves on, because settings changed ({changed}). If the run refused to embed "
            f"everything anew: rag plan shows what would be done, rag run --rebuild does it"
        )
    return dg.Failure(
        description=f"not published: {known.target.collection} is incomplete; materialize index_partitions of "
        f"{_waiting(publication)}.{rebuilding}",
        metadata={"incomplete_partitions": dg.MetadataValue.json(publication.incomplete)},
        allow_retries=False,
    )


def _waiting(publication: Publication) -> str:
    listed = [f"{key} ({count:,} waiting)" for key, count in publication.incomplete.items()]
    more = [f"{len(listed) - _NAMED:,} partitions more"] if len(listed) > _NAMED else []
    return ", ".join(listed[:_NAMED] + more)


def _published(publication: Publication, removed: list[str], links: Mapping[str, Any]) -> dg.MaterializeResult[None]:
    assert publication.manifest is not None
    manifest = asdict(publication.manifest)
    version = ids.digest(*(f"{name}={value}" for name, value in manifest.items() if name != "published_at"))
    counted = {"documents", "chunks", "ann_recall_at_10"}
    metadata: dict[str, Any] = {
        **{name: str(value) for name, value in manifest.items() if name not in counted},
        **{name: manifest[name] for name in counted if manifest[name] is not None},
        **links,
        "manifest_changed": publication.changed,
        "table_version": publication.version,
        "removed_collections": ", ".join(removed) or "none",
    }
    return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(version))
