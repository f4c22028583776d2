"""Sweeps: what is done is kept, whatever becomes of the other runs; workers elsewhere give the same."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import distributed
import joblib
import pytest

from repdyn.records import sweeps


@dataclass(frozen=True)
class Numbers:
    value: int
    log: str | None = None


CONFIGS = [Numbers(value) for value in (3, 1, 2)]


def square(config: Numbers, folder: Path | None) -> dict[str, float]:
    if config.log:
        with open(config.log, "a") as file:
            file.write(f"{config.value}\n")
    if config.value < 0:
        raise ValueError("value must not be negative")
    return {"square": config.value**2}


def squares(*values: int) -> list[dict[str, int]]:
    return [{"square": value**2} for value in values]


def logged(tmp_path: Path, *values: int) -> list[Numbers]:
    return [Numbers(value, str(tmp_path / "log")) for value in values]


def test_results_come_in_the_order_of_the_configurations(tmp_path: Path) -> None:
    assert sweeps.run(square, CONFIGS) == sweeps.run(square, CONFIGS, cache=tmp_path) == squares(3, 1, 2)


def test_a_second_sweep_measures_only_what_is_missing(tmp_path: Path) -> None:
    sweeps.run(square, logged(tmp_path, 1, 2), cache=tmp_path / "cache")
    assert sweeps.run(square, logged(tmp_path, 2, 5, 1), cache=tmp_path / "cache") == squares(2, 5, 1)
    assert (tmp_path / "log").read_text().split() == ["1", "2", "5"]


def test_a_run_that_fails_loses_none_of_the_others(tmp_path: Path) -> None:
    configs = logged(tmp_path, 1, -1, 2)
    with pytest.raises(sweeps.SweepError, match="1 of 3") as caught:
        sweeps.run(square, configs, cache=tmp_path / "cache")
    assert "value=-1" in str(caught.value) and "ValueError: value must not be negative" in str(caught.value)
    with pytest.raises(sweeps.SweepError, match="1 of 3"):
        sweeps.run(square, configs, cache=tmp_path / "cache")
    assert (tmp_path / "log").read_text().split() == ["1", "-1", "2", "-1"]


def kill_once(config: Numbers, folder: Path | None) -> dict[str, int]:
    mark = Path(config.log)
    if config.value == 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), 9)
    return {"square": config.value**2}


def test_a_killed_worker_loses_none_of_the_finished_runs(tmp_path: Path) -> None:
    configs = [Numbers(value, str(tmp_path / "killed")) for value in (1, 2, 3)]
    with joblib.parallel_config(backend="loky", n_jobs=2):
        sweeps.run(kill_once, configs[:1], cache=tmp_path)
        with pytest.raises(joblib.externals.loky.process_executor.TerminatedWorkerError):
            sweeps.run(kill_once, configs, cache=tmp_path)
        assert (
            sweeps.result_file(configs[0], tmp_path).exists() and not sweeps.result_file(configs[1], tmp_path).exists()
        )
        assert sweeps.run(kill_once, configs, cache=tmp_path) == squares(1, 2, 3)


def interrupted_once(config: Numbers, folder: Path | None) -> dict[str, int]:
    state = folder / "state"
    if not state.exists():
        state.write_text("half")
        raise KeyboardInterrupt
    return {"from": state.read_text()}


def test_a_run_goes_on_from_its_own_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        sweeps.run(interrupted_once, CONFIGS[:1], cache=tmp_path)
    assert sweeps.run(interrupted_once, CONFIGS[:1], cache=tmp_path) == [{"from": "half"}]
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]  # nothing else is left


def test_what_another_run_left_in_the_folder_is_refused(tmp_path: Path) -> None:
    for config in CONFIGS[:2]:
        with pytest.raises(KeyboardInterrupt):
            sweeps.run(interrupted_once, [config], cache=tmp_path)
    first, second = (sweeps.result_file(config, tmp_path).with_suffix("") for config in CONFIGS[:2])
    (first / "run.json").replace(second / "run.json")
    with pytest.raises(sweeps.SweepError, match="value: 3 there, 1"):
        sweeps.run(interrupted_once, CONFIGS[1:2], cache=tmp_path)


def not_finite(config: Numbers, folder: Path | None) -> float:
    return float("nan")


def test_a_result_that_json_cannot_hold_is_a_failure_with_and_without_a_cache(tmp_path: Path) -> None:
    for cache in (None, tmp_path):
        with pytest.raises(sweeps.SweepError, match="JSON"):
            sweeps.run(not_finite, CONFIGS[:1], cache=cache)


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    sweeps.run(square, CONFIGS, cache=tmp_path)
    damaged = sweeps.result_file(CONFIGS[0], tmp_path)
    damaged.write_text(json.dumps({"square": 9})[:-3])
    with pytest.raises(sweeps.SweepError, match=f"{damaged.name} is damaged"):
        sweeps.run(square, CONFIGS, cache=tmp_path)


@dataclass(frozen=True)
class Richer(Numbers):
    """The same with a field that came later."""

    colour: str = "grey"


Richer.__name__ = "Numbers"  # as if it had always been there


def test_a_new_field_with_a_default_leaves_what_is_kept_current(tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    sweeps.run(square, [Numbers(3, log)], cache=tmp_path / "cache")
    assert sweeps.run(square, [Richer(3, log)], cache=tmp_path / "cache") == squares(3)
    assert (tmp_path / "log").read_text().split() == ["3"]
    sweeps.run(square, [Richer(3, log, "red")], cache=tmp_path / "cache")
    assert (tmp_path / "log").read_text().split() == ["3", "3"]


def test_the_result_of_another_configuration_is_refused_and_what_differs_named(tmp_path: Path) -> None:
    sweeps.run(square, CONFIGS[:2], cache=tmp_path)
    sweeps.result_file(CONFIGS[0], tmp_path).replace(sweeps.result_file(CONFIGS[1], tmp_path))
    with pytest.raises(sweeps.SweepError, match="value: 3 there, 1"):
        sweeps.run(square, CONFIGS[1:2], cache=tmp_path)


def where(config: Numbers, folder: Path | None) -> dict[str, int]:
    return {"process": os.getpid(), "square": config.value**2}


def test_a_cluster_of_two_dask_workers_is_one_line(tmp_path: Path) -> None:
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path), memory_limit=0
    )
    with cluster, distributed.Client(cluster):
        with joblib.parallel_config(backend="dask"):
            found = sweeps.run(where, [Numbers(value) for value in range(6)], cache=tmp_path / "cache")
    assert [result["square"] for result in found] == [value**2 for value in range(6)]
    assert os.getpid() not in {result["process"] for result in found}


def no_network(config: Numbers, folder: Path | None) -> None:
    raise (ConnectionError if config.value > 1 else ValueError)(f"no {config.value}")


def test_what_could_not_be_downloaded_is_an_error_of_its_own() -> None:
    with pytest.raises(ConnectionError, match="no 3"):
        sweeps.run(no_network, [Numbers(3), Numbers(2)])
    with pytest.raises(sweeps.SweepError, match="ValueError: no 1"):  # else a failure would go unseen
        sweeps.run(no_network, CONFIGS)
