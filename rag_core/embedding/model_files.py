"""What the files of a sentence-transformers model folder say: dimension, length limit, pooling, prompts, identity.

Reads JSON and a few blocks of the weights; never imports torch, so that any process may ask.
"""

import hashlib
import json
import struct
import zipfile
from pathlib import Path
from typing import Any, Final

from rag_core import ids
from rag_core.errors import ConfigError

_UNLIMITED: Final = 1_000_000  # tokenizers write 1e30 for "no limit"
_SAMPLE_BYTES: Final = 1024
_CONFIG_FILES: Final = ("config.json", "modules.json", "tokenizer.json", "sentence_bert_config.json")
_LEGACY_POOLING: Final = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# These count positions from the padding id on, so two of max_position_embeddings cannot be used.
_OFFSET_POSITIONS: Final = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet", "longformer"})


def read_json(path: Path) -> Any:
    """Return the parsed file, or an empty dict where it is absent.

    Raises:
        ConfigError: The file is not JSON.
    """
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"embedding.model: {path} is not valid JSON ({error}); fetch the model again") from error


def module_folder(folder: Path, kind: str) -> Path | None:
    """Return the folder of the last module whose type ends in `kind` (`Pooling`, `Dense`), or None."""
    found = [m["path"] for m in read_json(folder / "modules.json") or [] if str(m["type"]).endswith(kind)]
    return folder / found[-1] if found else None


def pooling(folder: Path) -> tuple[str, int | None]:
    """Return (pooling modes joined by `+`, dimension after pooling if it is said); plain transformers pool by mean."""
    pooling_folder = module_folder(folder, "Pooling")
    settings = read_json(pooling_folder / "config.json") if pooling_folder else {}
    modes = settings.get("pooling_mode") or [m for key, m in _LEGACY_POOLING.items() if settings.get(key)] or "mean"
    modes = [modes] if isinstance(modes, str) else list(modes)
    width = settings.get("embedding_dimension") or settings.get("word_embedding_dimension")
    return "+".join(modes), width * len(modes) if width else None


def dimension(folder: Path) -> int:
    """Return the vector dimension: of the last dense module, else after pooling, else the hidden size.

    Raises:
        ConfigError: No file says it.
    """
    dense = module_folder(folder, "Dense")
    if dense and (width := read_json(dense / "config.json").get("out_features")):
        return int(width)
    settings = read_json(folder / "config.json")
    for width in (pooling(folder)[1], *(settings.get(k) for k in ("hidden_size", "d_model", "n_embd", "dim"))):
        if width:
            return int(width)
    raise ConfigError(f"embedding.model: {folder} does not say its dimension in config.json or 1_Pooling/config.json")


def length_limits(folder: Path) -> tuple[int, int]:
    """Return (default, largest possible) number of tokens that the model reads, special tokens included."""
    settings = read_json(folder / "config.json")
    positions = settings.get("max_position_embeddings") or settings.get("n_positions") or _UNLIMITED
    if settings.get("model_type") in _OFFSET_POSITIONS:
        positions -= 2
    declared = [
        read_json(folder / "sentence_bert_config.json").get("max_seq_length"),
        read_json(folder / "tokenizer_config.json").get("model_max_length"),
    ]
    default = min([int(limit) for limit in declared if limit and limit < _UNLIMITED] + [int(positions)])
    return (512 if default == _UNLIMITED else default), int(positions)


def prompts(folder: Path) -> tuple[str, str]:
    """Return (query, passage) prompts of config_sentence_transformers.json; empty where it has none."""
    found = read_json(folder / "config_sentence_transformers.json").get("prompts") or {}
    query = next((found[key] for key in ("query", "search_query", "s2p_query") if found.get(key)), "")
    passage = next((found[key] for key in ("passage", "document", "search_document", "corpus") if found.get(key)), "")
    return query, passage


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files, safetensors before pickles, sorted by name."""
    return sorted(folder.rglob("*.safetensors")) or sorted(folder.rglob("pytorch_model*.bin"))


def content_digest(folder: Path) -> str:
    """Identify a model by content: its configuration and tokenizer whole, its weights by samples.

    Reading all weights (90 MB to several GB) at each start would cost seconds per process. The header alone would not
    do: a fine-tuned copy has the same tensor names, shapes and file size. Nor would blocks spread evenly over the
    file, which miss a model of which only one matrix was trained. So a block of every single tensor is read: training
    a tensor changes practically all of it. Only an edit of a few numbers by hand goes unseen.
    """
    parts: list[str | bytes] = []
    for name in _CONFIG_FILES:
        path = folder / name
        parts += [name, path.read_bytes() if path.is_file() else b""]
    for path in sorted(folder.glob("*_*/config.json")):
        parts += [path.parent.name, path.read_bytes()]
    for path in weight_files(folder):
        parts += [path.relative_to(folder).as_posix(), str(path.stat().st_size), *_weight_samples(path)]
    return ids.digest(*parts)


def _weight_samples(path: Path) -> list[bytes]:
    if path.suffix == ".safetensors":
        return _safetensors_samples(path)
    if zipfile.is_zipfile(path):  # the format of torch.save: its directory has a checksum of every tensor
        with zipfile.ZipFile(path) as archive:
            return [f"{entry.filename} {entry.file_size} {entry.CRC}".encode() for entry in archive.infolist()]
    with path.open("rb") as file:  # pickles of before torch 1.6
        return [hashlib.file_digest(file, "blake2b").digest()]


def _safetensors_samples(path: Path) -> list[bytes]:
    """Return the header and a block from the middle of each tensor, in the order of the file.

    Source: https://huggingface.co/docs/safetensors/index#format
    """
    try:
        with path.open("rb") as file:
            (header_bytes,) = struct.unpack("<Q", file.read(8))
            header = file.read(min(header_bytes, path.stat().st_size))
            spans = [entry["data_offsets"] for name, entry in json.loads(header).items() if name != "__metadata__"]
            samples = [header]
            for start, end in sorted(spans):
                size = min(_SAMPLE_BYTES, end - start)
                file.seek(8 + header_bytes + start + (end - start - size) // 2)
                samples.append(file.read(size))
            return samples
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"embedding.model: {path} is not a safetensors file ({error}); fetch it again") from error
