"""Do the tests notice a wrong sign, factor, index or argument? ``python tests/mutations.py [module ...] [--sample N]``

Changes one thing of a module at a time, in a fork, runs the tests that must notice, and lists the changes that none did
with the share that was noticed. Run by hand. A change that makes no difference to what the module is for stands in
``EQUIVALENT``, with the reason, and is not counted.
"""

from __future__ import annotations

import argparse
import ast
import copy
import functools
import importlib
import inspect
import os
import random
import resource
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: Module of repdyn -> the test files that must notice a change of it.
TESTS = {
    "theory.molrg": ["theory/test_molrg", "theory/test_exact"],
    "theory.csnr": ["theory/test_csnr", "theory/test_exact", "theory/test_defaults"],
    "theory._quadrature": ["theory/test_exact"],
    "theory.empirical": ["unit/test_empirical"],
    "theory.subspaces": ["unit/test_subspaces", "unit/test_subspace_edges"],
    "noise": ["unit/test_noise"],
    "denoisers": ["unit/test_denoisers"],
    "sampling": ["unit/test_sampling"],
    "features": ["unit/test_features", "unit/test_vector_denoisers", "unit/test_feature_readings"],
    "curves": ["unit/test_curves", "unit/test_feature_readings"],
    "probes.linear": ["unit/test_probes"],
    "probes._logistic": ["unit/test_probes"],
    "probes.levels": ["unit/test_levels"],
    "probes.mlp": ["unit/test_other_probes"],
    "probes.voting": ["unit/test_other_probes"],
    "metrics.alignment": ["unit/test_metrics"],
    "metrics.detail": ["unit/test_quality_metrics"],
    "metrics.frechet": ["unit/test_metrics", "unit/test_quality_metrics"],
    "metrics.identity": ["unit/test_identity"],
    "metrics.matching": ["unit/test_matching"],
    "metrics.memorisation": ["unit/test_metrics"],
    "metrics.predictions": ["unit/test_predictions"],
    "metrics.resampling": ["unit/test_resampling", "unit/test_probes"],
    "metrics.segmentation": ["unit/test_metrics"],
    "metrics.subspaces": ["unit/test_metrics"],
    "metrics.wasserstein": ["unit/test_metrics"],
    "chapters.ensembles.ensembling": ["unit/test_ensembles", "unit/test_ensembling"],
    "chapters.memorisation.early_stopping": ["unit/test_early_stopping"],
}

#: Module -> a piece of the changed line that the line had not before, or, after a "*", of a line of which every change
#: is meant -> why the change makes no difference, or none that a test should hold.
EQUIVALENT: dict[str, dict[str, str]] = {
    "theory._quadrature": {
        "special.gammainccinv(d / 2 + 2, tail)": "a wider range of integration",
        "_panels(low, 0.0, high)": "other panels of the same integral",
    },
    "theory.empirical": {"*size = max(1, 2 ** 24 // len(self.data))": "portions bound the memory"},
    "theory.subspaces": {
        "rounds, moved, shares = (0, 2.0": "any number above the tolerance starts the loop",
        "torch.zeros(len(x), len(frames))": "the first shares are only compared with",
        "common - (1 - overlap)": "a basis turned round spans the same subspace",
        "moved > 0.0001": "equality is an accident of rounding",
        "max_rounds: int=201": "a limit for what does not stand still",
    },
    "noise": {
        "sigma = np.asarray(sigma)": "a logarithm takes whole numbers too",
        "time = np.asarray(time)": "so does a polynomial",
    },
    "denoisers": {"edm_loss_weight(self.sigma_data, sigma)": "symmetric"},
    "features": {"native or native()": "differs only where torch does not know the processor"},
    "probes.levels": {
        "*_TOGETHER = 30000000.0": "portions bound the memory",
        "*together = max(1, int(_TOGETHER": "portions bound the memory",
        "if len(levels) >= 1 else": "one level is copied instead of read in place",
    },
    "probes._logistic": {
        "product >= 0": "where it is zero nothing moved, and nothing moves again",
        "promise >= tol": "equality is an accident of rounding",
        "*parabola = -slope": "the way to the minimum, whose length a test bounds, not the minimum",
        "*length = torch.where(failed": "the way to the minimum, whose length a test bounds, not the minimum",
        "*failed = ~(new_value <= value": "the way to the minimum, whose length a test bounds, not the minimum",
        "*if objective.x.shape[2] <= _NARROW": "the way to the minimum, whose length a test bounds, not the minimum",
        "*z = z * torch.where(curvature > 0": "the way to the minimum, whose length a test bounds, not the minimum",
        "*_NARROW = 256": "the way to the minimum, whose length a test bounds, not the minimum",
        "*_REFRESH = 15": "the way to the minimum, whose length a test bounds, not the minimum",
        "*_PAIRS = 20": "the way to the minimum, whose length a test bounds, not the minimum",
        "*return self._inverse(x.mT @ x / (2": "the way to the minimum, whose length a test bounds, not the minimum",
        "-slope * 2": "stops later",
        "-slope / 3": "stops a little earlier, within the tolerance",
        "1 / product, 1.0)": "what it multiplies is zero there",
        "weights = p @ basis.square()": "below zero by rounding only; same minimum",
        "range(13)": "one more shortening of a step that twelve did not help",
        "*pairs = [*pairs[1 - _PAIRS:]": "how many steps are remembered: the way to the minimum, not the minimum",
        "*_CHUNK = 2 ** 20": "portions bound the memory",
        "torch.zeros(self.shape)": "matters on a GPU only",
        "step = step / active": "a step that is not active is zero or, divided, refused by the line search",
        "*every = max(1, self.x.shape[1] // max(": "which items the preconditioner is estimated on; same minimum",
        "*diagonal = self.penalty + 1e-06": "what keeps the preconditioner positive; same minimum",
        "*largest = blocks.diagonal(": "what keeps the preconditioner positive; same minimum",
        "*self.rows = max(256, ": "portions bound the memory",
    },
    "probes.mlp": {
        "torch.as_tensor(targets))": "matters on a GPU only",
        "torch.random.fork_rng():": "matters on a GPU only",
    },
    "probes.linear": {
        "*_TOGETHER = 2000000": "portions bound the memory",
        "*together = max(1, _TOGETHER": "portions bound the memory",
    },
    "probes.voting": {"[torch.as_tensor(part) for part in X]": "each linear probe makes them single precision too"},
    "metrics.detail": {
        "images.shape[+2:]": "the same two of four axes",
        "not len(pair[1])": "the shapes are equal by then",
        "pair[1].ndim": "the shapes are equal by then",
        "(frequency.log2()": "minus infinity is in the lowest band too",
        "frequency.clamp_min(1.0": "only frequency zero is below either",
        "max()) + 2": "labels are below the highest of them plus one anyway",
        "torch.fft.fftfreq(size) for": "the edges of octaves are exact in single precision",
    },
    "metrics.frechet": {
        "*values = np.linalg.eigvalsh(covariance).clip(min=0.0)": "eigenvalues below zero by rounding weigh nothing",
        "np.asarray(mean_b))": "the difference is in double precision by the other mean",
        "tolerance = 10 / size": "the order of magnitude of rounding is meant",
        "-1e-06 * values.max()": "where the largest is negative all are refused either way",
        "where=l + s * 2 > 0": "positive for the same sigma",
        "where=l + s ** 3 > 0": "positive for the same sigma",
        "np.allclose(covariance.T, covariance": "symmetric",
        "values >= tolerance": "equality is an accident of rounding",
        "np.broadcast_shapes(s.shape, l.shape)": "symmetric",
        "np.finfo(np.float64).eps * values.max()": "negative eigenvalues are small by then",
        "tolerance = 11 * size": "the order of magnitude of rounding is meant",
        "np.allclose(covariance, covariance.T)": "the order of magnitude of rounding is meant",
    },
    "metrics.matching": {
        "subspace_angles(b, a)": "symmetric",
        "contingency_matrix(clusters.numpy(), labels.numpy())": "the transposed table has the same best pairing",
    },
    "metrics.memorisation": {
        "@ (y + centre).T": "the same up to a constant for each sample",
        "*rows = max(1, max_numbers // max(": "portions bound the memory",
        "max_numbers: int=50000001": "portions bound the memory",
    },
    "metrics.predictions": {
        "np.allclose(1, p.sum(1)": "symmetric but for a relative tolerance",
        "np.clip(0, np.ceil(": "the same bounds",
        "np.bincount(place, right - confidence)": "intervals above the highest confidence are empty",
        "return np.asarray(values)": "what it is called with is single or double precision, or boolean",
    },
    "metrics.identity": {
        "retain_graph=left >= 0": "a graph that is kept is dropped at the end",
        "retain_graph=True": "a graph that is kept is dropped at the end",
    },
    "metrics.resampling": {
        "np.ones((2, num))": "the first of two equal rows is taken",
        "a, b = (np.asarray(a), ": "ranks of whole numbers are the same",
        "np.asarray(b))": "ranks of whole numbers are the same",
    },
    "metrics.subspaces": {
        "second.shape[2]": "the matrices are square",
        ">= 1e-13 * values[-1]": "equality is an accident of rounding",
        ">= 1e-14 * signal": "equality is an accident of rounding",
        ">= 1e-10 * scales[0]": "equality is an accident of rounding",
        ".view(K, -1, rank)": "the same shape",
        "full_matrices=True": "more vectors after the first ones, which are the same",
        "torch.linalg.svd(own)": "more vectors after the first ones, which are the same",
        "rest = torch.eye(D) -": "ones and zeros are exact in single precision",
        "and len(x) else 1": "no number of classes fits labels of another length",
        ".movedim(1, 0)": "the same exchange of two neighbours",
        "largest + 1)": "labels that are all negative are refused either way",
    },
    "metrics.wasserstein": {"sliced_wasserstein_distance(b, a": "symmetric"},
    "chapters.memorisation.early_stopping": {"spearman(novel, ": "symmetric"},
}

SWAPS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.MatMult: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.USub: ast.UAdd, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
BOUNDS = {"abs", "min", "max", "maximum", "minimum", "clamp", "clamp_min", "clamp_max", "clip", "fmax", "fmin"}
SYMMETRIC = {
    "min",
    "max",
    "maximum",
    "minimum",
    "hypot",
    "promote_types",
    "_dot",
}  # nothing changes when their arguments are swapped
SAFETY = {"strict", "stacklevel"}  # named arguments that guard against mistakes elsewhere, or point at a caller
LIMIT = 60  # seconds of processor time for one changed copy; slower counts as noticed


class Mutant(NamedTuple):
    """One change: the function it is in (None outside all), the changed line before and after, the whole source."""

    function: ast.AST | None
    before: str
    after: str
    source: str


# --------------------------------------------------------------------------------------------------- what is changed


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """Copies of ``node`` with one thing changed."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, (ast.BinOp, ast.UnaryOp, ast.BoolOp)) and type(node.op) in SWAPS:
        yield _with(node, op=SWAPS[type(node.op)]())
    elif isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            if type(op) in SWAPS:
                yield _with(node, ops=[*node.ops[:i], SWAPS[type(op)](), *node.ops[i + 1 :]])
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield _with(node, value=not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        value = node.value
        far = 1000.0 if abs(value) < 1e-3 else 2.0  # of a tolerance the order of magnitude is meant
        yield _with(node, value=value + 1 if isinstance(value, int) or not value else far * value)
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Name):
        yield _with(node, slice=ast.Constant(0))
    elif isinstance(node, ast.Call):
        yield from _calls(node)


def _calls(node: ast.Call) -> Iterator[ast.AST]:
    """Without one of its named arguments, with two arguments swapped, without its bound, a minimum for a maximum."""
    for i, keyword in enumerate(node.keywords):
        if keyword.arg is not None and keyword.arg not in SAFETY:
            yield _with(node, keywords=[*node.keywords[:i], *node.keywords[i + 1 :]])
    method = isinstance(node.func, ast.Attribute) and not _is_module(node.func.value)
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
    pair = len(node.args) > 1 and not any(isinstance(arg, ast.Starred) for arg in node.args[:2])
    if pair and name not in SYMMETRIC:
        yield _with(node, args=[node.args[1], node.args[0], *node.args[2:]])
    if name not in BOUNDS:
        return
    if method and name not in ("min", "max"):
        yield node.func.value
    elif not method and (len(node.args) > 1 or name == "abs"):
        yield node.args[0]
    elif name in ("min", "max"):
        other = {"min": "max", "max": "min"}[name]
        yield _with(node, func=_with(node.func, **{"attr" if isinstance(node.func, ast.Attribute) else "id": other}))


def _is_module(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ("np", "torch", "math", "F")


def _with(node: ast.AST, **fields: object) -> ast.AST:
    node = copy.copy(node)
    for name, value in fields.items():
        setattr(node, name, value)
    return node


def places(node: ast.AST, function: ast.AST | None = None) -> Iterator[tuple[ast.AST, str, int | None, ast.AST | None]]:
    """(parent, field, index, function) of all that may be changed; annotations, aliases of types, texts are not."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns") or isinstance(node, (ast.Raise, ast.JoinedStr)):
            continue
        if isinstance(node, ast.keyword) and node.arg in SAFETY:
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(child, ast.AST) or _is_alias(child, node):
                continue
            inside = function
            if inside is None and isinstance(child, (ast.FunctionDef, ast.Lambda)):
                inside = child
            yield node, field, index, inside
            yield from places(child, inside)


def _is_alias(node: ast.AST, parent: ast.AST) -> bool:
    """``Layers = dict[str, Tensor]`` or ``__all__``, at the top of a module."""
    if not (isinstance(parent, ast.Module) and isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)):
        return False
    return node.targets[0].id == "__all__" or isinstance(node.value, ast.Subscript)


def mutants(source: str) -> Iterator[Mutant]:
    """Every single change of ``source``."""
    tree = ast.parse(source)
    plain = ast.unparse(tree).splitlines()
    for parent, field, index, function in places(tree):
        siblings = getattr(parent, field)
        node = siblings if index is None else siblings[index]
        for changed in changes(node):
            _put(parent, field, index, changed)
            lines = ast.unparse(tree).splitlines()
            _put(parent, field, index, node)
            if len(lines) != len(plain):
                continue  # a docstring, say
            for before, after in zip(plain, lines):
                if before != after:
                    yield Mutant(function, before.strip(), after.strip(), "\n".join(lines))


def _put(parent: ast.AST, field: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node


# ------------------------------------------------------------------------------------------------ in the place of it


def patch(name: str, source: str) -> None:
    """Run ``source`` in the place of the module, also where its functions, classes and constants were imported."""
    module = importlib.import_module(f"repdyn.{name}")
    before = dict(vars(module))
    exec(compile(source, module.__file__, "exec"), vars(module))
    users = [vars(user) for user in list(sys.modules.values()) if isinstance(user, types.ModuleType) and _may_use(user)]
    for key, old in before.items():
        new = vars(module)[key]
        if new is old or key.startswith("__"):
            continue
        if isinstance(old, type):
            _renew_class(old, new)
            setattr(module, key, old)  # instances, subclasses and isinstance know the old one
            continue
        if callable(old):
            _renew(old, new)  # where it lies in a table or a default
        for user in users:
            if user.get(key) is old:
                user[key] = new


def _may_use(module: types.ModuleType) -> bool:
    return module.__name__.startswith("repdyn") or str(getattr(module, "__file__", "")).startswith(str(ROOT / "tests"))


def _renew(old: object, new: object) -> None:
    """Give a function, or what a decorator wrapped, the code and defaults of its changed copy."""
    if isinstance(old, functools.partial):
        return
    old, new = (getattr(f, "fget", None) or getattr(f, "__func__", f) for f in (old, new))
    old, new = inspect.unwrap(old), inspect.unwrap(new)
    if isinstance(old, types.FunctionType) and isinstance(new, types.FunctionType):
        old.__code__, old.__defaults__, old.__kwdefaults__ = new.__code__, new.__defaults__, new.__kwdefaults__


def _renew_class(old: type, new: type) -> None:
    """The same for a class: its methods keep their cell, on which ``super()`` depends."""
    for key, value in vars(new).items():
        current = vars(old).get(key)
        if callable(inspect.unwrap(getattr(current, "fget", None) or getattr(current, "__func__", current))):
            _renew(current, value)
        elif not key.startswith("__") or key == "__dataclass_fields__":
            setattr(old, key, value)


# -------------------------------------------------------------------------------------------------------------- run


class Mutate:
    """A pytest plugin that runs the collected tests once for every change, each time in a fork."""

    def __init__(self, modules: list[str], sample: int | None, seed: int) -> None:
        self.modules, self.sample, self.seed = modules, sample, seed

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        for name in self.modules:
            path = ROOT / "lib" / "repdyn" / f"{name.replace('.', '/')}.py"
            stems = {Path(test).stem for test in TESTS[name]}
            runs = [first_run(item, path) for item in session.items if item.path.stem in stems]
            if session.testsfailed:
                report(f"{name}: the tests fail without any change; mend that first")
                return True
            runs.sort(key=lambda run: run.seconds)  # the quick ones first: most changes fall there
            found = list(mutants(path.read_text()))
            counted = [mutant for mutant in found if not known(name, mutant)]
            chosen = counted
            if self.sample is not None and self.sample < len(counted):
                chosen = random.Random(self.seed).sample(counted, self.sample)
            survivors = 0
            for mutant in chosen:
                if not noticed(session, [run.item for run in runs if run.reaches(mutant.function)], name, mutant):
                    survivors += 1
                    report(f"  {name}: {mutant.before}\n  {' ' * len(name)}  {mutant.after}")
            share = 1 - survivors / max(len(chosen), 1)
            report(
                f"{name}: {share:.1%} noticed, {survivors} of {len(chosen)} not; there are {len(found)} changes, "
                f"{len(found) - len(counted)} of them known to be equivalent"
            )
        return True


def known(name: str, mutant: Mutant) -> bool:
    """Whether the change stands in :data:`EQUIVALENT`."""
    return any(
        piece[1:] in mutant.before if piece[0] == "*" else piece in mutant.after and piece not in mutant.before
        for piece in EQUIVALENT.get(name, {})
    )


class Run(NamedTuple):
    """What one test takes, and which lines of the module begin a function that it calls."""

    item: pytest.Item
    seconds: float
    lines: set[int]

    def reaches(self, function: ast.AST | None) -> bool:
        if function is None:
            return bool(self.lines)
        first = min([function.lineno, *(d.lineno for d in getattr(function, "decorator_list", []))])
        return any(first <= line <= function.end_lineno for line in self.lines)


def first_run(item: pytest.Item, path: Path) -> Run:
    """Run a test without any change, and see what it calls."""
    lines: set[int] = set()

    def watch(frame: types.FrameType, _event: str, _argument: object) -> None:
        if frame.f_code.co_filename == str(path) and frame.f_code.co_name != "<module>":
            lines.add(frame.f_code.co_firstlineno)

    start = time.process_time()
    sys.settrace(watch)
    try:
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
    finally:
        sys.settrace(None)
    return Run(item, time.process_time() - start, lines)


def noticed(session: pytest.Session, items: list[pytest.Item], name: str, mutant: Mutant) -> bool:
    """Whether a test fails when the changed source is in the place of the module."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
        try:
            patch(name, mutant.source)
            for item in items:
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
                if session.testsfailed:
                    os._exit(1)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0


def report(line: str) -> None:
    print(line, file=sys.__stderr__, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", metavar="module", help=f"of {', '.join(TESTS)}; all by default")
    parser.add_argument("--sample", type=int, help="so many changes of each module, drawn at random; all by default")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    options = parser.parse_args()
    modules = options.modules or list(TESTS)
    if unknown := [name for name in modules if name not in TESTS]:
        parser.error(f"unknown module {', '.join(unknown)}: choose from {', '.join(TESTS)}")
    os.chdir(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"  # a fork has no other threads
    sys.path.insert(0, str(ROOT / "lib"))
    files = [str(ROOT / "tests" / f"{test}.py") for test in sorted({test for name in modules for test in TESTS[name]})]
    sys.__stderr__ = open(os.dup(2), "w")  # what report writes to
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 1)  # pytest's account of every fork
        os.dup2(null.fileno(), 2)  # what the tests print
    plugin = Mutate(modules, options.sample, options.seed)
    return pytest.main(["-p", "no:cacheprovider", "--capture=no", *files], plugins=[plugin])


if __name__ == "__main__":
    sys.exit(main())
