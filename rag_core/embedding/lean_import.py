"""Imports sentence_transformers without scikit-learn, which it uses in one function that no encoder calls.

scikit-learn brings SciPy's statistics and pandas with it: a quarter of the seconds that a first import takes.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final

_UNUSED: Final = "sklearn.metrics"  # sentence_transformers.util.similarity takes `pairwise_distances` of it


def sentence_transformer() -> Any:
    """Return the class `SentenceTransformer`; what of it needs scikit-learn imports that at its first call."""
    with _imported_when_called(_UNUSED):
        from sentence_transformers import SentenceTransformer

    return SentenceTransformer


@contextmanager
def _imported_when_called(module: str) -> Iterator[None]:
    """Stand in for a module while the block imports functions of it; nothing changes if it is imported already."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = stand_in = _StandIn(module)
    try:
        yield
    finally:
        if sys.modules.get(module) is stand_in:
            del sys.modules[module]


class _StandIn(ModuleType):
    """A module whose every function imports the real module when it is called."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def function(*arguments: Any, **options: Any) -> Any:
            return getattr(importlib.import_module(self.__name__), name)(*arguments, **options)

        return function
