"""The state that a stopped run goes on from: the file, what it refuses, and that every method's is complete."""

import itertools
import json
import resource
import shutil

import numpy as np
import pytest
from training_files import make_training_files, rows

from mindspore_floodx import run_state
from mindspore_floodx.errors import UserError
from mindspore_floodx.lock import locked

ARRAYS = {
    "model/weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "optimizer/step": np.array(3, np.int32),
    "accordance/accordance": np.array([0.5, np.nan]),
}


def same(first, second):
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert array.dtype == second[name].dtype and array.shape == second[name].shape, name
        assert array.tobytes() == second[name].tobytes(), name


class TestTheFile:
    def test_what_was_written_is_read_and_two_are_kept(self, tmp_path):
        assert run_state.load(tmp_path) is None
        for step in (3, 12, 100):
            (tmp_path / "state").mkdir(exist_ok=True)
            (tmp_path / "state" / ".step-000000003-abcdefgh.safetensors").write_text("of a killed process")
            run_state.save(tmp_path, step, {"step": step, "loss": 0.1}, ARRAYS)
        assert sorted(path.name for path in (tmp_path / "state").iterdir()) == [
            "step-000000012.safetensors",
            "step-000000100.safetensors",
        ]
        found = run_state.load(tmp_path)
        assert found.progress == {"step": 100, "loss": 0.1}
        same(found.arrays, ARRAYS)

    @pytest.mark.parametrize("harm", ["cut", "flipped", "empty", "gone"])
    def test_a_damaged_file_gives_way_to_the_one_before(self, tmp_path, harm):
        for step in (1, 2):
            last = run_state.save(tmp_path, step, {"step": step}, ARRAYS)
        content = bytearray(last.read_bytes())
        if harm == "flipped":
            content[-3] ^= 1
        last.write_bytes({"cut": content[:-4], "flipped": content, "empty": b""}.get(harm, b"") or b"")
        if harm == "gone":
            last.unlink()
        assert run_state.load(tmp_path).progress == {"step": 1}
        for path in (tmp_path / "state").iterdir():
            path.write_bytes(b"{}")
        with pytest.raises(UserError, match=r"is damaged.*--overwrite"):
            run_state.load(tmp_path)

    def test_what_is_not_finite_is_not_written(self, tmp_path):
        run_state.save(tmp_path, 1, {}, ARRAYS)
        poisoned = ARRAYS | {"model/weight": np.array([1, np.inf], np.float32)}
        with pytest.raises(UserError, match=r"weight is no longer finite after step 2.*last good one is of step 1"):
            run_state.save(tmp_path, 2, {}, poisoned)
        assert [path.name for path in (tmp_path / "state").iterdir()] == ["step-000000001.safetensors"]

    def test_a_disk_that_takes_no_more(self, tmp_path):
        """A limit of the system on the size of files, not a stand-in for it."""
        run_state.save(tmp_path, 1, {"step": 1}, ARRAYS)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        try:
            with pytest.raises(UserError) as refused:
                run_state.save(tmp_path, 2, {}, {"model/large": np.zeros(100_000, np.float32)})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        message = str(refused.value)
        assert message.startswith(f"cannot write the run's state to {tmp_path / 'state'}: ") and "\n" not in message
        assert "give the same command again (the last good one is of step 1" in message
        assert [path.name for path in (tmp_path / "state").iterdir()] == ["step-000000001.safetensors"]
        assert run_state.load(tmp_path).progress == {"step": 1}


# Runs of real steps. A state is loaded into the run that has gone on meanwhile: whatever is missing in it has moved.


@pytest.fixture(scope="module")
def given(minilm_folder, tmp_path_factory):
    return make_training_files(tmp_path_factory.mktemp("small"), minilm_folder)


def begin(given, folder, **more):
    from mindspore_floodx.device import use_device
    from mindspore_floodx.pretrained import find_model
    from mindspore_floodx.settings import resolve
    from mindspore_floodx.trainer import _Training
    from mindspore_floodx.training_inputs import load_data

    use_device("CPU", 1)
    settings = resolve(given | {"output_dir": str(folder)} | more)
    return _Training(settings, load_data(settings), find_model(settings.model))


def go(training, steps):
    """Trains for so many steps of an epoch and returns everything that the next one depends on, and the losses."""
    losses = []
    for batch in itertools.islice(training._batches(training.place.epoch, training.place.within), steps):
        training._step(batch)
        losses.append(training.place.losses)
        if training.place.sub_epoch_due:
            training._end_sub_epoch_within()
    monitor = training.monitor.state() if training.monitor else {}
    return {
        "losses": np.array(losses),
        **training.model.state(),
        **{f"optimizer/{name}": value for name, value in run_state.values(training._of_optimizer()).items()},
        **{f"defence/{name}": value for name, value in training.defence.training_state().items()},
        **{f"accordance/{name}": value for name, value in monitor.items()},
    }


METHODS = {
    "floodingx": {"accordance": "online", "sub_epochs": 2},
    "freelb": {
        "freelb_shared_dropout": True,
        "adversarial_steps": 2,
        "accordance": "snapshot",  # nothing is measured before the end of its one sub-epoch
        "sub_epochs": 1,
    },
    "tavat": {"adversarial_steps": 2},
    "infobert": {"adversarial_steps": 2},
}


@pytest.mark.parametrize("method", METHODS)
def test_steps_from_a_state_are_the_steps_that_were_taken(given, tmp_path, method):
    training = begin(given, tmp_path / "run", method=method, **METHODS[method])
    go(training, 1)
    training._checkpoint()
    first = {name: value.copy() for name, value in go(training, 3).items()}
    found = run_state.load(tmp_path / "run")
    assert json.loads(json.dumps(found.progress))["place"]["within"] == 1
    training._restore(found)
    seen = training.monitor._batches if training.monitor else []
    assert len(seen) == (1 if method == "freelb" else 0)
    again = go(training, 3)
    same(first, again)
    for batch, expected in zip(seen, training._batches(0, 0), strict=False):
        np.testing.assert_array_equal(batch["input_ids"], expected["input_ids"])
    learned = {"tavat": "defence/tavat_table", "infobert": "defence/moment1.0.mean.0.weight"}.get(method)
    if learned:
        assert (first[learned] != found.arrays[learned]).any()
    if method == "floodingx":
        fresh_after_the_turn(given, training)
    training.folder.close()


def fresh_after_the_turn(given, training):
    """A run that floods goes on flooding, in another object."""
    from mindspore_floodx.flood_level import FloodLevel

    training.saved_step = 0
    training.flood_at(FloodLevel(**dict.fromkeys(FloodLevel.__dataclass_fields__) | {"level": 0.625, "reason": "test"}))
    go(training, 1)
    training._checkpoint()
    fresh = begin(given, training.folder.path, method="floodingx", **METHODS["floodingx"])
    assert fresh.step == 5 and not fresh.seeks_level and fresh.monitor.online is None
    assert fresh.defence.flood_level == 0.625
    assert float(fresh.defence.step.direction.flood_level.asnumpy()) == 0.625
    assert fresh.monitor.accordance == training.monitor.accordance
    same(fresh.model.state(), training.model.state())
    fresh.folder.close()


@pytest.fixture(scope="module")
def unfinished(given, tmp_path_factory):
    """A run whose state is of its second step, and its folder."""
    training = begin(given, tmp_path_factory.mktemp("unfinished") / "run")
    go(training, 2)
    training._checkpoint()
    go(training, 1)
    training.folder.close()
    return training.folder.path


def test_the_log_is_cut_to_the_state(given, unfinished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(unfinished, run)
    (run / ".checkpoint-abc_1234").mkdir()
    assert len(rows(run / "log.csv")) == 3
    training = begin(given, run)
    assert training.step == 2 and len(rows(run / "log.csv")) == 2
    assert f"going on at step 2 of 10 from {run / 'state' / 'step-000000002.safetensors'}" in training._describe()
    assert not (run / ".checkpoint-abc_1234").exists()
    training.folder.close()
    (run / "log.csv").write_text("step,epoch,loss\n")
    with pytest.raises(UserError, match=r"log.csv is shorter than when .*--overwrite"):
        begin(given, run)


def test_other_settings_or_data_are_refused_and_lose_nothing(given, unfinished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(unfinished, run)
    before = (run / "log.csv").read_bytes()
    with pytest.raises(UserError) as refused:
        begin(given, run, learning_rate=0.5)
    assert "an unfinished run with other settings (learning_rate 0.001 there and 0.5 here); give the same" in str(
        refused.value
    )
    other = tmp_path / "test.csv"
    other.write_text((tmp_path / given["eval_file"]).read_text().replace("good", "bad", 1))
    with pytest.raises(UserError, match="an unfinished run with other data"):
        begin(given, run, eval_file=str(other))
    assert (run / "log.csv").read_bytes() == before and (run / "state").exists()
    begin(given, run, checkpoint_every_minutes=0.0, checkpoint_every_steps=3).folder.close()
    training = begin(given, run, learning_rate=0.5, overwrite=True)
    assert training.step == 0 and rows(run / "log.csv") == [] and not (run / "state").exists()
    training.folder.close()


def test_a_second_command_on_the_folder_is_refused(given, unfinished):
    from mindspore_floodx import train

    with locked(unfinished), pytest.raises(UserError, match=r"process \d+ on .* is writing to"):
        train(**given | {"output_dir": str(unfinished)})
