"""The chapters keep the house rules of CONTRIBUTING.md, as far as a program can tell."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import baselines
import jupytext
import lint
import plain_markdown
import pytest
from project import LONGEST_FIRST, ROOT, chapters, pages
from pybtex.database import parse_file

LIB = ROOT / "lib" / "repdyn"
SOURCES = {path.stem: path for path in chapters()}
#: Modules whose names are their package's: it is the door to them.
BEHIND_A_DOOR = r"(training|probes|pretrained)\.\w+|records\.record"
EQUATION = re.compile(r"``(eq-[\w-]+)``")
TEMPLATE = {"template": ROOT / "book" / "_template.md"}  # a copy must pass, too
per_chapter = pytest.mark.parametrize("stem", SOURCES | TEMPLATE)


def text_of(stem: str) -> str:
    return (SOURCES | TEMPLATE)[stem].read_text()


def code_cells(stem: str) -> list:
    return [cell for cell in jupytext.read((SOURCES | TEMPLATE)[stem], fmt="md:myst").cells if cell.cell_type == "code"]


# One chapter


@per_chapter
def test_front_matter(stem: str) -> None:
    metadata = jupytext.read((SOURCES | TEMPLATE)[stem], fmt="md:myst").metadata
    assert metadata["jupytext"]["text_representation"]["format_name"] == "myst"
    assert metadata["kernelspec"] == {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert "execution_timeout" in metadata["mystnb"]


@per_chapter
def test_opening(stem: str) -> None:
    opening = rf"---\n+\(ch-{stem}\)=\n# [^\d\n][^\n]*\n+:::\{{admonition\}} This chapter\n(.*?)\n:::\n"
    box = re.search(opening, text_of(stem), re.S)
    assert box, f"a chapter opens with (ch-{stem})=, a title without number, the box `This chapter`"
    for line in ("You will do", "You will learn", "You need", "Runs in"):
        assert line in box[1], f"the box has no {line!r}"


@per_chapter
def test_closing(stem: str) -> None:
    headings = re.findall(r"^## (.+)$", text_of(stem), re.M)
    assert headings[-3:] == ["What the paper says, what we measured", "Exercises", "Where to go next"]
    assert re.search(r"\{dropdown\} Solution", text_of(stem)), "exercises come with folded solutions"


@per_chapter
def test_first_cells(stem: str) -> None:
    first, second, *rest = code_cells(stem)
    assert first.metadata.get("tags") == ["parameters"]
    for node in ast.parse(first.source).body:
        assert isinstance(node, ast.Assign), "the parameters cell only assigns"
        ast.literal_eval(node.value)
    assert second.metadata.get("tags") == ["hide-input"] and "plots.use_style()" in second.source
    assert not [c for c in rest if "parameters" in c.metadata.get("tags", [])]


@per_chapter
def test_cells_are_short(stem: str) -> None:
    for cell in code_cells(stem)[2:]:
        lines = [line for line in cell.source.split("\n") if line.strip() and not line.lstrip().startswith("#")]
        assert len(lines) <= 16, f"{len(lines)} lines of code, put them in lib:\n{cell.source}"


@per_chapter
def test_figures_have_name_caption_and_alt_text(stem: str) -> None:
    for cell in code_cells(stem):
        shown = cell.metadata.get("mystnb", {})
        draws = re.search(r"plt\.(subplots|figure|imshow|show)|^(fig|ax)\b.*=|^plots\.\w+\.", cell.source, re.M)
        if "figure" in shown:
            assert re.match(r"fig-[\w-]+$", shown["figure"].get("name", "")) and shown["figure"].get("caption")
            assert shown.get("image", {}).get("alt", "").strip(), f"{shown['figure']['name']} has no alt text"
        elif draws and "subplots" in draws[0]:
            raise AssertionError(f"a figure without mystnb.figure metadata:\n{cell.source}")


@per_chapter
def test_no_path_is_typed(stem: str) -> None:
    for cell in code_cells(stem):
        for node in ast.walk(ast.parse(re.sub(r"^\s*[%!].*$", "", cell.source, flags=re.M))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.match(r"([./~]|\.\.)/|/\w|~", node.value), f"a path: {node.value!r}"
                assert not re.search(r"\w\.(json|npy|npz|pt|pth|safetensors|csv|png|pkl)$", node.value), node.value


@pytest.mark.parametrize("page", [*filter(Path.exists, pages())], ids=lambda page: page.stem)
def test_glued_names_are_recorded(page: Path) -> None:
    for role, content in re.findall(r"\{(glue[^}]*)\}`([^`]+)`", page.read_text()):
        other, _, key = content.rpartition("::")
        assert role == "glue:text", f"{{{role}}} does not read on Colab"
        form = not other or (other.endswith(".md") and ":" in key)
        assert form, f"{content}: a number of another page is written path/stem.md::name:format"
        source = (page.parent / other).resolve() if other else page
        assert source in SOURCES.values(), f"{content}: there is no such chapter"
        name = key.partition(":")[0]
        assert name in baselines.read(source.stem), f"{name} has no baseline in {source.stem}.json"


@per_chapter
def test_no_cell_is_inside_a_directive(stem: str) -> None:
    """The build would drop it: fold a computed solution with the tag `hide-cell` instead."""
    for cell in jupytext.read((SOURCES | TEMPLATE)[stem], fmt="md:myst").cells:
        if cell.cell_type == "markdown":
            opened = re.findall(r"^ *(:{3,})(?:\{.*)?$", cell.source, re.M)
            assert len(opened) % 2 == 0, f"a directive is open at the end of:\n{cell.source}"


@per_chapter
def test_code_passes_ruff(stem: str) -> None:
    complaints = lint.chapter((SOURCES | TEMPLATE)[stem])
    assert not complaints, complaints


# All chapters


def test_package_and_tests_pass_ruff() -> None:
    complaints = lint.ruff()
    assert not complaints, complaints


def test_all_pages_are_there() -> None:
    missing = [str(page.relative_to(ROOT)) for page in pages() if not page.exists()]
    assert not missing, f"in _toc.yml, but not in the book: {missing}"
    unlisted = {*(ROOT / "book").rglob("*.md")} - {*pages(), ROOT / "book" / "_template.md"}
    assert not unlisted, f"in the book, but not in _toc.yml: {unlisted}"


def test_what_takes_longest_is_a_chapter() -> None:
    assert set(LONGEST_FIRST) <= SOURCES.keys(), "tools/project.py orders chapters that are not there"


def test_stems_and_recorded_names_are_unique() -> None:
    assert len(SOURCES) == len(chapters()), "two chapters have the same stem"
    names = Counter(name for stem in SOURCES for name in baselines.read(stem))
    assert not [name for name, count in names.items() if count > 1]
    strangers = [name for stem in SOURCES for name in baselines.read(stem) if not name.startswith(f"{stem}_")]
    assert not strangers, f"recorded names begin with their chapter's stem: {strangers}"


def test_every_cited_work_is_in_the_bibliography_and_back() -> None:
    cited = set()
    for page in filter(Path.exists, pages()):
        for keys in re.findall(r"\{cite[^}]*\}`([^`]+)`", page.read_text()):
            cited |= {key.strip() for key in keys.split(",")}
    known = set(parse_file(ROOT / "book" / "references.bib").entries)
    assert cited <= known, f"not in references.bib: {cited - known}"
    assert known <= cited, f"in references.bib, but cited nowhere: {known - cited}"


def test_every_public_module_is_on_the_api_page() -> None:
    documented = set(re.findall(r"automodule:: (repdyn[\w.]*)", (ROOT / "book" / "appendix" / "api.md").read_text()))
    public = {module_name(path) for path in LIB.rglob("*.py") if "__all__" in path.read_text()}
    # A chapter's figures and recipes are its own.
    own = r"chapters\.\w+\.(figures|recipes|explorer|ensembling|task)"
    public = {name for name in public if not re.search(rf"\._|({BEHIND_A_DOOR}|{own}|cli|networks|^repdyn)$", name)}
    assert documented == public


# Formulas: from the book to the code and back


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(LIB.parent).with_suffix("").parts).removesuffix(".__init__")


def documented_functions(path: Path) -> dict[str, str]:
    """Full name -> docstring of the public functions, classes and methods of a module."""
    tree, module = ast.parse(path.read_text()), module_name(path)
    if re.search(rf"^repdyn\.({BEHIND_A_DOOR})$", module):
        module = module.rpartition(".")[0]
    exported = {e.value for n in tree.body if is_all(n) for e in n.value.elts if isinstance(e, ast.Constant)}
    found = {}
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name in exported:
            found[f"{module}.{node.name}"] = ast.get_docstring(node) or ""
            for method in node.body if isinstance(node, ast.ClassDef) else []:
                if isinstance(method, ast.FunctionDef):
                    found[f"{module}.{node.name}.{method.name}"] = ast.get_docstring(method) or ""
    return found


def is_all(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"


@pytest.fixture(scope="module")
def citations() -> dict[str, list[str]]:
    """Equation label -> the public functions whose docstring cites it."""
    found: dict[str, list[str]] = {}
    for path in LIB.rglob("*.py"):
        for name, docstring in documented_functions(path).items():
            for label in EQUATION.findall(docstring):
                found.setdefault(label, []).append(name)
    return found


@pytest.fixture(scope="module")
def equations() -> dict[str, str]:
    """Equation label -> stem of the chapter that has it."""
    pattern = re.compile(r"(?:^\s*:label:\s*|\$\$\s*\()(eq-[\w-]+)", re.M)
    return {label: stem for stem in SOURCES for label in pattern.findall(text_of(stem))}


def test_every_equation_is_cited_by_a_public_function(citations: dict, equations: dict) -> None:
    orphans = equations.keys() - citations.keys()
    assert not orphans, f"label steps of a derivation step-..., or cite these in lib: {sorted(orphans)}"


def test_every_cited_equation_is_in_the_book(equations: dict) -> None:
    cited = {label for path in LIB.rglob("*.py") for label in EQUATION.findall(path.read_text())}
    assert cited <= equations.keys(), f"cited in lib, in no chapter: {sorted(cited - equations.keys())}"


def test_the_chapter_names_the_function_of_an_equation(citations: dict, equations: dict) -> None:
    for label, stem in equations.items():
        names = citations.get(label, [])
        named = re.findall(r"\{py:\w+\}`~?(?:[^`<]*<)?~?([\w.]+)", text_of(stem))
        assert not names or set(names) & set(named), f"{stem}.md has {label}, but links to none of {names}"


# The way to Colab


def test_a_sentence_and_its_roles_survive(tmp_path: Path) -> None:
    labels = plain_markdown.Labels({"eq-a": ("(3.1)", "u#eq-a"), "fig-b": ("Fig. 3.2", "u#fig-b")}, complete=True)
    works = ROOT / "book" / "references.bib"
    converter = plain_markdown.Converter("3", "u", "b", tmp_path / "x.md", works, tmp_path, labels)
    (tmp_path / "x.json").write_text('{"x_y": {"value": 0.12345}}')
    for myst, plain in {
        "By {eq}`eq-a` and {numref}`fig-b`": "By (3.1) and [Fig. 3.2](u#fig-b)",
        "{numref}`panel %s <fig-b>`": "[panel 3.2](u#fig-b)",
        "is {glue:text}`x_y:.2f`": "is 0.12",
        "{cite:t}`efron2011tweedie` {cite}`vincent2008extracting`": "Efron (2011) (Vincent et al., 2008)",
        "{py:func}`~repdyn.theory.csnr.peak` {math}`a_b`": "`peak` $a_b$",
        "`code` in ``{eq}``": "`code` in ``{eq}``",
        "```{math}\n:label: eq-a\n\na = b\n```": "$$\na = b\n\\tag{3.1}\n$$",
        "$$\na\n$$ (eq-a)": "$$\na\n\\tag{3.2}\n$$",
        ":::{note}\nHear.\n:::": "> **Note**\n> \n> Hear.",
        ":::{dropdown} Why\n```\n{eq}\n```\n:::": "<details>\n<summary>Why</summary>\n\n```\n{eq}\n```\n\n</details>",
        "(here)=\n# A title": "# A title",
    }.items():
        assert converter.markdown(myst) == plain


@pytest.mark.parametrize("myst", [":::{tab-set}\n:::", "{sub}`x`", "{eq}`nowhere`", "```{math}\nno end"])
def test_what_colab_cannot_show_is_an_error(tmp_path: Path, myst: str) -> None:
    labels = plain_markdown.Labels(complete=True)
    converter = plain_markdown.Converter("3", "u", "b", tmp_path / "x.md", tmp_path, tmp_path, labels)
    with pytest.raises(ValueError):
        converter.markdown(myst)
