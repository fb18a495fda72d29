"""Merging of a patch into a pod, in the way of `kubectl patch`: by key, and entries of lists by their name."""

from typing import Any, Final

from rag_core.errors import ConfigError

# Lists whose entries have a key, by the list's name; all other lists are replaced as a whole.
# Source: patchMergeKey in https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.31/#pod-v1-core
_KEYS: Final = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
}


def patched(pod: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Return the pod with the patch merged in; neither is changed.

    Raises:
        ConfigError: The patch has a value of another kind than the pod, or an entry without its key.
    """
    return _merged(pod, patch, "embedding.kubernetes.patch")


def _merged(base: dict[str, Any], patch: dict[str, Any], place: str) -> dict[str, Any]:
    result = dict(base)
    for key, value in patch.items():
        here = f"{place}.{key}"
        old = base.get(key)
        if value is None:
            result.pop(key, None)
        elif old is not None and isinstance(old, dict | list) and type(old) is not type(value):
            kind = "a mapping" if isinstance(old, dict) else "a list"
            raise ConfigError(f"{here}: expected {kind}, as it is in the pod")
        elif isinstance(value, dict):
            result[key] = _merged(old or {}, value, here)
        elif isinstance(value, list) and key in _KEYS:
            result[key] = _merged_lists(old or [], value, _KEYS[key], here)
        else:
            result[key] = value
    return result


def _merged_lists(base: list[Any], patch: list[Any], key: str, place: str) -> list[Any]:
    result = list(base)
    for number, entry in enumerate(patch):
        if not isinstance(entry, dict) or key not in entry:
            raise ConfigError(f"{place}[{number}]: expected a mapping with `{key}`, by which it is matched")
        at = next((n for n, old in enumerate(result) if old.get(key) == entry[key]), None)
        if at is None:
            result.append(_merged({}, entry, f"{place}[{number}]"))
        else:
            result[at] = _merged(result[at], entry, f"{place}[{number}]")
    return result
