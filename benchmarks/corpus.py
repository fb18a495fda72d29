"""Assemble N real documents, the input of the scale benchmark, from Debian's documentation packages.

The pages are the HTML of Python, PostgreSQL, Linux and further manuals (`PACKAGES`). A page above
`--max-bytes-per-document` is left out, or stands as its reStructuredText source where the package ships one that is
small enough: 16,000 uncapped pages are 700 MB, hours of embedding on two cores, and with the cap a document is a few
chunks. Navigation, index and search pages are left out as well, and so are pages with the same bytes as another.

Samples are nested and drawn uniformly over all packages: the 1,000 documents are the first of the 4,000, so sizes
differ in number only, not in kind. Needs apt-get and dpkg-deb (Debian), and the network on the first run.
"""

import argparse
import gzip
import hashlib
import os
import re
import shutil
import statistics
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PACKAGES: Final = (
    "python3.11-doc",
    "postgresql-doc-15",
    "linux-doc-6.1",
    "openjdk-17-doc",
    "libboost1.81-doc",
    "qtbase5-doc-html",
    "sqlite3-doc",
    "apache2-doc",
    "python-django-doc",
    "python-scipy-doc",
    "git-doc",
)
DEFAULT_MAX_BYTES: Final = 24 * 1024
MIN_BYTES: Final = 1536  # smaller pages are frames and redirects
SKIPPED_PARTS: Final = frozenset({"class-use", "index-files", "_static", "_modules", "releaselog", "searchindex"})
SKIPPED_NAMES: Final = re.compile(
    r"^(genindex.*|py-modindex|search|bookindex|allclasses.*|allpackages.*|overview-.*|package-tree|package-use|"
    r".*-members|doc_keyword_crossref|keyword_index|shortnames)\.html$"
)
DEFAULT_CACHE: Final = Path.home() / ".cache" / "rag-assets" / "debian-docs"


@dataclass(frozen=True, slots=True)
class Page:
    """A file of a package that may become a document."""

    package: str
    path: Path
    relative: str
    size_bytes: int
    gzipped: bool = False

    def order(self, seed: int) -> bytes:
        """Position in the sample: a hash, so that it does not depend on what else is there."""
        return hashlib.blake2b(f"{seed}|{self.package}|{self.relative}".encode(), digest_size=16).digest()


def fetch(package: str, cache: Path) -> Path:
    """Return the folder with the package's files, downloading and unpacking it when it is not in the cache.

    Raises:
        SystemExit: The package cannot be downloaded; says what to run.
    """
    target = cache / package
    if (target / "usr").is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    if not any(cache.glob(f"{package}_*.deb")):
        done = subprocess.run(
            ["apt-get", "download", "-q", package], cwd=cache, check=False, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"cannot download {package}: {done.stderr.strip()}\nRun `apt-get update` first.")
    partial = cache / f".{package}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    archive = max(cache.glob(f"{package}_*.deb"))
    subprocess.run(["dpkg-deb", "-x", str(archive), str(partial)], check=True)
    partial.rename(target)
    return target


def pages(package: str, root: Path, *, max_bytes: int) -> Iterator[Page]:
    """Yield the package's pages in the size range, by path; a source stands in for a page that is too large."""
    sources = {_page_name(path): path for path in sorted(root.rglob("_sources/**/*.rst.txt*")) if not path.is_symlink()}
    for path in sorted(root.rglob("*.html")):
        relative = path.relative_to(root).as_posix()
        if path.is_symlink() or SKIPPED_PARTS & set(path.parts) or SKIPPED_NAMES.match(path.name):
            continue
        size = path.stat().st_size
        source = sources.get(str(path.with_suffix("")))
        if MIN_BYTES <= size <= max_bytes:
            yield Page(package, path, relative, size)
        elif size > max_bytes and source is not None:
            text_size = _unpacked_size(source)
            if MIN_BYTES <= text_size <= max_bytes:
                yield Page(
                    package, source, relative.removesuffix(".html") + ".rst.txt", text_size, source.suffix == ".gz"
                )


def _page_name(source: Path) -> str:
    """Map `A/_sources/b/c.rst.txt` to `A/b/c`, the page Sphinx makes of it."""
    return str(source).replace("/_sources/", "/", 1).removesuffix(".gz").removesuffix(".rst.txt")


def _unpacked_size(path: Path) -> int:
    return len(gzip.decompress(path.read_bytes())) if path.suffix == ".gz" else path.stat().st_size


def sample(candidates: Iterable[Page], count: int, *, seed: int) -> list[Page]:
    """Draw `count` pages with distinct content; a larger draw with the same seed starts with the smaller one.

    Raises:
        SystemExit: There are fewer than `count`.
    """
    drawn: list[Page] = []
    seen: set[bytes] = set()
    for page in sorted(candidates, key=lambda page: page.order(seed)):
        if len(drawn) == count:
            break
        content = hashlib.blake2b(page.path.read_bytes(), digest_size=16).digest()
        if content not in seen:
            seen.add(content)
            drawn.append(page)
    if len(drawn) < count:
        raise SystemExit(f"only {len(drawn):,} distinct pages; ask for fewer, or raise --max-bytes-per-document")
    return drawn


def place(page: Page, out: Path) -> Path:
    """Hard-link, or copy across file systems, a page into one of 256 folders of `out`, keeping a readable name."""
    tag = hashlib.blake2b(f"{page.package}/{page.relative}".encode(), digest_size=5).hexdigest()
    name = page.relative.rsplit("/", 1)[-1]
    target = out / tag[:2] / f"{page.package}--{tag[2:]}--{name}"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    if page.gzipped:
        target.write_bytes(gzip.decompress(page.path.read_bytes()))
        return target
    try:
        os.link(page.path, target)
    except OSError:
        shutil.copy2(page.path, target)
    return target


def report(drawn: list[Page], available: dict[str, int]) -> None:
    """Print counts and bytes per package, and how sizes are distributed."""
    by_package: dict[str, list[int]] = defaultdict(list)
    for page in drawn:
        by_package[page.package].append(page.size_bytes)
    print(f"{'package':<20} {'available':>9} {'documents':>9} {'bytes':>12}")
    for package, count in available.items():
        print(f"{package:<20} {count:>9,} {len(by_package[package]):>9,} {sum(by_package[package]):>12,}")
    sizes = sorted(page.size_bytes for page in drawn)
    print(f"{'total':<20} {sum(available.values()):>9,} {len(sizes):>9,} {sum(sizes):>12,}")
    cuts = statistics.quantiles(sizes, n=10) if len(sizes) > 1 else sizes
    print(f"bytes per document: mean {statistics.mean(sizes):,.0f}; deciles {' '.join(f'{cut:,.0f}' for cut in cuts)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.corpus",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to fill; created, must be empty")
    parser.add_argument("--documents", type=int, required=True, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-bytes-per-document", type=int, default=DEFAULT_MAX_BYTES, metavar="BYTES")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="where packages are downloaded and unpacked")
    parser.add_argument("--packages", nargs="+", default=list(PACKAGES), metavar="PACKAGE")
    options = parser.parse_args()
    if options.out.exists() and any(options.out.iterdir()):
        raise SystemExit(f"{options.out} is not empty; the corpus must hold nothing else")

    candidates: list[Page] = []
    available: dict[str, int] = {}
    for package in options.packages:
        found = list(pages(package, fetch(package, options.cache), max_bytes=options.max_bytes_per_document))
        available[package] = len(found)
        candidates += found
    drawn = sample(candidates, options.documents, seed=options.seed)
    for page in drawn:
        place(page, options.out)
    report(drawn, available)


if __name__ == "__main__":
    main()
