"""Tables of the pipeline benchmark, and the arithmetic of growth."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.memory import MIB, ROLES

PLAIN_WIDTH = 120  # of tables in a file or a pipe


def cost_ms(seconds: float, chunks: int) -> float:
    """Return milliseconds per chunk; NaN without chunks."""
    return seconds / chunks * 1000 if chunks else float("nan")


def growth(sizes: Sequence[tuple[int, float]]) -> list[float]:
    """Return the cost per chunk of each (chunks, seconds) relative to the first, which has the fewest chunks."""
    costs = [cost_ms(seconds, chunks) for chunks, seconds in sizes]
    return [cost / costs[0] for cost in costs]


def marginal_ms(sizes: Sequence[tuple[int, float]]) -> list[float | None]:
    """Return milliseconds for each chunk more than at the size before: what growth is once start-up is left out.

    The first has none. Fixed costs (a JVM, a model) flatter the growth of larger sizes; they cancel here.
    """
    return [None, *(cost_ms(b[1] - a[1], b[0] - a[0]) for a, b in pairwise(sizes))]


def summarise(sizes: Sequence[Mapping[str, Any]], max_growth: float, max_mib: int) -> dict[str, Any]:
    """Put the figures of all sizes side by side, with the verdict on both limits."""
    pairs = [(size["chunks"], size["seconds"]) for size in sizes]
    peaks = {role: [size["memory"].get(role, {}).get("rss_bytes", 0) for size in sizes] for role in ROLES}
    growths = growth(pairs)
    largest = max((value for values in peaks.values() for value in values), default=0)
    return {
        "sizes": list(sizes),
        "ms_per_chunk": [cost_ms(seconds, chunks) for chunks, seconds in pairs],
        "growth": growths,
        "marginal_ms_per_chunk": marginal_ms(pairs),
        "peak_rss_bytes": {role: values for role, values in peaks.items() if any(values)},
        "max_growth": max_growth,
        "max_mib": max_mib,
        "within_limits": all(value < max_growth for value in growths) and largest < max_mib * MIB,
    }


def print_size(console: Console, size: Mapping[str, Any]) -> None:
    """Print what one size took, by stage and step, and the memory of its processes."""
    runs = {
        "first run": size,
        "nothing changed": size.get("unchanged"),
        "one document changed": size.get("one_changed"),
    }
    measured = {name: run for name, run in runs.items() if run is not None}
    console.rule(f"{size['documents']:,} documents, {size['bytes'] / MIB:,.1f} MiB, {size['chunks']:,} chunks")
    view = _table("", *measured)
    names = list(dict.fromkeys(name for run in measured.values() for name in run["summary"]))
    for name in [name for name in names if name != "seconds"]:
        view.add_row(name, *(f"{run['summary'][name]:,}" for run in measured.values()))
    view.add_row("seconds, whole command", *(f"{run['seconds']:,.1f}" for run in measured.values()))
    console.print(view)
    view = _table("seconds", *measured)
    for stage in size["stages"]:
        parts = [run["stages"].get(stage) for run in measured.values()]
        view.add_row(stage, *(f"{part['seconds']:,.2f}" if part else "–" for part in parts), style="bold")
        for step in dict.fromkeys(step for part in parts if part for step in part["steps"]):
            view.add_row(f"  {step}", *(f"{part['steps'].get(step, 0.0):,.2f}" if part else "–" for part in parts))
        view.add_row("  rest", *(f"{part['rest']:,.2f}" if part else "–" for part in parts))
    view.add_row("outside stages", *(f"{run['outside_stages_s']:,.2f}" for run in measured.values()), style="bold")
    console.print(view)
    console.print(_memory_table(size))
    if size["other_processes"]:
        console.print("other: " + "; ".join(size["other_processes"]), highlight=False, markup=False)
    worker = size["stages"].get("embeddings", {}).get("figures", {})
    console.print("embedding worker: " + ", ".join(f"{key.removeprefix('worker_')} {value}" for key, value in
                  worker.items() if key.startswith("worker_")), highlight=False)  # fmt: skip


def print_report(console: Console, report: Mapping[str, Any]) -> None:
    """Print all sizes side by side, the verdict, and the comparison with the plain script."""
    sizes = report["sizes"]
    machine = report["machine"]
    console.rule(f"all sizes, {machine['cores']} cores, {machine['memory_bytes'] // MIB:,} MiB of memory")
    view = _table("", *(f"{size['documents']:,}" for size in sizes))
    view.add_row("bytes", *(f"{size['bytes']:,}" for size in sizes))
    view.add_row("chunks", *(f"{size['chunks']:,}" for size in sizes))
    view.add_row("store bytes", *(f"{size['store_bytes']:,}" for size in sizes))
    view.add_row("seconds", *(f"{size['seconds']:,.1f}" for size in sizes))
    view.add_row("chunks/s", *(f"{size['chunks'] / size['seconds']:,.1f}" for size in sizes))
    view.add_row("ms per chunk", *(f"{value:,.2f}" for value in report["ms_per_chunk"]))
    view.add_row("growth", *(f"{value:.2f}" for value in report["growth"]), style="bold")
    marginal = report["marginal_ms_per_chunk"]
    view.add_row("ms per further chunk", *("–" if value is None else f"{value:,.2f}" for value in marginal))
    for stage in dict.fromkeys(stage for size in sizes for stage in size["stages"]):
        parts = [size["stages"].get(stage, {"seconds": 0.0})["seconds"] for size in sizes]
        view.add_row(f"ms per chunk, {stage}", *(f"{cost_ms(part, size['chunks']):,.2f}" for part, size in
                     zip(parts, sizes, strict=True)))  # fmt: skip
    for name, label in (("unchanged", "nothing changed"), ("one_changed", "one document changed")):
        if all(name in size for size in sizes):
            view.add_row(f"seconds, {label}", *(f"{size[name]['seconds']:,.1f}" for size in sizes))
    console.print(view)
    view = _table("peak resident MiB of one process", *(f"{size['documents']:,}" for size in sizes), "times")
    for role, values in report["peak_rss_bytes"].items():
        times = f"{values[-1] / values[0]:.2f}" if values[0] else "–"
        view.add_row(role, *(f"{value // MIB:,}" for value in values), times)
    view.add_row("all at once", *(f"{size['tree_rss_bytes'] // MIB:,}" for size in sizes), "")
    console.print(view)
    verdict = "within" if report["within_limits"] else "OVER"
    console.print(f"{verdict} the limits: growth below {report['max_growth']}, {report['max_mib']:,} MiB each process")
    if "baseline" in report:
        _print_baseline(console, report["baseline"])


def _print_baseline(console: Console, baseline: Mapping[str, Any]) -> None:
    plain, ours, again = baseline["plain"], baseline["ours"], baseline["again"]
    console.rule(f"the same {baseline['documents']:,} documents")
    view = _table("", "plain script", "rag run", "times")
    pairs = {"chunks": (plain["chunks"], ours["summary"]["chunks"]), "seconds": (plain["seconds"], ours["seconds"])}
    for name, unit in (("chunks/s", "chunks"), ("documents/s", "documents")):
        done = pairs["chunks"] if unit == "chunks" else (baseline["documents"], baseline["documents"])
        pairs[name] = (done[0] / plain["seconds"], done[1] / ours["seconds"])
    for name, (theirs, mine) in pairs.items():
        view.add_row(name, f"{theirs:,.1f}", f"{mine:,.1f}", f"{mine / theirs:.2f}")
    # The plain script has no memory of what it did: its second run is its first again.
    view.add_row("seconds, again", f"{plain['seconds']:,.1f}", f"{again['seconds']:,.1f}",
                 f"{again['seconds'] / plain['seconds']:.2f}")  # fmt: skip
    console.print(view)
    console.print("plain script, seconds: " + ", ".join(f"{k} {v}" for k, v in plain["seconds_by_step"].items()))
    console.print("rag run, seconds: " + ", ".join(f"{k} {v['seconds']}" for k, v in ours["stages"].items())
                  + f", outside stages {ours['outside_stages_s']}")  # fmt: skip
    console.print("The plain script leaves out: " + "; ".join(baseline["plain_omits"]) + ".", highlight=False)


def _memory_table(run: Mapping[str, Any]) -> Table:
    """Peak of one process of each role, how many there were at once, and the largest sample while each stage ran."""
    stages = run["stages"]
    view = _table("MiB, first run", "RSS", "USS", "count", "RSS of all", *(name.split("_")[0] for name in stages))
    for role in ROLES:
        if role in run["memory"]:
            peak = run["memory"][role]
            sizes = (peak["rss_bytes"] // MIB, peak["uss_bytes"] // MIB, peak["processes"])
            within = [stage["peak_rss_bytes"].get(role) for stage in stages.values()]
            view.add_row(role, *(f"{value:,}" for value in sizes), f"{peak['total_rss_bytes'] // MIB:,}",
                         *("–" if value is None else f"{value // MIB:,}" for value in within))  # fmt: skip
    return view


def _table(first: str, *columns: str) -> Table:
    view = Table(box=None, header_style="bold", pad_edge=False)
    view.add_column(first)
    for column in columns:
        view.add_column(column, justify="right")
    return view
