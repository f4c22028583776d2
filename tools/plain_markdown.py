"""MyST Markdown into the Markdown that Colab shows: no directives, no roles, formulas between dollars.

Conversion runs twice over all chapters: the first pass learns what each label stands for, the second writes.
A directive or role that is not listed here is an error, never silently dropped.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from pybtex.database import parse_file

FENCE = re.compile(r"^(?P<indent>\s*)(?P<fence>`{3,}|:{3,})(?:\{(?P<name>[\w:-]+)\})?[ \t]*(?P<title>.*)$")
ROLE = re.compile(r"\{([\w:]+)\}`([^`]+)`|(`+)(?!`).*?(?<!`)\3(?!`)")  # or code, in which nothing is a role
LINK = re.compile(r"\[([^\]]*)\]\(((?:[\w./-]+\.md)?(?:#[\w-]+)?)\)")
NOTES = {"note", "tip", "hint", "important", "warning", "caution", "attention", "seealso", "margin", "topic", "sidebar"}


@dataclass
class Labels:
    """What the first pass found: label -> (text that a reference shows, address in the book)."""

    found: dict[str, tuple[str, str]] = field(default_factory=dict)
    complete: bool = False

    def __getitem__(self, label: str) -> tuple[str, str]:
        if label not in self.found and self.complete:
            raise ValueError(f"reference to an unknown label: {label}")
        return self.found.get(label, ("?", ""))


@dataclass
class Converter:
    """One chapter: its number, its address in the book, where cited works and recorded values are found."""

    number: str
    page: str  # address of the built page
    book: str  # address of the book
    source: Path
    works: Path
    baselines: Path
    labels: Labels
    counts: Counter = field(default_factory=Counter)

    def markdown(self, text: str) -> str:
        lines, out, i = text.split("\n"), [], 0
        while i < len(lines):
            fence = FENCE.match(lines[i])
            if fence:
                end = self._end(lines, i, fence["fence"])
                out.append(self._block(fence, lines[i + 1 : end], lines[i]))
                i = end
            elif target := re.match(r"^\s*\(([\w-]+)\)=\s*$", lines[i]):
                heading = next((line for line in lines[i + 1 :] if line.strip()), "")
                self._learn(target[1], self._inline(heading.lstrip("# ")))
            elif lines[i].strip() == "$$" or re.match(r"^\s*\$\$[^$]+$", lines[i]):
                end = next(j for j in range(i + 1, len(lines)) if "$$" in lines[j])
                out += lines[i:end]
                closing = re.match(r"^(.*\$\$)(?:\s*\(([\w-]+)\))?\s*$", lines[end])
                if closing is None:
                    raise ValueError(f"{self.source.name}: after a formula only its label may stand: {lines[end]}")
                body, label = closing.groups()
                out.append(body if label is None else body.replace("$$", self._tag(label) + "\n$$"))
                i = end
            elif not lines[i].startswith("% "):
                out.append(self._inline(lines[i]))
            i += 1
        return "\n".join(out).strip()

    def figure(self, name: str, caption: str) -> str:
        return f"**{self._count('Figure', name, shown='Fig.')}.** {self.markdown(caption)}"

    def _end(self, lines: list[str], start: int, fence: str) -> int:
        for j in range(start + 1, len(lines)):
            closing = lines[j].strip()
            if closing and set(closing) == {fence[0]} and len(closing) >= len(fence):
                return j
        problem = "has no end before the next code cell, which must stand outside of directives"
        raise ValueError(f"{self.source.name}: {lines[start]} {problem}")

    def _block(self, fence: re.Match, lines: list[str], opening: str) -> str:
        name, title, indent = fence["name"], fence["title"].strip(), fence["indent"]
        if name is None:  # plain code
            return "\n".join([opening, *lines, indent + fence["fence"]])
        lines = [line.removeprefix(indent) for line in lines]
        options = {}
        while lines and (option := re.match(r"^:([\w-]+):\s*(.*)$", lines[0])):
            options[option[1]] = option[2]
            lines.pop(0)
        body = "\n".join(lines).strip("\n")
        text = self._directive(name, title, options, body)
        return "\n".join(indent + line if line else line for line in text.split("\n"))

    def _directive(self, name: str, title: str, options: dict, body: str) -> str:
        if name == "math":
            body = body or title
            if r"\\" in body and r"\begin{" not in body:
                body = f"\\begin{{aligned}}\n{body}\n\\end{{aligned}}"
            tag = f"\n{self._tag(options['label'])}" if "label" in options else ""
            return f"$$\n{body}{tag}\n$$"
        if name == "prf:proof":
            return f"*Proof.* {self.markdown(body)} $\\square$"
        if name.startswith("prf:"):
            kind = name.removeprefix("prf:").capitalize()
            number = self._count(kind, options.get("label"))
            statement = f" ({self._inline(title)})" if title else ""
            return f"**{number}{statement}.** {self.markdown(body)}"
        if name == "dropdown":
            return f"<details>\n<summary>{self._inline(title)}</summary>\n\n{self.markdown(body)}\n\n</details>"
        if name == "admonition" or name in NOTES:
            text = f"**{self._inline(title) or name.capitalize()}**\n\n{self.markdown(body)}"
            # Colab takes the quotation marks inside a displayed formula for part of it.
            return text if "$$" in text else re.sub(r"^", "> ", text, flags=re.M)
        if name == "table":
            return f"**{self._inline(title)}**\n\n{self.markdown(body)}"
        if name in ("code", "code-block"):
            return f"```{title}\n{body}\n```"
        raise ValueError(f"{self.source.name}: tools/plain_markdown.py does not know the directive {{{name}}}")

    def _inline(self, line: str) -> str:
        line = LINK.sub(lambda m: self._link(m[1], m[2]) if m[2] else m[0], line)
        return ROLE.sub(lambda m: self._role(m[1], m[2]) if m[1] else m[0], line)

    def _role(self, role: str, content: str) -> str:
        explicit = re.match(r"^(.*?)\s*<(.+)>$", content, re.S)
        text, target = explicit.groups() if explicit else ("", content)
        if role == "math":
            return f"${content}$"
        if role == "eq":
            return self.labels[target][0]
        if role == "numref":
            shown, address = self.labels[target]
            return f"[{text.replace('%s', shown.split()[-1]) or shown}]({address})"
        if role in ("ref", "prf:ref"):
            return self._link(text, f"#{target}")
        if role == "doc":
            return self._link(text, f"{target}.md")
        if role.startswith("cite"):
            return self._cite(role, content)
        if role == "glue:text":
            return self._recorded(content)
        if role.startswith("py:"):
            return f"`{text or (target[1:].rsplit('.', 1)[-1] if target.startswith('~') else target)}`"
        raise ValueError(f"{self.source.name}: tools/plain_markdown.py does not know the role {{{role}}}")

    def _link(self, text: str, target: str) -> str:
        path, _, label = target.partition("#")
        if label:
            shown, address = self.labels[label]
            return f"[{text or shown}]({address})"
        page = (self.source.parent / path).resolve()
        title = re.search(r"^# (.+)$", page.read_text(), re.M) if page.exists() else None
        if title is None:
            raise ValueError(f"{self.source.name}: link to a page that is not there: {path}")
        folder = next(p for p in page.parents if p.name == "book")
        return f"[{text or title[1]}]({self.book}/book/{page.relative_to(folder).with_suffix('.html')})"

    def _cite(self, role: str, keys: str) -> str:
        works = parse_file(self.works).entries
        cited = []
        for key in keys.split(","):
            people = [" ".join(p.last_names) for p in works[key.strip()].persons["author"]]
            who = " and ".join(people) if len(people) < 3 else f"{people[0]} et al."
            year = works[key.strip()].fields["year"]
            cited.append(f"{who} ({year})" if role == "cite:t" else f"{who}, {year}")
        text = "; ".join(cited).replace("{", "").replace("}", "")
        return text if role == "cite:t" else f"({text})"

    def _recorded(self, content: str) -> str:
        """The value of the book's own run, as the baseline has it: the sentence stays a sentence."""
        page, _, key = content.rpartition("::")
        name, _, form = key.partition(":")
        path = self.baselines / f"{Path(page or self.source).stem}.json"
        values = json.loads(path.read_text()) if path.exists() else {}
        return format(values[name]["value"], form) if name in values else f"`{name}`"

    def _count(self, kind: str, label: str | None, shown: str | None = None) -> str:
        self.counts[kind] += 1
        number = f"{self.number}.{self.counts[kind]}"
        if label:
            self._learn(label, f"{shown or kind} {number}")
        return f"{kind} {number}"

    def _tag(self, label: str) -> str:
        number = self._count("Equation", None).split()[-1]
        self._learn(label, f"({number})", f"equation-{label}")
        return rf"\tag{{{number}}}"

    def _learn(self, label: str, shown: str, anchor: str | None = None) -> None:
        self.labels.found[label] = (shown, f"{self.page}#{anchor or label}")
