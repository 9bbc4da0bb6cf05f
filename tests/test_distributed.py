"""Two workers, and micro-batches, train like one process: the same losses, decisions, accordance and files."""

import json
import os
import signal
import time

import numpy as np
import pytest
from distributed_job import Job
from training_files import make_training_files, rows

from mindspore_floodx import train
from mindspore_floodx.device import use_device
from mindspore_floodx.errors import UserError
from mindspore_floodx.settings import resolve
from mindspore_floodx.trainer import _demand_divisible

use_device("CPU", 1)
SIZES = [8, 8, 8, 8, 2]  # of two workers with two micro-batches each some are empty in the last batch
METHODS = {
    "flooding": {"flood_level": 0.69, "gradient_accumulation_steps": 2, "accordance": "snapshot", "sub_epochs": 1},
    "floodingx": {
        "sub_epochs": 2,
        "flood_window": 2,
        "flood_margin": 0.0,
        "flood_patience": 1,
        "flood_deviations": 0.0,
    },
    "freelb": {"gradient_accumulation_steps": 2},
}
TIMES = ("tokens_per_second", "seconds")


@pytest.fixture(scope="module")
def given(minilm_folder, tmp_path_factory):
    """Settings of a run without dropout."""
    folder = tmp_path_factory.mktemp("files")
    settings = make_training_files(folder, minilm_folder)
    config = json.loads((folder / "model" / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "model" / "config.json").write_text(json.dumps(config))
    return settings | {"max_train_examples": sum(SIZES)}


def demand_alike(run, other, tolerance=1e-5):
    """Checks that two runs left the same files, and the same numbers in their tables but for a rounding."""
    assert {path.name for path in run.iterdir()} - {".lock"} == {path.name for path in other.iterdir()} - {".lock"}
    for table in run.glob("*.csv"):
        mine, theirs = rows(table), rows(other / table.name)
        assert len(mine) == len(theirs) > 0, table.name
        for one, two in zip(mine, theirs, strict=True):
            for name in one.keys() - set(TIMES):
                try:
                    equal = float(two[name]) == pytest.approx(float(one[name]), rel=tolerance, abs=1e-9, nan_ok=True)
                except ValueError:
                    equal = one[name] == two[name]
                assert equal, f"{table.name} {name}: {one} and {two}"


def first_method(runs):
    return min(run.name.removeprefix("two-") for run in runs.glob("two-*"))


class TestTwoWorkers:
    @pytest.fixture(
        scope="class",
        params=[["flooding"], pytest.param(["floodingx", "freelb"], marks=pytest.mark.slow)],
        ids="-".join,
    )
    def runs(self, given, tmp_path_factory, request):
        """For each method the run of two workers, with micro-batches where METHODS says so, and that of one process."""
        folder = tmp_path_factory.mktemp("runs")
        each = [given | METHODS[method] | {"method": method} for method in request.param]
        job = Job(
            [settings | {"output_dir": f"{folder}/two-{settings['method']}"} for settings in each], folder / "job"
        )
        for settings in each:
            whole = settings | {"output_dir": f"{folder}/one-{settings['method']}", "gradient_accumulation_steps": 1}
            train(**whole)
        assert job.end() == 0, job.all_said()
        return folder

    def test_the_trajectory_is_that_of_one_process(self, runs):
        for two in runs.glob("two-*"):
            method = two.name.removeprefix("two-")
            self.demand_same_trajectory(runs / f"one-{method}", two, method)

    def demand_same_trajectory(self, one, two, method):
        demand_alike(one, two)
        if method == "flooding":
            assert {row["flooded"] for row in rows(one / "log.csv")} == {"0", "1"}  # both turns are taken
        if method == "floodingx":
            decisions = [json.loads((run / "flood_level.json").read_text()) for run in (one, two)]
            assert decisions[0]["sub_epoch"] == decisions[1]["sub_epoch"]
            levels = [decision["level"] for decision in decisions]  # None: no turn
            assert levels[0] == levels[1] or levels[1] == pytest.approx(levels[0], rel=1e-5)
            assert decisions[1]["accordance"] == pytest.approx(decisions[0]["accordance"], rel=1e-5)

    def test_the_models_are_alike(self, runs):
        from safetensors.numpy import load_file

        method = first_method(runs)
        one, two = (load_file(runs / f"{name}-{method}" / "export" / "model.safetensors") for name in ("one", "two"))
        for name in one:
            # the gradient of a key's bias is 0 but for roundings, which Adam scales up
            assert np.abs(one[name] - two[name]).max() < (1e-3 if name.endswith("key.bias") else 1e-5), name

    def test_one_worker_writes_and_speaks(self, runs):
        environment = json.loads((runs / f"two-{first_method(runs)}" / "environment.json").read_text())
        assert environment["workers"] == 2
        first, second = (runs / "job" / f"worker_{rank}.log" for rank in range(2))
        assert "batch 8, on 2 workers (CPU) in 2 micro-batches" in first.read_text()
        assert "train_loss" not in second.read_text() and "epoch" not in second.read_text()


def test_methods_that_see_a_batch_as_a_whole_refuse(given):
    for method in ("tavat", "infobert"):
        with pytest.raises(UserError, match=f"method {method} looks at a batch as a whole"):
            _demand_divisible(resolve(given | {"method": method, "gradient_accumulation_steps": 2}))
    _demand_divisible(resolve(given | {"method": "tavat"}))


@pytest.mark.slow
def test_a_killed_worker_and_other_numbers_of_workers(given, tmp_path):
    """Worker 1 is killed; a worker that is told to stop stops all; other numbers go on, and the end is the same."""
    settings = given | {"method": "flooding", "flood_level": 0.72, "epochs": 6, "checkpoint_every_steps": 2}
    train(**settings, output_dir=str(tmp_path / "whole"))
    run = tmp_path / "run"
    training = settings | {"output_dir": str(run)}

    killed = Job([training], tmp_path / "killed", patience=60)
    _wait(killed, run, 5)
    os.kill(killed.worker(1), signal.SIGKILL)
    assert killed.end() != 0
    assert "exit with exception. Error code: -9" in killed.said("msrun.txt")
    assert list((run / "state").glob("step-*.safetensors")) and not (run / "export").exists()

    stopped = Job([training], tmp_path / "stopped", patience=60)
    _wait(stopped, run, 10)
    os.kill(stopped.worker(1), signal.SIGTERM)
    assert stopped.end() != 0
    assert "going on at step " in stopped.said()
    assert "stopped by SIGTERM; after step " in stopped.said() + stopped.said("worker_1.log")
    assert int(max((run / "state").glob("step-*")).stem[5:]) == len(rows(run / "log.csv"))  # written at the stop
    train(**training)
    demand_alike(tmp_path / "whole", run)


@pytest.mark.slow
def test_workers_skip_the_same_steps(given, tmp_path):
    """An overflow of one worker is one of all: the job checks after each epoch that its models are equal."""
    half = {"precision": "float16", "loss_scale": 2.0**24, "loss_scale_steps": 2}
    each = [
        given | half | more | {"output_dir": str(tmp_path / more["method"])}
        for more in ({"method": "pgd"}, {"method": "finetune", "accordance": "online"})
    ]
    job = Job(each, tmp_path / "job")
    assert job.end() == 0, job.all_said()
    for settings in each:
        log = rows(tmp_path / settings["method"] / "log.csv")
        assert log[0]["skipped"] == "1" and {row["skipped"] for row in log} == {"0", "1"}


def _wait(job, run, steps):
    log = run / "log.csv"
    while job.process.poll() is None and (not log.exists() or log.read_bytes().count(b"\n") <= steps):
        time.sleep(0.05)
    assert job.process.poll() is None, job.all_said()
