"""Which partitions go into one run: any set of them, in runs of bounded and balanced size."""

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """A partition to be brought up to date, and how much there is to do (changed objects, at least 1)."""

    partition_key: str
    weight: int = 1


@dataclass(frozen=True)
class Pack:
    """The partitions of one run, sorted, and their weight together."""

    partition_keys: tuple[str, ...]
    weight: int


def pack(items: Iterable[Item], *, max_items: int, max_weight: int) -> list[Pack]:
    """Pack partitions into runs, the heaviest first into the lightest run that has room (LPT, Graham 1969).

    Args:
        items: Partitions, each once, in any order; the result does not depend on it.
        max_items: Partitions of one run.
        max_weight: Weight of one run; a partition that is heavier by itself is a run of its own.

    Returns:
        The runs, the lightest first, so that small changes do not wait for large ones.
    """
    ordered = sorted(items, key=lambda item: (-item.weight, item.partition_key))
    heavy = [item for item in ordered if item.weight > max_weight]
    light = ordered[len(heavy) :]
    packs = [Pack((item.partition_key,), item.weight) for item in heavy]
    runs = max(math.ceil(len(light) / max_items), math.ceil(sum(item.weight for item in light) / max_weight))
    # (weight, number, keys): the number breaks ties, so that lists are never compared
    open_runs: list[tuple[int, int, list[str]]] = [(0, number, []) for number in range(runs)]
    done: list[tuple[int, list[str]]] = []
    for item in light:
        weight, number, keys = heapq.heappop(open_runs) if open_runs else (0, runs, [])
        if weight + item.weight > max_weight:
            # The lightest has no room, so none has: whole weights can fill runs unevenly, and one more is opened.
            heapq.heappush(open_runs, (weight, number, keys))
            runs += 1
            weight, number, keys = 0, runs, []
        keys.append(item.partition_key)
        weight += item.weight
        if len(keys) == max_items:
            done.append((weight, keys))
        else:
            heapq.heappush(open_runs, (weight, number, keys))
    done += [(weight, keys) for weight, _, keys in open_runs if keys]
    packs += [Pack(tuple(sorted(keys)), weight) for weight, keys in done]
    return sorted(packs, key=lambda one: (one.weight, one.partition_keys))


def ranges(keys: Sequence[str], all_keys: Sequence[str], limit: int) -> list[tuple[str, ...]]:
    """Split partition keys into runs of at most `limit` keys that are contiguous among all keys.

    Dagster names the partitions of an asset run by the two ends of a range, so a gap must begin a new run.
    """
    position = {key: number for number, key in enumerate(all_keys)}
    runs: list[list[str]] = []
    for key in sorted(keys, key=position.__getitem__):
        follows = bool(runs) and position[key] == position[runs[-1][-1]] + 1
        if follows and len(runs[-1]) < limit:
            runs[-1].append(key)
        else:
            runs.append([key])
    return [tuple(run) for run in runs]
