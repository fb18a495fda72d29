"""An index takes the place of another while searches run without pause: a model change, a bad model, a rollback.

`python -m benchmarks.blue_green --corpus FOLDER` (docs.jsonl, queries.jsonl, qrels.tsv in BEIR layout) builds an index,
lets another process search it ten times a second, rebuilds it with another model and chunk length, tries to publish a
model that is no good, and goes back. Afterwards every answer is compared with what its collection answers alone.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.searcher import TOP_K, Answer
from benchmarks.workspace import environment
from rag_assets.cli.output import table
from rag_core.config import RagConfig
from rag_core.config_loader import load_config
from rag_core.embedding.encoder import make_encoder
from rag_core.evaluation.beir import load_queries
from rag_core.generation import configured, restored
from rag_core.index.client import connect
from rag_core.index.lite_server import lite_files, stop
from rag_core.retrieval.search import search
from rag_core.stages import term_statistics
from rag_core.stages.publication import Manifest, latest_manifest, manifests
from rag_core.stages.verdict import Verdict, newest_verdict
from rag_core.tables.store import Store
from tests.integration.embedding_server import projected, serving

_SOURCE = "documents"
_QUESTIONS = 60
_BAD_DIM = 8
_SPARE = 2  # further hits, for equal scores at the end; with more, more candidates would be fused
_OTHER_MODEL = {"embedding": {"max_tokens": 128}, "chunking": {"max_tokens": 120}}


@dataclass(frozen=True)
class Phase:
    """A stretch of time, and the searches in it; milliseconds."""

    name: str
    seconds: float
    searches: int
    failures: int
    p50_ms: float
    p95_ms: float
    max_ms: float


@dataclass
class Outcome:
    """What happened.

    Attributes:
        phases: In order of time.
        build_s: Seconds of `rag run --rebuild` of the second index.
        switch: Seconds from the last question that the old index answered to the first that the new one did.
        mixtures: Answers that are not what one collection alone answers; each with what is wrong.
        answers_checked: Answers that were compared.
        accepted: The verdict on the second index.
        refused: The verdict on the bad model.
        refused_message: What the command said about it on stderr.
        rollback_s: Seconds of `rag rollback`.
        served: Collections in the order in which answers came from them.
    """

    phases: list[Phase]
    build_s: float
    switch: float
    mixtures: list[str]
    answers_checked: int
    accepted: Verdict
    refused: Verdict
    refused_message: str
    rollback_s: float
    served: list[str]


class Bench:
    """A store in a folder, and the commands of a user."""

    def __init__(self, folder: Path, documents: Path, labelled: Path | None, evaluation: Mapping[str, Any]) -> None:
        self.folder = folder
        self.path = folder / "rag.yaml"
        self._evaluation = dict(evaluation)
        if labelled:
            files = {"queries": str(labelled / "queries.jsonl"), "qrels": str(labelled / "qrels.tsv")}
            self._evaluation["labelled"] = [{"source": _SOURCE, **files}]
        self._source = {"name": _SOURCE, "kind": "jsonl", "root": str(documents)}
        self.configure({})

    @property
    def config(self) -> RagConfig:
        return load_config(self.path).config

    @property
    def store(self) -> Store:
        return Store.of(self.config.store)

    def configure(self, settings: Mapping[str, Any]) -> None:
        content = {"store": {"root": "./data"}, "sources": [self._source], "evaluation": self._evaluation, **settings}
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(content))
        part.replace(self.path)

    def rag(self, *arguments: str, expect: int = 0) -> tuple[float, str]:
        """Run a command as a user would; returns its seconds and what it said on stderr."""
        began = time.perf_counter()
        command = [sys.executable, "-m", "rag_assets.cli", *arguments]
        done = subprocess.run(command, env=environment(self.path), capture_output=True, text=True, check=False)
        if done.returncode != expect:
            raise SystemExit(f"rag {' '.join(arguments)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return time.perf_counter() - began, done.stderr

    @contextmanager
    def searches(self, questions: Sequence[str]) -> Iterator[Path]:
        """Search without pause while the block runs; gives the file with the answers."""
        asked, answers, halt = (self.folder / name for name in ("questions.json", "answers.jsonl", "stop"))
        asked.write_text(json.dumps(list(questions)))
        answers.touch()
        command = [sys.executable, "-m", "benchmarks.searcher", str(asked), str(answers), str(halt)]
        searcher = subprocess.Popen(command, env={**environment(self.path), "OMP_NUM_THREADS": "1"})
        try:
            while answers.stat().st_size == 0 and searcher.poll() is None:
                time.sleep(0.1)
            yield answers
        finally:
            halt.touch()
            code = searcher.wait()
        if code:
            raise SystemExit(f"the searching process ended with {code}")


def measure(
    folder: Path,
    documents: Path,
    questions: Sequence[str],
    *,
    labelled: Path | None = None,
    evaluation: Mapping[str, Any] | None = None,
    pause_s: float = 20.0,
) -> Outcome:
    """Carry out the whole of it in a folder; the local Milvus is stopped at the end.

    Args:
        folder: Empty, or made; holds the store.
        documents: JSON Lines with _id, title, text.
        questions: What is asked, over and over.
        labelled: Folder with queries.jsonl and qrels.tsv; without it known items are asked.
        evaluation: Further settings of the section.
        pause_s: How long nothing but searching goes on before, between and after.
    """
    folder.mkdir(exist_ok=True)
    bench = Bench(folder, documents, labelled, evaluation or {})
    bench.rag("run")
    first = _latest(bench).collection
    try:
        with bench.searches(questions) as path:
            marks = [("before", time.time())]
            time.sleep(pause_s)
            bench.configure(_OTHER_MODEL)
            marks.append(("rebuilding", time.time()))
            build_s, _ = bench.rag("run", "--rebuild")
            second = _latest(bench)
            marks += [("switched", second.published_at.timestamp()), ("after", time.time())]
            time.sleep(pause_s)
            marks.append(("bad model", time.time()))
            refused, message = _try_bad_model(bench)
            marks.append(("rollback", time.time()))
            rollback_s, _ = bench.rag("rollback")
            marks.append(("rolled back", time.time()))
            time.sleep(pause_s)
            marks.append(("", time.time()))
        answers = Answer.read(path)
        accepted = newest_verdict(bench.store, second.collection)
        assert accepted is not None
        return Outcome(
            phases=_phases(answers, marks),
            build_s=build_s,
            switch=_switch_seconds(answers, first, second.collection),
            mixtures=mixtures(bench, answers, questions),
            answers_checked=sum(not one.error for one in answers),
            accepted=accepted,
            refused=refused,
            refused_message=message,
            rollback_s=rollback_s,
            served=list(_in_order(answers)),
        )
    finally:
        stop(lite_files(bench.store))


def _latest(bench: Bench) -> Manifest:
    manifest = latest_manifest(bench.store)
    assert manifest is not None
    return manifest


def _try_bad_model(bench: Bench) -> tuple[Verdict, str]:
    """Ask for a model whose vectors are those of the real one, projected at random to a few dimensions."""
    real = make_encoder(load_config(bench.path).config.embedding)
    with serving(projected(lambda texts: real.embed(list(texts), "passage"), _BAD_DIM)) as address:
        bad = {"backend": "openai", "model": "projected", "base_url": address, "dim": _BAD_DIM, "max_tokens": 128}
        bench.configure({**_OTHER_MODEL, "embedding": bad})
        _, message = bench.rag("run", "--rebuild", expect=1)
        refused = newest_verdict(bench.store, configured(bench.config).collection)
    bench.configure(_OTHER_MODEL)
    assert refused is not None
    return refused, message


def mixtures(bench: Bench, answers: Sequence[Answer], questions: Sequence[str]) -> list[str]:
    """Say of each answer that no single collection gives by itself what is wrong with it."""
    collections = {name for one in answers for name in (one.before, one.after) if name}
    kept = {name: next(one for one in manifests(bench.store) if one.collection == name) for name in collections}
    with connect(bench.config.index, bench.store) as client:
        held = {name: set(client.list_ids(name)) for name in collections}
        alone = {name: _Alone(bench, client, manifest) for name, manifest in kept.items()}
        found = []
        for one in answers:
            if one.error:
                continue
            possible = dict.fromkeys((one.before, one.after))
            if not any(set(one.chunk_ids) <= held[name] for name in possible):
                found.append(f"{one.mode} {one.question}: chunks of no single collection of {', '.join(possible)}")
            elif not any(alone[name].agrees(questions[one.question], one) for name in possible):
                found.append(f"{one.mode} {one.question}: {', '.join(possible)} answers otherwise")
        return found


class _Alone:
    """One collection, asked by its own name."""

    def __init__(self, bench: Bench, client: Any, manifest: Manifest) -> None:
        self._client = client
        self._manifest = manifest
        self._encoder = make_encoder(restored(bench.config, manifest.collection, manifest.settings).config.embedding)
        version = json.loads(manifest.table_versions)[term_statistics.TABLE]
        self._statistics = term_statistics.load(bench.store, version, manifest.chunk_lane)
        self._answers: dict[tuple[int, str], dict[str, float]] = {}

    def agrees(self, question: str, answer: Answer) -> bool:
        """Tell whether the collection gives the same chunks; two whose scores are the same but for rounding may swap.

        The query's vector is computed in another process, on another number of threads: its last bits may differ.
        """
        key = (answer.question, answer.mode)
        if key not in self._answers:
            self._answers[key] = self._ask(question, answer.mode)
        scores = self._answers[key]
        expected = list(scores)[: len(answer.chunk_ids)]
        return all(
            here == there or abs(scores.get(here, -1.0) - scores[there]) < 1e-3 * max(1.0, abs(scores[there]))
            for here, there in zip(answer.chunk_ids, expected, strict=True)
        )

    def _ask(self, question: str, mode: str) -> dict[str, float]:
        hits = search(
            self._client,
            self._manifest.collection,
            text=question,
            vector=None if mode == "bm25" else self._encoder.embed([question], "query")[0],
            model_fingerprint=self._manifest.model_fingerprint,
            mode=mode,  # type: ignore[arg-type]
            top_k=TOP_K + _SPARE,
            search_params=json.loads(self._manifest.search_params),
            statistics=None if mode == "dense" else self._statistics,
        )
        return {hit.chunk_id: hit.score for hit in hits}


def _phases(answers: Sequence[Answer], marks: Sequence[tuple[str, float]]) -> list[Phase]:
    phases = []
    for (name, since), (_, until) in pairwise(marks):
        inside = [one for one in answers if since <= one.asked_at < until]
        ms = [one.ms for one in inside] or [0.0]
        p50, p95 = np.percentile(ms, [50, 95])
        failed = sum(bool(one.error) for one in inside)
        phases.append(Phase(name, until - since, len(inside), failed, float(p50), float(p95), max(ms)))
    return phases


def _switch_seconds(answers: Sequence[Answer], old: str, new: str) -> float:
    """Return the time between the last question to the old collection and the first to the new one."""
    first_new = min(one.asked_at for one in answers if one.after == new)
    return first_new - max(one.asked_at for one in answers if one.before == old and one.asked_at < first_new)


def _in_order(answers: Sequence[Answer]) -> Iterator[str]:
    last = ""
    for one in answers:
        if one.after and one.after != last:
            last = one.after
            yield last


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder with docs.jsonl, queries.jsonl, qrels.tsv")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    arguments = parser.parse_args()
    corpus = arguments.corpus.resolve()
    questions = list(load_queries(corpus / "queries.jsonl").values())[:_QUESTIONS]
    with tempfile.TemporaryDirectory() as folder:
        outcome = measure(Path(folder), corpus / "docs.jsonl", questions, labelled=corpus)
    if arguments.json:
        print(json.dumps(asdict(outcome), default=str))
    else:
        _report(outcome)
    if outcome.mixtures or any(phase.failures for phase in outcome.phases):
        raise SystemExit(1)


def _report(outcome: Outcome) -> None:
    columns = ("phase", "seconds", "searches", "failures", "p50 ms", "p95 ms", "max ms")
    rows = [
        (one.name, f"{one.seconds:.1f}", one.searches, one.failures, f"{one.p50_ms:.0f}", f"{one.p95_ms:.0f}",
         f"{one.max_ms:.0f}")
        for one in outcome.phases
    ]  # fmt: skip
    Console(width=int(os.environ.get("COLUMNS", "110"))).print(table("searches beside what goes on", columns, rows))
    total, failed = sum(one.searches for one in outcome.phases), sum(one.failures for one in outcome.phases)
    print(f"answers came from {' -> '.join(outcome.served)}")
    print(f"rebuilding     {outcome.build_s:.1f} s, the verdict included")
    gap_ms = outcome.switch * 1_000
    print(f"switch         {gap_ms:.0f} ms between the last question to the old index and the first to the new one")
    print(f"searches       {total}, {failed} failed")
    print(f"mixtures       {len(outcome.mixtures)} of {outcome.answers_checked} answers, each asked again alone")
    for line in outcome.mixtures[:5]:
        print(f"               {line}")
    print(f"rollback       {outcome.rollback_s:.1f} s, the start of the command included")
    _report_verdict("second index", outcome.accepted)
    _report_verdict("bad model", outcome.refused)


def _report_verdict(name: str, verdict: Verdict) -> None:
    print(f"\nverdict on the {name}: {'passed' if verdict.passed else 'refused'}, against {verdict.against}")
    for finding in verdict.measures["regression"]:
        test = finding["test"]
        print(
            f"  nDCG@10 {finding['mode']:<7}{finding['old_mean']:.3f} -> {finding['new_mean']:.3f}  p = "
            f"{test['p_value']:.4f}, {test['queries']} {finding['query_set']} queries"
        )
    comparison = verdict.measures.get("comparison", {})
    overlaps = {mode: agreement["overlap_at_10"] for mode, agreement in comparison.get("agreement", {}).items()}
    print("  overlap@10 " + ", ".join(f"{mode} {value:.2f}" for mode, value in overlaps.items()))
    recall = verdict.ann_recall_at_10
    print(f"  ANN recall@10 {'not measured' if recall is None else f'{recall:.3f}'}")
    for reason in verdict.reasons:
        print(f"  - {reason}")


if __name__ == "__main__":
    main()
