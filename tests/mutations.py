"""Do the theory tests notice a wrong sign or factor? ``python tests/mutations.py [molrg|csnr|_quadrature ...]``

Changes one operator or constant of a module at a time, in a fork, runs the theory tests against it, and lists the
changes that no test noticed. Run by hand: some of these are equivalent (a wider grid, say), and a reader decides.
"""

from __future__ import annotations

import ast
import copy
import importlib
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TESTS = {"molrg": ["test_molrg", "test_exact"], "csnr": ["test_csnr", "test_exact"], "_quadrature": ["test_exact"]}
SWAPS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.MatMult: ast.Mult,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.USub: ast.UAdd, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
LIMIT = 60  # seconds of processor time for one changed copy; slower counts as noticed


def _changed(node: ast.AST) -> ast.AST | None:
    """A copy of ``node`` with one thing changed, or None where there is nothing to change."""
    node = copy.copy(node)
    if isinstance(node, (ast.BinOp, ast.UnaryOp, ast.BoolOp)) and type(node.op) in SWAPS:
        node.op = SWAPS[type(node.op)]()
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        node.ops = [SWAPS[type(node.ops[0])](), *node.ops[1:]]
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        node.value = not node.value
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        node.value = node.value + 1 if isinstance(node.value, int) or node.value == 0.0 else 2.0 * node.value
    else:
        return None
    return node


class _Replace(ast.NodeTransformer):
    """Replaces the node at one position of the walk."""

    def __init__(self, position: int) -> None:
        self.position, self.count = position, -1

    def visit(self, node: ast.AST) -> ast.AST:
        self.count += 1
        if self.count == self.position:
            return _changed(node) or node
        return self.generic_visit(node)


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """(description, changed source) for every single change of ``source``; annotations and text are left alone."""
    lines, plain = source.splitlines(), ast.unparse(ast.parse(source))
    walk: list[ast.AST] = []

    class Collect(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST:
            walk.append(node)
            return self.generic_visit(node)

    Collect().visit(ast.parse(source))
    for position, node in enumerate(walk):
        if _changed(node) is None:
            continue
        changed = ast.unparse(ast.fix_missing_locations(_Replace(position).visit(ast.parse(source))))
        before = ast.unparse(node)
        if changed != plain and "|" not in before:
            yield (
                f"{node.lineno}: {before} -> {ast.unparse(_changed(node))}   in: {lines[node.lineno - 1].strip()}",
                changed,
            )


def patch(name: str, source: str) -> None:
    """Run ``source`` in the place of the module, also where its functions and classes were already imported."""
    module = importlib.import_module(f"repdyn.theory.{name}")
    before = dict(vars(module))
    exec(compile(source, module.__file__, "exec"), vars(module))
    for key, old in before.items():
        new = vars(module)[key]
        if new is old:
            continue
        if isinstance(old, type):
            for attribute, value in vars(new).items():
                if attribute not in ("__dict__", "__weakref__", "__doc__"):
                    setattr(old, attribute, value)
            setattr(module, key, old)
        for other in TESTS:
            user = importlib.import_module(f"repdyn.theory.{other}")
            if vars(user).get(key) is old:
                setattr(user, key, getattr(module, key))


class Mutate:
    """A pytest plugin that runs the collected tests once for every change, each time in a fork."""

    def __init__(self, modules: list[str]) -> None:
        self.modules = modules

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        for name in self.modules:
            items = [item for item in session.items if item.path.stem in TESTS[name]]
            source = (ROOT / "lib" / "repdyn" / f"{name}.py").read_text()
            costs = {}
            for item in items:  # the quick ones first: most changes fall there
                start = time.process_time()
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
                costs[item] = time.process_time() - start
            if session.testsfailed:
                report(f"{name}: the tests fail without any change; mend that first")
                return True
            items.sort(key=costs.__getitem__)
            survivors = total = 0
            for description, changed in mutants(source):
                total += 1
                if not noticed(session, items, name, changed):
                    survivors += 1
                    report(f"{name}:{description}")
                if total % 20 == 0:
                    report(f"{name}: {total} changes, {survivors} not noticed so far")
            report(f"{name}: {total} changes in all, {survivors} not noticed")
        return True


def noticed(session: pytest.Session, items: list[pytest.Item], name: str, source: str) -> bool:
    """Whether a test fails when ``source`` is in the place of the module."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
        try:
            patch(name, source)
            for item in items:
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
                if session.testsfailed:
                    os._exit(1)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0


def report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(modules: list[str]) -> int:
    os.chdir(ROOT)
    folder = ROOT / "tests" / "theory"
    files = [str(folder / f"{name}.py") for name in sorted({test for name in modules for test in TESTS[name]})]
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 1)  # pytest's account of every fork
    return pytest.main(["-p", "no:cacheprovider", "--capture=no", *files], plugins=[Mutate(modules)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(TESTS)))
