"""What Jupyter Book cannot do by itself: lead a page to its Colab notebook, a function to its equation, and show a
figure that another page recorded.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import sys
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from myst_nb.ext.glue.crossref import read_glue_cache
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.directives.patches import Figure
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from project import notebook_branch, repository  # noqa: E402


def name_repository(app: Sphinx, config: Config) -> None:
    """Here and not in _config.yml, so that a fork publishes links to itself without an edit."""
    config.html_theme_options["repository_url"] = f"https://github.com/{repository()}"
    config.html_theme_options["repository_branch"] = notebook_branch()


def open_notebook_in_colab(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object) -> None:
    """The theme's button opens the page's source, which Colab cannot read: lead it to the generated notebook."""
    stem = pagename.rsplit("/", 1)[-1]
    url = f"https://colab.research.google.com/github/{repository()}/blob/{notebook_branch()}/notebooks/{stem}.ipynb"
    for group in context.get("header_buttons", []):
        for button in group.get("buttons", []):
            if button.get("text") == "Colab":
                button["url"] = url


def read_as_prose(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Docstrings are prose for an editor: `(batch, *shape)` is no markup, and an equation's label becomes a link."""
    for i, line in enumerate(lines):
        if re.match(r"\s*Equations?: ", line):
            lines[i] = re.sub(r"``(eq-[\w-]+)``", r":eq:`\1`", line)
        else:
            literals = re.split(r"(``.*?``)", line)
            lines[i] = "".join(t if t.startswith("``") else re.sub(r"([*|])", r"\\\1", t) for t in literals)


class FigureOfPage(Figure):
    """`{glue:figure} name` with `:doc:`, the page that recorded it: MyST-NB's own shows figures of its page only."""

    option_spec = {**Figure.option_spec, "doc": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        name, env = self.arguments[0], self.state.document.settings.env
        _, path = env.relfn2path(self.options.pop("doc"))
        self.arguments[0] = f"data:{name}"  # an address that nothing tries to copy
        made = super().run()
        for image in made[0].findall(nodes.image):
            image["recorded"] = (env.path2doc(path), name)
        return made


class ShowRecordedFigures(SphinxPostTransform):
    """By now every page has been executed: write the figures where the pages expect their images."""

    default_priority = 5

    def run(self) -> None:
        for image in self.document.findall(nodes.image):
            if "recorded" not in image:
                continue
            page, name = image["recorded"]
            output = read_glue_cache(self.env.mystnb_config.output_folder, page).get(name)
            if output is None:
                logging.getLogger(__name__).warning("%s recorded no figure %s", page, name, location=image)
                continue
            picture = base64.b64decode(output["data"]["image/png"])
            builder = self.app.builder
            path = Path(builder.outdir, builder.imagedir, f"{hashlib.sha256(picture).hexdigest()}.png")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(picture)
            image["uri"] = os.path.relpath(path, Path(builder.outdir, self.env.docname).parent)
            image["candidates"] = {"*": image["uri"]}


def skip_tuple_fields(app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """Fields of named tuples say no more than the signature above them: "Alias for field number 0"."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def setup(app: Sphinx) -> dict:
    app.connect("config-inited", name_repository)
    app.connect("html-page-context", open_notebook_in_colab, priority=900)  # after the theme has made its buttons
    app.connect("autodoc-process-docstring", read_as_prose)
    app.connect("autodoc-skip-member", skip_tuple_fields)
    app.add_directive_to_domain("glue", "figure", FigureOfPage, override=True)
    app.add_post_transform(ShowRecordedFigures)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
