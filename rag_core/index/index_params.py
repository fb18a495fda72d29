"""Build and search parameters of each index type: names, types and bounds.

A misspelt parameter is silently ignored by Milvus Lite and may be by a server, so unknown names are errors here.
Source: https://milvus.io/docs/index-explained.md and the page of each index type.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rag_core.config import IndexConfig
from rag_core.errors import ConfigError

_INT_MAX: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class _Int:
    low: int
    high: int = _INT_MAX

    def accepts(self, value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    def __str__(self) -> str:
        return (
            f"an integer of at least {self.low}" if self.high == _INT_MAX else f"an integer {self.low} to {self.high}"
        )


@dataclass(frozen=True, slots=True)
class _Number:
    low: float

    def accepts(self, value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and value >= self.low

    def __str__(self) -> str:
        return f"a number of at least {self.low:g}"


@dataclass(frozen=True, slots=True)
class _Choice:
    values: tuple[Any, ...]

    def accepts(self, value: Any) -> bool:
        return any(type(value) is type(one) and value == one for one in self.values)

    def __str__(self) -> str:
        return f"one of {', '.join(map(str, self.values))}"


_Rule = _Int | _Number | _Choice
_BOOL: Final = _Choice((True, False))


@dataclass(frozen=True, slots=True)
class _Params:
    build: Mapping[str, _Rule] = field(default_factory=dict)
    search: Mapping[str, _Rule] = field(default_factory=dict)


_HNSW_BUILD: Final[Mapping[str, _Rule]] = {"M": _Int(2, 2048), "efConstruction": _Int(1)}
_EF: Final[Mapping[str, _Rule]] = {"ef": _Int(1)}
_NLIST: Final[Mapping[str, _Rule]] = {"nlist": _Int(1, 65_536)}
_NPROBE: Final[Mapping[str, _Rule]] = {"nprobe": _Int(1, 65_536)}
_PQ: Final[Mapping[str, _Rule]] = {"m": _Int(1, 65_536), "nbits": _Int(1, 64)}
_REFINE: Final[Mapping[str, _Rule]] = {
    "refine": _BOOL,
    "refine_type": _Choice(("SQ6", "SQ8", "BF16", "FP16", "FP32")),
}
_REFINED: Final[Mapping[str, _Rule]] = {"refine_k": _Number(1)}
_LEVEL: Final[Mapping[str, _Rule]] = {"level": _Int(1, 10)}

_SERVER: Final[Mapping[str, _Params]] = {
    "AUTOINDEX": _Params(search=_LEVEL),
    "FLAT": _Params(),
    "HNSW": _Params(_HNSW_BUILD, _EF),
    "HNSW_SQ": _Params(
        {**_HNSW_BUILD, **_REFINE, "sq_type": _Choice(("SQ6", "SQ8", "BF16", "FP16"))}, {**_EF, **_REFINED}
    ),
    "HNSW_PQ": _Params({**_HNSW_BUILD, **_PQ, **_REFINE}, {**_EF, **_REFINED}),
    "HNSW_PRQ": _Params({**_HNSW_BUILD, **_PQ, **_REFINE, "nrq": _Int(1, 16)}, {**_EF, **_REFINED}),
    "IVF_FLAT": _Params(_NLIST, _NPROBE),
    "IVF_SQ8": _Params(_NLIST, _NPROBE),
    "IVF_PQ": _Params({**_NLIST, **_PQ}, _NPROBE),
    "IVF_RABITQ": _Params({**_NLIST, **_REFINE}, {**_NPROBE, **_REFINED, "rbq_query_bits": _Int(0, 8)}),
    "SCANN": _Params({**_NLIST, "with_raw_data": _BOOL}, {**_NPROBE, "reorder_k": _Int(1)}),
    "DISKANN": _Params(search={"search_list": _Int(1, 65_535)}),
    "GPU_BRUTE_FORCE": _Params(),
    "GPU_IVF_FLAT": _Params(_NLIST, _NPROBE),
    "GPU_IVF_PQ": _Params({**_NLIST, **_PQ}, _NPROBE),
    "GPU_CAGRA": _Params(
        {
            "intermediate_graph_degree": _Int(1),
            "graph_degree": _Int(1),
            "build_algo": _Choice(("IVF_PQ", "NN_DESCENT")),
            "cache_dataset_on_device": _Choice(("true", "false")),
            "adapt_for_cpu": _Choice(("true", "false")),
        },
        {"itopk_size": _Int(1), "search_width": _Int(1), "min_iterations": _Int(0), "max_iterations": _Int(0), **_EF},
    ),
}
_LITE: Final[Mapping[str, _Params]] = {
    "AUTOINDEX": _Params(_HNSW_BUILD, _EF),  # builds HNSW
    "FLAT": _Params(),
    "HNSW": _Params(_HNSW_BUILD, _EF),
    "HNSW_SQ": _Params({**_HNSW_BUILD, "sq_type": _Choice(("SQ8",))}, _EF),
    "IVF_FLAT": _Params(_NLIST, _NPROBE),
    "IVF_SQ8": _Params(_NLIST, _NPROBE),
}


# What a server before 2.5 has no value of its own for: an index without them is refused there (seen on 2.3.5).
_OLD_DEFAULTS: Final[Mapping[str, Any]] = {"M": 16, "efConstruction": 200, "nlist": 128, "nbits": 8}


def filled(config: IndexConfig) -> dict[str, Any]:
    """Return build parameters for a server that has none of its own: the given ones, and a value for each other."""
    rules = _SERVER[config.index_type].build
    own = {name: value for name, value in _OLD_DEFAULTS.items() if name in rules}
    return {**own, **config.build_params}


def check_filled(config: IndexConfig, label: str) -> None:
    """Refuse an index of a server without values of its own if nothing can be filled in.

    Raises:
        ConfigError: Product quantization cuts vectors into `m` parts, which must fit the dimension.
    """
    if "m" in _SERVER[config.index_type].build and "m" not in config.build_params:
        raise ConfigError(
            f"index.build_params.m: {config.index_type} on {label} needs it; write a divisor of the vectors' "
            "dimension, such as a quarter of it"
        )


def check_params(config: IndexConfig, *, lite: bool, label: str) -> None:
    """Refuse parameters that the index type does not have or whose value is out of bounds.

    Args:
        config: The `index` section; its index_type is known to be offered.
        lite: Whether the backend is Milvus Lite.
        label: The backend's name, for the message.

    Raises:
        ConfigError: Names key, value and what is accepted.
    """
    params = (_LITE if lite else _SERVER)[config.index_type]
    _check("index.build_params", config.build_params, params.build, f"{config.index_type} on {label}")
    _check("index.search_params", config.search_params, params.search, f"{config.index_type} on {label}")
    nlist, nprobe = config.build_params.get("nlist"), config.search_params.get("nprobe")
    if nlist is not None and nprobe is not None and nprobe > nlist:
        raise ConfigError(f"index.search_params.nprobe: {nprobe} is above index.build_params.nlist, {nlist}")


def _check(key: str, given: Mapping[str, Any], rules: Mapping[str, _Rule], where: str) -> None:
    for name, value in given.items():
        if name not in rules:
            takes = ", ".join(sorted(rules)) or "none"
            raise ConfigError(f"{key}.{name}: no such parameter of {where}; it takes {takes}")
        if not rules[name].accepts(value):
            raise ConfigError(f"{key}.{name}: {value!r}; {where} expects {rules[name]}")
