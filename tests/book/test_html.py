"""The built pages: complete, readable offline, every link leads somewhere, every picture is described.

Skipped when `_build/html` is missing or older than its sources: `make book` first, as .ci/run does.
"""

from __future__ import annotations

import os
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

import nbformat
import project
import pytest
from project import ROOT, chapters, no_current_book, pages

HTML = ROOT / "_build" / "html"
CHAPTERS = {path.stem for path in chapters()}
# What a browser fetches by itself; an <a href> waits for a reader's click.
FETCHED = {
    "script": ["src"],
    "img": ["src", "srcset"],
    "iframe": ["src"],
    "embed": ["src"],
    "object": ["data"],
    "source": ["src", "srcset"],
    "video": ["src", "poster"],
    "audio": ["src"],
    "image": ["href", "xlink:href"],
    "use": ["href", "xlink:href"],
}
FETCHED_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "dns-prefetch", "preconnect", "manifest"}
IN_STYLES = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")


@pytest.fixture(scope="module", autouse=True)
def fresh_build() -> None:
    if reason := no_current_book():
        # .ci/run and publishing have just built the book: there, a skipped test would hide a mistake.
        untested = pytest.fail if "BOOK_IS_BUILT" in os.environ else pytest.skip
        untested(f"THE BUILT PAGES WERE NOT TESTED: {reason}, run `make book`")


class Page(HTMLParser):
    """What a page fetches, links to and shows."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.fetches: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.images: list[dict] = []
        self.inside: list[str] = []
        self.text: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list) -> None:
        attributes = {key: value or "" for key, value in attrs}
        self.inside = [tag]
        self.anchors |= {attributes[key] for key in ("id", "name") if attributes.get(key)}
        self.fetches += [attributes[key].split(" ")[0] for key in FETCHED.get(tag, []) if key in attributes]
        self.fetches += styles(attributes.get("style", ""))
        if tag == "link" and FETCHED_LINKS & set(attributes.get("rel", "").split()):
            self.fetches.append(attributes["href"])
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        if tag == "img":
            self.images.append(attributes)

    def handle_data(self, data: str) -> None:
        if self.inside == ["style"]:
            self.fetches += styles(data)
        elif self.inside != ["script"]:
            self.text.append(data)

    def handle_endtag(self, tag: str) -> None:
        self.inside = []


def styles(text: str) -> list[str]:
    return [quoted or plain for quoted, plain in IN_STYLES.findall(text)]


@cache
def page(path: Path) -> Page:
    return Page(path)


def all_pages() -> list[Page]:
    return [page(path) for path in sorted(HTML.rglob("*.html")) if "_static" not in path.parts]


def address(source: Path) -> Path:
    return HTML / source.relative_to(ROOT).with_suffix(".html")


def test_every_page_of_the_toc_is_built() -> None:
    assert (HTML / "index.html").exists()
    assert not [source for source in pages() if not address(source).exists()]


def test_nothing_is_fetched_from_elsewhere() -> None:
    fetched = [(p.path.name, url) for p in all_pages() for url in p.fetches]
    fetched += [(css.name, url) for css in HTML.rglob("*.css") for url in styles(css.read_text())]
    assert fetched, "the scan found nothing at all"
    outside = [(name, url) for name, url in fetched if urlparse(url).scheme not in ("", "data") or url.startswith("//")]
    assert not outside, outside


def test_no_inline_script_loads_from_elsewhere() -> None:
    for p in all_pages():
        for script in re.findall(r"<script[^>]*>(.*?)</script>", p.path.read_text(), re.S):
            assert not re.search(r"https?://[^\s\"']+\.(js|css|woff2?)\b", script), f"{p.path.name}: {script[:200]}"


def test_every_fetched_file_is_there() -> None:
    for p in all_pages():
        for url in p.fetches:
            parts = urlparse(url)
            if parts.scheme == "" and parts.path:
                assert (p.path.parent / unquote(parts.path)).exists(), f"{p.path.name} fetches {url}"


def test_every_internal_link_and_anchor_resolves() -> None:
    broken = []
    for p in all_pages():
        for url in p.links:
            parts = urlparse(url)
            if parts.scheme or parts.netloc:
                continue
            target = (p.path.parent / unquote(parts.path)).resolve() if parts.path else p.path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                broken.append((p.path.name, url))
            elif parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in page(target).anchors:
                broken.append((p.path.name, url))
    assert not broken, broken


def test_every_picture_is_described() -> None:
    images = [(p.path.name, image) for p in all_pages() for image in p.images]
    bare = [
        (name, image.get("src")) for name, image in images if image.get("alt", "").strip() in ("", image.get("src"))
    ]
    assert not bare, bare


def test_chapters_and_only_they_open_in_colab() -> None:
    for source in pages():
        stem = source.stem
        links = [url for url in page(address(source)).links if "colab.research.google.com" in url]
        base = f"https://colab.research.google.com/github/{project.repository()}/blob/{project.notebook_branch()}"
        assert links == ([f"{base}/notebooks/{stem}.ipynb"] if stem in CHAPTERS else []), source.name
        assert not links or (ROOT / "notebooks" / f"{stem}.ipynb").exists()


def test_chapters_can_be_downloaded() -> None:
    for source in chapters():
        links = page(address(source)).links
        for suffix in (".ipynb", ".md"):
            assert any(url.endswith(f"{source.stem}{suffix}") for url in links), f"{source.stem} has no {suffix}"


def test_nothing_is_left_unrendered() -> None:
    for source in pages():
        text = "".join(page(address(source)).text)
        assert not re.search(r"\{(glue|eq|numref|ref|prf|cite|py)[:\w]*\}`|^:::|\[\?\]|\(\?\)", text, re.M), source.name


def test_formulas_come_from_here() -> None:
    with_formulas = [p for p in all_pages() if 'class="math' in p.path.read_text()]
    assert with_formulas
    for p in with_formulas:
        assert any("/mathjax/tex-svg-full.js" in url for url in p.fetches), p.path.name
    assert (HTML / "mathjax" / "tex-svg-full.js").stat().st_size > 2e6
    assert (HTML / "mathjax" / "LICENSE").exists()


def test_equations_and_figures_have_the_same_numbers_on_colab() -> None:
    for source in chapters():
        html = address(source).read_text()
        notebook = nbformat.read(ROOT / "notebooks" / f"{source.stem}.ipynb", as_version=4)
        text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        assert re.findall(r'class="eqno">\(([\w.]+)\)', html) == re.findall(r"\\tag\{([\w.]+)\}", text), source.name
        figures = re.findall(r'class="caption-number">Fig. ([\w.]+)', html)
        assert figures == re.findall(r"\*\*Figure ([\w.]+)\.\*\*", text), source.name
        statements = r"(?:Definition|Proposition|Lemma|Theorem|Corollary) \d+\.\d+"
        titles = re.findall(rf'class="caption-number">({statements})', html)
        assert titles == re.findall(rf"^\*\*({statements})", text, re.M), source.name
