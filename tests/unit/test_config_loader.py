"""Loading rag.yaml: layering, provenance, paths, and above all what the one error says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rag_core.config import EmbeddingConfig, FilesSource
from rag_core.config_checks import check_model, token_limit
from rag_core.config_loader import describe, load_config
from rag_core.errors import ConfigError

REPO = Path(__file__).resolve().parents[2]
SMALLEST = "store: {root: ./data}\nsources: [{name: handbook, kind: files, root: corpus}]\n"


@pytest.fixture
def write(tmp_path: Path):
    (tmp_path / "corpus").mkdir()

    def write(text: str) -> Path:
        path = tmp_path / "rag.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def problems(path: Path, env: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(path, env or {})
    first, *lines = str(caught.value).splitlines()
    assert str(path) in first or not lines
    return [line.strip() for line in lines] or [first]


def only_problem(path: Path, env: dict[str, str] | None = None) -> str:
    found = problems(path, env)
    assert len(found) == 1, found
    return found[0]


def test_smallest_configuration_has_defaults_and_absolute_paths(write, tmp_path: Path) -> None:
    loaded = load_config(write(SMALLEST), {})
    source = loaded.config.sources[0]
    assert isinstance(source, FilesSource)
    assert source.root == tmp_path / "corpus"
    assert loaded.config.store.root == str(tmp_path / "data")
    assert loaded.config.buckets == 8
    assert loaded.path == tmp_path / "rag.yaml"


def test_paths_leave_out_parent_steps_and_expand_home(write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    text = f"store: {{root: ~/x}}\nsources: [{{name: a, kind: files, root: ../{tmp_path.name}/corpus}}]\n"
    loaded = load_config(write(text), {})
    assert loaded.config.store.root == str(tmp_path / "x")
    assert loaded.config.sources[0].root == tmp_path / "corpus"  # type: ignore[union-attr]


def test_remote_store_root_stays_as_it_is(write) -> None:
    loaded = load_config(write(SMALLEST.replace("./data", "s3://bucket/prefix")), {})
    assert loaded.config.store.root == "s3://bucket/prefix"
    assert "s3://bucket/prefix" in only_problem(write(SMALLEST.replace("./data", "gs://bucket/x")))


def test_environment_wins_and_is_typed_like_yaml(write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    env = {
        "RAG_BUCKETS": "16",
        "RAG_STORE__ROOT": "elsewhere",
        "RAG_EMBEDDING__ALLOW_DOWNLOAD": "true",
        "RAG_EMBEDDING__REVISION": "123",
        "RAG_INDEX__SEARCH_PARAMS": "{ef: 64}",
        "RAG_PARSING__ARCHIVE__MAX_DEPTH": "3",
        "RAG_SOURCES__handbook__INCLUDE": "['**/*.md']",
        "RAG_SOURCES__HANDBOOK__BUCKETS": "2",
        "RAG_INDEX__URI": "",
        "RAG_CORPORA": "/x",
        "RAG_UNRELATED": "y",
    }
    loaded = load_config(write(SMALLEST), env)
    config = loaded.config
    assert config.buckets == 16
    assert config.store.root == str(tmp_path / "elsewhere")
    assert config.embedding.allow_download is True
    assert config.embedding.revision == "123"
    assert config.index.search_params == {"ef": 64}
    assert config.index.uri is None
    assert config.parsing.archive.max_depth == 3
    assert config.sources[0].include == ("**/*.md",)
    assert config.buckets_of(config.sources[0]) == 2


def test_provenance_names_line_variable_or_default(write) -> None:
    path = write("buckets: 4\n" + SMALLEST)
    env = {"RAG_STORE__ROOT": "/tmp", "RAG_SOURCES__handbook__MAX_BYTES": "5", "RAG_CHUNKING": "{max_tokens: 64}"}
    origins = load_config(path, env).provenance
    assert origins["buckets"] == "rag.yaml:1"
    assert origins["store.root"] == "env RAG_STORE__ROOT"
    assert origins["sources.handbook.root"] == "rag.yaml:3"
    assert origins["sources.handbook.max_bytes"] == "env RAG_SOURCES__handbook__MAX_BYTES"
    assert origins["chunking.max_tokens"] == "env RAG_CHUNKING"
    assert origins["chunking.strategy"] == "default"


def test_describe_lists_every_key_and_masks_secrets(write) -> None:
    loaded = load_config(write(SMALLEST), {"RAG_INDEX__TOKEN": "root:hunter2", "RAG_EMBEDDING__API_KEY": "0123"})
    rows = {key: (value, origin) for key, value, origin in describe(loaded)}
    assert rows["index.token"] == ("********", "env RAG_INDEX__TOKEN")
    assert rows["embedding.revision"] == ("null", "default")
    assert rows["sources.handbook.include"] == ('["**/*"]', "default")
    assert set(rows) == set(loaded.provenance)
    assert "hunter2" not in str(rows)
    assert loaded.config.embedding.api_key is not None
    assert loaded.config.embedding.api_key.get_secret_value() == "0123"  # text as it stands, no octal number


def test_every_problem_is_in_one_error_with_place_key_value_and_expectation(write) -> None:
    text = """\
store: {root: ./data}
sources:
  - {name: handbook, kind: files, root: corpsu}
  - {name: Bad Name, kind: jsonl, root: corpus, id_feild: x}
  - {name: other, kind: ftp}
  - {name: bucket, kind: s3}
bukets: 7
buckets: many
chunking: {max_tokens: 4, strategy: magic}
embedding: {model: all-minilm-l6-v2, min_cosine: 2}
index: [HNSW]
spark: {conf: [1]}
"""
    found = problems(write(text), {"RAG_RUN__MAX_PARTITIONS_PER_RUN": "0"})
    wanted = [
        ("rag.yaml:3", "sources.handbook.root = 'corpsu'", "nothing at", "did you mean corpus?"),
        ("rag.yaml:4", "sources.Bad Name.name = 'Bad Name'", "lower case"),
        ("rag.yaml:4", "id_feild = 'x'", "unknown key; did you mean id_field?"),
        ("rag.yaml:5", "sources.other", "one of files, s3, slack, jsonl, not 'ftp'"),
        ("rag.yaml:6", "sources.bucket.bucket", "missing; expected text"),
        ("rag.yaml:7", "bukets = 7", "unknown key; did you mean buckets?"),
        ("rag.yaml:8", "buckets = 'many'", "expected whole number"),
        ("rag.yaml:9", "chunking.max_tokens = 4", "expected at least 16"),
        ("rag.yaml:9", "chunking.strategy = 'magic'", "'markdown', 'recursive', 'fixed' or 'semantic'"),
        ("rag.yaml:10", "embedding.model = 'all-minilm-l6-v2'", "`all-MiniLM-L6-v2`", "did you mean this one?"),
        ("rag.yaml:10", "embedding.min_cosine = 2", "expected at most 1"),
        ("rag.yaml:11", "index = ['HNSW']", "expected a mapping"),
        ("rag.yaml:12", "spark.conf = [1]", "expected a mapping"),
        ("env RAG_RUN__MAX_PARTITIONS_PER_RUN", "run.max_partitions_per_run = 0", "expected at least 1"),
    ]
    for parts in wanted:
        assert any(all(part in line for part in parts) for line in found), (parts, found)
    assert len(found) == len(wanted), found
    places = [line.partition(": ")[0] for line in found]
    assert places == [parts[0] for parts in wanted]


def test_secrets_in_the_file_are_refused_and_not_printed(write) -> None:
    line = only_problem(write(SMALLEST + "index: {token: hunter2}\n"))
    assert line == "rag.yaml:3: index.token: is a secret and must not be in a file; set RAG_INDEX__TOKEN instead"


def test_secrets_are_not_printed_by_errors_of_their_section(write) -> None:
    text = "\n".join(
        problems(write(SMALLEST + "embedding: {backend: openai}\n"), {"RAG_EMBEDDING__API_KEY": "hunter2"})
    )
    assert "needs base_url and dim" in text
    assert "hunter2" not in text


def test_repeated_keys_are_errors(write) -> None:
    line = only_problem(write(SMALLEST + "buckets: 4\nbuckets: 5\n"))
    assert line == "rag.yaml:4: buckets: key is there twice, first in line 3"


def test_each_source_has_its_own_queue(write) -> None:
    events = "events: {queue_url: 'https://sqs.eu-central-1.amazonaws.com/1/docs'}"
    sources = ", ".join(f"{{name: {name}, kind: s3, bucket: docs, {events}}}" for name in "ab")
    problem = only_problem(write(f"store: {{root: x}}\nsources: [{sources}]\n"))
    assert "each source needs a queue of its own" in problem
    assert "amazonaws.com/1/docs" in problem


def test_source_names_are_unique(write) -> None:
    source = "{name: a, kind: files, root: corpus}"
    assert "repeated: a" in only_problem(write(f"store: {{root: x}}\nsources: [{source}, {source}]\n"))


def test_empty_section_means_defaults(write) -> None:
    assert load_config(write(SMALLEST + "chunking:\nparsing:\n"), {}).config.chunking.max_tokens == 254


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("store: {root: [}\n", "rag.yaml:1: not valid YAML"),
        ("- a\n- b\n", "expected `key: value` lines at the top"),
        ("just text\n", "expected `key: value` lines at the top"),
        ("a: &x [*x]\n", "contains it"),
        ("? [a, b]\n: c\n", "a key must be a plain name"),
        ("a: 2024-99-99\n", "not a value that can be read"),
    ],
)
def test_not_a_configuration(write, text: str, wanted: str) -> None:
    assert wanted in only_problem(write(text))


def test_empty_file_misses_what_is_required(write) -> None:
    found = problems(write("# nothing\n"))
    assert [line.split(": ")[1:3] for line in found] == [
        ["store", "missing; expected section (Where everything is kept.)"],
        ["sources", "missing; expected list of section (Where documents come from.)"],
    ]


def test_file_that_is_not_utf8_or_not_there(write, tmp_path: Path) -> None:
    path = write("")
    path.write_bytes(b"store: \xff\xfe\n")
    assert "not valid YAML" in only_problem(path)
    assert only_problem(tmp_path / "none.yaml").startswith(f"no configuration file at {tmp_path}/none.yaml")


def test_unknown_variables_that_look_like_keys(write) -> None:
    env = {"RAG_STORE_ROOT": "x", "RAG_EMBEDDING__MODL": "y", "RAG_SOURCES__hndbook__ROOT": "z"}
    env |= {"RAG_SOURCES__handbook__ROT": "w"}
    found = problems(write(SMALLEST), env)
    assert sorted(found) == [
        "env RAG_EMBEDDING__MODL: unknown variable; did you mean RAG_EMBEDDING__MODEL?",
        "env RAG_SOURCES__handbook__ROT: unknown variable; did you mean RAG_SOURCES__HANDBOOK__ROOT?",
        "env RAG_SOURCES__hndbook__ROOT: there is no source 'hndbook'; did you mean handbook?",
        "env RAG_STORE_ROOT: unknown variable; did you mean RAG_STORE__ROOT?",
    ]


def test_path_order(write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = write(SMALLEST)
    other = tmp_path / "other.yaml"
    other.write_text(SMALLEST, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert load_config(here, {"RAG_CONFIG": "other.yaml"}).path == here
    assert load_config(None, {"RAG_CONFIG": "other.yaml"}).path == other
    assert load_config(None, {}).path == here
    here.unlink()
    assert load_config(None, {}, check_files=False).path == REPO / "rag.yaml"


def test_roots_need_not_exist_where_files_are_not_checked(write, tmp_path: Path) -> None:
    loaded = load_config(write(SMALLEST.replace("corpus", "later")), {}, check_files=False)
    assert loaded.config.sources[0].root == tmp_path / "later"  # type: ignore[union-attr]


def test_a_file_as_root_of_a_files_source(write, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("x")
    assert "is a file" in only_problem(write(SMALLEST.replace("corpus", "one.txt")))


def test_chunks_larger_than_the_model_reads(write) -> None:
    line = only_problem(write(SMALLEST + "chunking: {max_tokens: 300}\n"))
    assert line.startswith("rag.yaml:3: chunking.max_tokens = 300: expected at most 254")
    assert load_config(write(SMALLEST), {"RAG_EMBEDDING__MAX_TOKENS": "256"}).config.chunking.max_tokens == 254
    assert "at most 126" in only_problem(write(SMALLEST), {"RAG_EMBEDDING__MAX_TOKENS": "128"})


def test_spark_settings_are_written_as_spark_reads_them(write) -> None:
    loaded = load_config(write(SMALLEST + "spark: {conf: {spark.ui.enabled: false, spark.cores.max: 2}}\n"), {})
    assert loaded.config.spark.conf == {"spark.ui.enabled": "false", "spark.cores.max": "2"}


def test_addresses_need_their_scheme(write) -> None:
    assert "http://127.0.0.1:19530" in only_problem(write(SMALLEST + "index: {uri: 'localhost:19530'}\n"))
    login = only_problem(write(SMALLEST + "index: {uri: 'http://root:hidden@localhost:19530'}\n"))
    assert "RAG_INDEX__TOKEN" in login
    assert "hidden" not in login


class TestFilesOfQuality:
    LABELLED = (
        "evaluation:\n  labelled:\n"
        "    - {source: handbook, queries: asked/queries.jsonl, qrels: asked/qrels.tsv}\n"
        "quality: {tests: checks}\n"
    )

    @pytest.fixture
    def there(self, tmp_path: Path) -> Path:
        for folder in ("asked", "checks"):
            (tmp_path / folder).mkdir()
        for name in ("queries.jsonl", "qrels.tsv"):
            (tmp_path / "asked" / name).touch()
        return tmp_path

    def test_paths_are_relative_to_the_file_and_listed(self, write, there: Path) -> None:
        loaded = load_config(write(SMALLEST + self.LABELLED), {})
        entry = loaded.config.evaluation.labelled[0]
        assert (entry.queries, entry.qrels) == (there / "asked/queries.jsonl", there / "asked/qrels.tsv")
        assert loaded.config.quality.tests == there / "checks"
        rows = {key: (value, origin) for key, value, origin in describe(loaded)}
        assert rows["evaluation.labelled[0].queries"] == (str(there / "asked/queries.jsonl"), "rag.yaml:5")
        assert rows["quality.tests"] == (str(there / "checks"), "rag.yaml:6")
        assert "evaluation.labelled" not in rows
        assert set(rows) == set(loaded.provenance)

    def test_defaults_are_listed(self, write) -> None:
        rows = {key: (value, origin) for key, value, origin in describe(load_config(write(SMALLEST), {}))}
        assert rows["evaluation.labelled"] == ("[]", "default")
        assert rows["quality.tests"] == ("null", "default")

    def test_list_from_a_variable_is_relative_to_the_current_folder(
        self, write, there: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(there / "asked")
        env = {"RAG_EVALUATION__LABELLED": "[{source: handbook, queries: queries.jsonl, qrels: qrels.tsv}]"}
        loaded = load_config(write(SMALLEST), env)
        assert loaded.config.evaluation.labelled[0].qrels == there / "asked/qrels.tsv"
        assert loaded.provenance["evaluation.labelled[0].qrels"] == "env RAG_EVALUATION__LABELLED"

    def test_missing_files_and_folders(self, write, there: Path) -> None:
        text = SMALLEST + self.LABELLED.replace("qrels.tsv", "qrel.tsv").replace("checks", "asked/queries.jsonl")
        found = problems(write(text.replace("asked/queries.jsonl, ", "asked, ")))
        assert found == [
            f"rag.yaml:5: evaluation.labelled[0].queries = 'asked': expected a file, {there}/asked is a folder",
            "rag.yaml:5: evaluation.labelled[0].qrels = 'asked/qrel.tsv': expected an existing path, there is nothing "
            f"at {there}/asked/qrel.tsv; did you mean qrels.tsv?",
            "rag.yaml:6: quality.tests = 'asked/queries.jsonl': expected a folder, "
            f"{there}/asked/queries.jsonl is a file",
        ]
        assert load_config(write(text), {}, check_files=False).config.evaluation.labelled

    def test_wrong_entries_name_their_keys(self, write, there: Path) -> None:
        text = (
            "evaluation:\n  labelled:\n"
            "    - {source: handbook, queries: asked/queries.jsonl, qrel: asked/qrels.tsv}\n"
            "    - text\n"
            "    - {source: 3, queries: [1], qrels: asked/qrels.tsv}\n"
        )
        found = problems(write(SMALLEST + text))
        assert sorted(found) == [
            "rag.yaml:5: evaluation.labelled[0].qrel = 'asked/qrels.tsv': unknown key; did you mean qrels?",
            "rag.yaml:5: evaluation.labelled[0].qrels: missing; expected path (TSV with query-id, corpus-id, score. "
            "A relative path is relative to the file.)",
            "rag.yaml:6: evaluation.labelled[1] = 'text': expected a mapping (`key: value` lines)",
            "rag.yaml:7: evaluation.labelled[2].queries = [1]: expected path",
            "rag.yaml:7: evaluation.labelled[2].source = 3: expected text",
        ]

    def test_list_that_is_none(self, write) -> None:
        line = only_problem(write(SMALLEST + "evaluation: {labelled: queries.jsonl}\n"))
        assert line == "rag.yaml:3: evaluation.labelled = 'queries.jsonl': expected list of section"

    def test_sources_are_known_and_named_once(self, write, there: Path) -> None:
        entry = "{source: %s, queries: asked/queries.jsonl, qrels: asked/qrels.tsv}"
        entries = ", ".join(entry % name for name in ("handbook", "hndbook", "handbook"))
        found = problems(write(SMALLEST + f"evaluation:\n  labelled: [{entries}]\n"))
        assert found == [
            "rag.yaml:4: evaluation.labelled[1].source = 'hndbook': expected: the name of a source; configured: "
            "handbook",
            "rag.yaml:4: evaluation.labelled[2].source = 'handbook': expected: one entry for each source: ids of "
            "queries are kept by source",
        ]


class TestModel:
    def test_built_in_endpoint_and_download_pass(self) -> None:
        check_model(EmbeddingConfig())
        check_model(EmbeddingConfig(backend="openai", model="text-embedding-3-small", base_url="http://x", dim=8))
        check_model(EmbeddingConfig(model="org/unknown", allow_download=True))

    def test_folder_needs_a_config_json(self, tmp_path: Path) -> None:
        config = EmbeddingConfig(model=str(tmp_path))
        with pytest.raises(ConfigError, match=f"a model folder with a config.json, there is none at {tmp_path}"):
            check_model(config)
        (tmp_path / "config.json").write_text("{}")
        check_model(config)
        assert token_limit(config) is None
        (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 512}')
        assert token_limit(config) == 510

    def test_relative_folder_is_relative_to_the_file(self, write, tmp_path: Path) -> None:
        (tmp_path / "m").mkdir()
        (tmp_path / "m" / "config.json").write_text("{}")
        loaded = load_config(write(SMALLEST + "embedding: {model: ./m}\n"), {})
        assert loaded.config.embedding.model == str(tmp_path / "m")

    def test_hub_name_is_looked_up_in_the_local_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        config = EmbeddingConfig(model="org/model")
        with pytest.raises(ConfigError, match=r"allow_download: true"):
            check_model(config)
        snapshot = tmp_path / "models--org--model" / "snapshots" / "abc"
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text("{}")
        refs = tmp_path / "models--org--model" / "refs"
        refs.mkdir()
        (refs / "main").write_text("abc")
        check_model(config)

    def test_impossible_hub_name(self) -> None:
        with pytest.raises(ConfigError, match="expected a model name"):
            check_model(EmbeddingConfig(model="what is this?"))


@pytest.mark.slow
def test_loading_imports_nothing_heavy() -> None:
    code = (
        "import sys, rag_core.doctor.run; from pathlib import Path; from rag_core.config_loader import load_config;"
        "load_config(Path('rag.yaml'), {}, check_files=False);"
        "print([m for m in ('torch', 'dagster', 'pyspark', 'pymilvus', 'transformers') if m in sys.modules])"
    )
    env = {"PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
