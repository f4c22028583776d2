"""Generate notebooks/<stem>.ipynb, which Colab opens, from the chapters in book/. `--check` only says what drifted."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import jupytext
import nbformat
import yaml
from plain_markdown import Converter, Labels
from project import ROOT, chapters, pages, repository

INSTALL = """\
# On Colab: installs the package alone, so that Colab's own PyTorch stays as it is.
try:
    import repdyn
except ImportError:
    %pip install -q "repdyn @ git+https://github.com/{repository}"
"""
METADATA = {
    "accelerator": "GPU",
    "colab": {"gpuType": "T4", "provenance": [], "toc_visible": True},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
INTRO = (
    "*A chapter of [{book}]({page}), where it stands with its figures and numbers. Numbers in the text here are those"
    " of the book's own run; the cells show yours.*"
)


def book_address() -> str:
    owner, name = repository().split("/")
    return f"https://{owner.lower()}.github.io/{name}"


def converters(root: Path, sources: list[Path]) -> dict[Path, Converter]:
    """One for each chapter, all sharing the labels; chapters are numbered through the numbered parts."""
    toc = yaml.safe_load((root / "_toc.yml").read_text())
    numbered = [c["file"] for part in toc["parts"] if part.get("numbered") for c in part["chapters"]]
    labels, made = Labels(), {}
    for page in pages(root):  # chapters refer to the other pages by the labels of their headings
        for label, title in re.findall(r"^\(([\w-]+)\)=\n#+ (.+)$", page.read_text(), re.M):
            html = page.relative_to(root).with_suffix(".html")
            labels.found[label] = (title, f"{book_address()}/{html}#{label}")
    for source in sources:
        stem = str(source.relative_to(root).with_suffix(""))
        number = str(numbered.index(stem) + 1) if stem in numbered else source.stem[0].upper()
        address, works = f"{book_address()}/{stem}.html", root / "book" / "references.bib"
        baselines = root / "tests" / "chapters" / "baselines"
        made[source] = Converter(number, address, book_address(), source, works, baselines, labels)
    return made


def notebook(source: Path, converter: Converter, book: str) -> nbformat.NotebookNode:
    cells = []
    for cell in jupytext.read(source, fmt="md:myst").cells:
        if cell.cell_type != "code":
            cells.append(nbformat.v4.new_markdown_cell(converter.markdown(cell.source)))
            continue
        tags = {"tags": cell.metadata["tags"]} if "tags" in cell.metadata else {}
        cells.append(nbformat.v4.new_code_cell(cell.source, metadata=tags))
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        if figure:
            cells.append(nbformat.v4.new_markdown_cell(converter.figure(figure.get("name"), figure.get("caption", ""))))
    title, _, rest = cells[0].source.partition("\n")
    intro = f"{title}\n\n{INTRO.format(book=book, page=converter.page)}"
    install = nbformat.v4.new_code_cell(INSTALL.format(repository=repository()).strip())
    first = [nbformat.v4.new_markdown_cell(intro), install, nbformat.v4.new_markdown_cell(rest.strip())]
    cells = [cell for cell in first + cells[1:] if cell.source]
    for i, cell in enumerate(cells):
        cell.id = f"{source.stem}-{i:03d}"  # nbformat's are random: every regeneration would be a change
    return nbformat.v4.new_notebook(cells=cells, metadata=METADATA)


def generate(root: Path) -> dict[Path, str]:
    """The text of every notebook, by its path."""
    sources = chapters(root)
    title = yaml.safe_load((root / "_config.yml").read_text())["title"]
    made = converters(root, sources)
    for source in sources:
        notebook(source, made[source], title)  # learns the labels
    texts = {}
    for source in sources:
        made[source].labels.complete = True
        made[source].counts.clear()
        made_notebook = notebook(source, made[source], title)
        nbformat.validate(made_notebook)
        texts[root / "notebooks" / f"{source.stem}.ipynb"] = nbformat.writes(made_notebook) + "\n"
    return texts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a notebook drifted")
    parser.add_argument("--root", type=Path, default=ROOT)
    args = parser.parse_args()
    texts, folder = generate(args.root), args.root / "notebooks"
    drifted = [path for path, text in texts.items() if not path.exists() or path.read_text() != text]
    orphans = [path for path in folder.glob("*.ipynb") if path not in texts]
    for path in drifted + orphans:
        print(f"{path.relative_to(args.root)}: {'differs from its chapter' if path in drifted else 'has no chapter'}")
    if args.check:
        print("Run `make notebooks`." if drifted + orphans else f"{len(texts)} notebooks are up to date.")
        return bool(drifted + orphans)
    folder.mkdir(exist_ok=True)
    for path in drifted:
        path.write_text(texts[path])
    for path in orphans:
        path.unlink()
    print(f"{len(texts)} notebooks in notebooks/, {len(drifted)} of them new or changed.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
