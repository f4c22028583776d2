"""Many independent runs, in parallel if need be: each is kept as soon as it is done, so that a crash loses no other."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed
from tqdm import tqdm

from repdyn._files import replacing
from repdyn.records._starts import lap
from repdyn.records.fresh import describe, key, require

__all__ = ["SweepError", "result_file", "run"]


Inputs = Callable[[Any], Mapping[str, str]]


class SweepError(RuntimeError):
    """Some runs of a sweep failed; all others are done and, with a cache, kept."""


def run(
    measure: Callable[[Any, Path | None], Any],
    configs: Sequence[Any],
    *,
    cache: str | os.PathLike | None = None,
    progress: bool = False,
    desc: str = "sweep",
    inputs: Inputs | None = None,
) -> list[Any]:
    """``measure(config, folder)`` for every one of ``configs``; the results, which JSON can hold, in their order.

    Runs go through :class:`joblib.Parallel`: one after the other, unless the caller says otherwise, as in
    ``with joblib.parallel_config(n_jobs=4):`` or, on a cluster, ``with joblib.parallel_config(backend="dask"):``.

    With ``cache``, a folder that all workers see, each result is kept there with its configuration, and a sweep that is
    started again goes on from what is there; a file of another configuration is refused, and that run fails.
    ``folder`` is the run's own, for a state to go on from after a kill; it is removed when the run is done. Without
    ``cache`` it is None. ``inputs(config)`` are digests of what a run depends on that its configuration only names,
    such as the weights in a file.

    A run that raises does not stop the others. In the end a :class:`SweepError` says which failed, and why; but if
    nothing but downloads failed, the first ``ConnectionError`` is raised.
    """
    cache = None if cache is None else Path(cache)
    tasks = (delayed(_attempt)(measure, index, config, cache, inputs) for index, config in enumerate(configs))
    results: list[Any] = [None] * len(configs)
    failures: dict[int, BaseException] = {}
    with tqdm(total=len(configs), desc=desc, unit="run", disable=not progress) as bar:
        for index, result, error in Parallel(return_as="generator_unordered")(tasks):
            results[index] = result
            if error is not None:
                failures[index] = error
            lap()
            bar.update()
    if failures and all(isinstance(error, ConnectionError) for error in failures.values()):
        raise failures[min(failures)]
    if failures:
        lines = [f"{configs[i]}: {type(error).__name__}: {error}" for i, error in sorted(failures.items())]
        kept_where = "" if cache is None else f"; the others are kept in {cache}, start again to go on from them"
        raise SweepError(
            f"{len(failures)} of {len(configs)} runs failed{kept_where}\n" + "\n".join(lines)
        ) from failures[min(failures)]
    return results


def result_file(config: Any, cache: str | os.PathLike) -> Path:
    """The file that keeps the result of ``config`` in the folder ``cache``, there or not."""
    return Path(cache) / f"{key(config)}.json"


def _attempt(
    measure: Callable[[Any, Path | None], Any],
    index: int,
    config: Any,
    cache: Path | None,
    inputs: Inputs | None,
) -> tuple[int, Any, Exception | None]:
    try:
        return index, _obtain(measure, config, cache, inputs), None
    except Exception as error:  # of any kind: it must not take the other runs with it, and is raised at the end
        return index, None, error


def _obtain(
    measure: Callable[[Any, Path | None], Any],
    config: Any,
    cache: Path | None,
    inputs: Inputs | None,
) -> Any:
    if cache is None:
        return _plain(measure(config, None))
    path, told = result_file(config, cache), inputs(config) if inputs else {}
    if not path.exists():
        folder = path.with_suffix("")
        _claim(folder / "run.json", config, told)
        result = _plain(measure(config, folder))
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(describe(config, told) | {"result": result}))
        shutil.rmtree(folder, ignore_errors=True)  # an equal run beside this one may have done so
    try:
        entry = json.loads(path.read_text())
        entry["result"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): remove it, and the run is made again") from error
    require(path, entry, config, told)
    return entry["result"]


def _claim(path: Path, config: Any, told: Mapping[str, str]) -> None:
    """Say in a run's folder whose it is; what another run left there is refused."""
    if path.exists():
        require(path, json.loads(path.read_text()), config, told)
        return
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(describe(config, told)))


def _plain(result: Any) -> Any:
    """What :func:`_obtain` would read from a file, so that a sweep gives the same with and without a cache."""
    return json.loads(json.dumps(result, allow_nan=False))
