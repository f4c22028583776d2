"""Build the book, or one chapter of it, such that no number on a page can be older than the code behind it.

Executions are cached by the code of a page. The cache does not see the package, its assets or the pins, so it is
removed when one of those changed. All pages are assembled anew from the cached executions every time: a page that
shows another page's number would otherwise keep the old one.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jupyter_cache
import nbformat
import yaml
from joblib import Parallel, delayed, parallel_config
from jupyter_cache.base import CacheBundleIn, ProjectNb
from jupyter_cache.executors.utils import ExecutionResult, single_nb_execution
from project import BEHIND_NUMBERS, BEHIND_PAGES, ROOT, chapters, execution, fingerprint, longest_first

TIMEOUT_S = 600  # for a cell, as in the chapters' front matter


def drop_stale_executions(root: Path, build: Path) -> None:
    stamp, current = build / "executed-with", fingerprint(root, BEHIND_NUMBERS) + sys.version
    if not stamp.exists() or stamp.read_text() != current:
        shutil.rmtree(build / ".jupyter_cache", ignore_errors=True)
        build.mkdir(parents=True, exist_ok=True)
        stamp.write_text(current)


def execute_side_by_side(pages: list[Path], folder: Path) -> None:
    """Execute what the cache lacks, several pages at once, one thread each, which Jupyter Book does one by one.

    A page that fails is left to Jupyter Book, which executes it again and says why.
    """
    cache = jupyter_cache.get_cache(folder)
    for page in pages:
        cache.add_nb_to_project(str(page), read_data={"name": "myst_nb_md", "type": "plugin"})
    unexecuted = {record.uri: record.pk for record in cache.list_unexecuted([str(p) for p in pages])}
    missing = [cache.get_project_notebook(unexecuted[str(p)]) for p in longest_first(pages) if str(p) in unexecuted]
    with parallel_config("loky", n_jobs=min(4, os.cpu_count() or 1), inner_max_num_threads=1):
        for page, result in Parallel(return_as="generator_unordered")(delayed(execute)(page) for page in missing):
            print(f"{Path(page.uri).stem}: {'failed' if result.err else 'executed'}, {result.time:.0f} s", flush=True)
            if not result.err:
                bundle = CacheBundleIn(result.nb, page.uri, data={"execution_seconds": result.time})
                cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


def execute(page: ProjectNb) -> tuple[ProjectNb, ExecutionResult]:
    return page, single_nb_execution(page.nb, str(Path(page.uri).parent), TIMEOUT_S, allow_errors=False)


def keep_executions(pages: list[Path], folder: Path, root: Path) -> None:
    """Each page's execution with its recorded outputs, which Jupyter Book drops from the notebooks it leaves behind."""
    cache = jupyter_cache.get_cache(folder)
    shutil.rmtree(execution("", root).parent, ignore_errors=True)
    execution("", root).parent.mkdir()
    for page in pages:
        record = cache.get_cached_project_nb(str(page))
        notebook = cache.get_cache_bundle(record.pk).nb
        notebook.metadata["execution_seconds"] = record.data["execution_seconds"]
        nbformat.write(notebook, execution(page.stem, root))


def jupyter_book(root: Path, output: Path, *options: str, **run: Any) -> subprocess.CompletedProcess[str]:
    """Run Jupyter Book into output/_build, which is emptied of earlier pages."""
    drop_stale_executions(root, output / "_build")
    shutil.rmtree(output / "_build" / "html", ignore_errors=True)
    program = Path(sys.executable).with_name("jupyter-book")
    paths = [str(root), "--path-output", str(output)]
    command = [str(program), "build", *paths, "--all", "-n", "--keep-going", *options]
    return subprocess.run(command, cwd=root, text=True, **run)


def build_book(root: Path) -> int:
    start, sources = time.monotonic(), fingerprint(root, BEHIND_PAGES)
    drop_stale_executions(root, root / "_build")
    cache = root / "_build" / ".jupyter_cache"
    execute_side_by_side(chapters(root), cache)
    result = jupyter_book(root, root, "-W")
    index = root / "_build" / "html" / "index.html"
    if result.returncode or not index.exists():
        print(f"The book was NOT built: the messages above say why. {time.monotonic() - start:.0f} s")
        return result.returncode or 1
    keep_executions(chapters(root), cache, root)
    # The tests of the built pages, and of the numbers on them, look at pages of the present sources only.
    (root / "_build" / "html" / ".built-from").write_text(sources)
    print(f"The book was built in {time.monotonic() - start:.0f} s: open {index.relative_to(root)} or `make serve`.")
    return 0


def build_chapter(root: Path, stem: str) -> int:
    """All pages are read, for their labels; only the chapter and those whose numbers it shows are executed."""
    pages = {page.stem: page for page in chapters(root)}
    if stem not in pages:
        print(f"There is no chapter {stem!r} with a kernel in its front matter; there are: {', '.join(pages)}")
        return 2
    quoted = {Path(p).stem for p in re.findall(r"\{glue:\w+\}`([^`]+?)::", pages[stem].read_text())}
    config = yaml.safe_load((root / "_config.yml").read_text())
    config["execute"]["exclude_patterns"] = [str(p) for s, p in pages.items() if s not in quoted | {stem}]
    config["sphinx"]["local_extensions"] = {n: str(root / p) for n, p in config["sphinx"]["local_extensions"].items()}
    output = root / "_build" / "chapters" / stem
    output.mkdir(parents=True, exist_ok=True)
    (output / "_config.yml").write_text(yaml.safe_dump(config))
    with (output / "log.txt").open("w") as log:
        options = ["--config", str(output / "_config.yml")]
        result = jupyter_book(root, output, *options, stdout=log, stderr=subprocess.PIPE)
    # The other pages were not executed, so what they miss is no news.
    messages = re.split(r"^(?=\S+\.(?:md|py)\S*:.*(?:WARNING|ERROR))", result.stderr, flags=re.M)
    mine = [m for m in messages if str(pages[stem].relative_to(root)) in m.split("\n", 1)[0]]
    print("".join(mine) if result.returncode == 0 else result.stderr)
    html = output / "_build" / "html" / pages[stem].relative_to(root).with_suffix(".html")
    print(f"{len(mine)} warnings. Open {html.relative_to(root)}; full log: {(output / 'log.txt').relative_to(root)}")
    return result.returncode or bool(mine)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--chapter", help="build this chapter alone, into _build/chapters/")
    args = parser.parse_args()
    root = args.root.resolve()
    return build_chapter(root, args.chapter) if args.chapter else build_book(root)


if __name__ == "__main__":
    sys.exit(main())
