"""The run folder: what is written while a model trains, and what may be replaced."""

import csv
import json

import pytest
import yaml

from mindspore_floodx.errors import UserError
from mindspore_floodx.runs import LOG_COLUMNS, RunFolder, is_finished
from mindspore_floodx.settings import TrainSettings

STEP = {"step": 1, "epoch": 1, "loss": 0.69314718056, "flooded": 0, "learning_rate": 2e-5, "tokens_per_second": 1234.5}


def settings(tmp_path, **more):
    return TrainSettings(**{"output_dir": str(tmp_path / "runs" / "one"), "seed": 7, "threads": 2} | more)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def fill(path):
    """A finished run, with everything that later steps put beside it."""
    for name in ("export", "attacks/textfooler", "checkpoint", "checkpoints/epoch-1", "plots"):
        (path / name).mkdir(parents=True)
    for name in ("epochs.csv", "attacks/textfooler/summary.json", "checkpoint/config.json"):
        (path / name).write_text("old")


def test_what_is_written_and_when(tmp_path):
    given = settings(tmp_path)
    folder = RunFolder(given)
    folder.write_environment(given, {"train": {"sha256": "ab"}})
    folder.log_step(STEP)
    assert rows(folder.path / "log.csv") == [  # readable while the run goes on
        {
            "step": "1",
            "epoch": "1",
            "loss": "0.6931472",
            "flooded": "0",
            "learning_rate": "2e-05",
            "tokens_per_second": "1234.5",
        }
    ]
    assert not (folder.path / "epochs.csv").exists()
    folder.log_epoch({"epoch": 1, "train_loss": 0.5, "eval_loss": 0.4, "eval_accuracy": 0.75, "seconds": 1.5}, step=1)
    folder.close()
    assert (folder.path / "log.csv").read_text().splitlines()[0] == ",".join(LOG_COLUMNS)
    assert (folder.path / "epochs.csv").read_text() == (
        "epoch,train_loss,eval_loss,eval_accuracy,seconds\n1,0.5,0.4,0.75,1.5\n"
    )
    assert TrainSettings(**yaml.safe_load((folder.path / "config.yaml").read_text())) == given
    environment = json.loads((folder.path / "environment.json").read_text())
    assert (environment["device"], environment["threads"], environment["seed"]) == ("CPU", 2, 7)
    assert environment["data"] == {"train": {"sha256": "ab"}}
    assert environment["packages"]["mindspore"].startswith("2.") and environment["python"].startswith("3.")


def test_tensorboard_shows_the_same_numbers(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = RunFolder(settings(tmp_path))
    for step in (1, 2, 3):
        folder.log_step(STEP | {"step": step, "loss": 1.0 / step})
    folder.log_epoch({"epoch": 1, "train_loss": 0.5, "eval_loss": 0.4, "eval_accuracy": 0.75, "seconds": 1.0}, step=3)
    folder.close()
    events = EventAccumulator(str(folder.path / "tensorboard")).Reload()
    assert set(events.Tags()["tensors"]) | set(events.Tags()["scalars"]) == {
        "train/loss",
        "train/learning_rate",
        "train/tokens_per_second",
        "eval/loss",
        "eval/accuracy",
    }

    def points(tag):
        if tag in events.Tags()["scalars"]:
            return [(event.step, event.value) for event in events.Scalars(tag)]
        return [(event.step, event.tensor_proto.float_val[0]) for event in events.Tensors(tag)]

    assert points("train/loss") == [(step, pytest.approx(1.0 / step)) for step in (1, 2, 3)]
    assert points("eval/accuracy") == [(3, 0.75)]


def test_tensorboard_shows_no_step_twice_of_a_run_that_went_on(tmp_path):
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator  # the one of its server

    folder = RunFolder(settings(tmp_path))
    folder.log_step(STEP | {"step": 1})
    sizes = folder.sizes()
    for step in (2, 3):
        folder.log_step(STEP | {"step": step})
    folder.close()  # what a killed process wrote after its last state
    again = RunFolder(settings(tmp_path), sizes)
    for step in (2, 3, 4):
        again.log_step(STEP | {"step": step})
    again.close()
    events = EventAccumulator(str(folder.path / "tensorboard")).Reload()
    assert [event.step for event in events.Tensors("train/loss")] == [1, 2, 3, 4]


def test_a_finished_run_is_only_replaced_when_asked(tmp_path):
    folder = RunFolder(settings(tmp_path))
    folder.log_step(STEP)
    folder.close()
    fill(folder.path)
    (folder.path / "state").mkdir()
    with pytest.raises(UserError, match="holds a finished run; choose another --output-dir, or add --overwrite"):
        RunFolder(settings(tmp_path))
    assert not (folder.path / "state").exists()  # left by a process that was killed at its very end
    assert len(rows(folder.path / "log.csv")) == 1
    RunFolder(settings(tmp_path, overwrite=True)).close()
    # nothing of the old model is left to be taken for the new one's
    assert {path.name for path in folder.path.iterdir()} == {"config.yaml", "log.csv"}
    assert rows(folder.path / "log.csv") == []


def test_an_unfinished_run_without_a_state_is_begun_again_and_its_checkpoint_stays_meanwhile(tmp_path):
    folder = RunFolder(settings(tmp_path))
    folder.close()
    fill(folder.path)
    (folder.path / "export").rmdir()
    RunFolder(settings(tmp_path)).close()
    assert {path.name for path in folder.path.iterdir()} == {"config.yaml", "log.csv", "checkpoint"}


def test_a_run_that_goes_on_keeps_its_logs_as_far_as_its_state(tmp_path):
    folder = RunFolder(settings(tmp_path))
    folder.log_step(STEP)
    folder.log_epoch({"epoch": 1, "seconds": 0.5}, step=1)
    sizes = folder.sizes()
    written = {name: (folder.path / name).read_bytes() for name in ("log.csv", "epochs.csv")}
    assert sizes == {name: len(content) for name, content in written.items()}
    folder.log_step(STEP)
    folder.log_epoch({"epoch": 2, "seconds": 0.5}, step=2)
    folder.close()
    (folder.path / ".config-ab12_34z.yaml").write_text("of a killed process")
    (folder.path / ".checkpoint-old-ab12_34z").mkdir()
    (folder.path / "checkpoints" / ".epoch-12-ab12_34z").mkdir(parents=True)
    (folder.path / ".gitignore").write_text("the user's")
    for _ in range(2):  # also when it is stopped again before anything was added
        again = RunFolder(settings(tmp_path), sizes)
        assert again.sizes() == sizes
        again.close()
    assert {name: (folder.path / name).read_bytes()[: sizes[name]] for name in written} == written
    assert rows(folder.path / "log.csv") == rows(folder.path / "log.csv")[:1]
    again = RunFolder(settings(tmp_path), sizes)
    again.log_step(STEP)
    again.log_epoch({"epoch": 2, "seconds": 0.5}, step=2)
    again.close()
    assert len(rows(folder.path / "log.csv")) == len(rows(folder.path / "epochs.csv")) == 2
    names = {path.name for path in folder.path.iterdir()}
    assert names == {"config.yaml", "log.csv", "epochs.csv", "tensorboard", "checkpoints", ".gitignore"}
    assert not list((folder.path / "checkpoints").iterdir())


def test_a_run_that_was_killed_before_its_first_log_is_a_run(tmp_path):
    path = tmp_path / "runs" / "one"
    path.mkdir(parents=True)
    (path / ".lock").touch()
    RunFolder(settings(tmp_path)).close()
    (path / "log.csv").write_text("")
    RunFolder(settings(tmp_path)).close()
    assert (path / "log.csv").read_text() == ",".join(LOG_COLUMNS) + "\n"


def test_runs_of_an_older_version_are_still_finished(tmp_path):
    """Settings that came later have their default there, and how often the state is written does not matter."""
    given = settings(tmp_path)
    RunFolder(given).close()
    path = tmp_path / "runs" / "one"
    (path / "environment.json").write_text('{"data": {}}')
    (path / "export").mkdir()
    old = {name: value for name, value in given.to_dict().items() if not name.startswith("checkpoint_every")}
    (path / "config.yaml").write_text(yaml.safe_dump(old))
    assert is_finished(given, {}) and is_finished(settings(tmp_path, checkpoint_every_steps=3))
    assert not is_finished(settings(tmp_path, epochs=3)) and not is_finished(given, {"train": {}})


@pytest.mark.parametrize("overwrite", [False, True])
def test_other_peoples_folders_and_files_are_left_alone(tmp_path, overwrite):
    given = settings(tmp_path, overwrite=overwrite)
    path = tmp_path / "runs" / "one"
    fill(path)
    (path / "config.yaml").write_text("theirs")
    with pytest.raises(UserError, match="holds files that are no run's"):
        RunFolder(given)
    assert (path / "checkpoint" / "config.json").read_text() == "old"
    with pytest.raises(UserError, match="is a file; a run needs a folder"):
        RunFolder(settings(tmp_path, output_dir=str(path / "config.yaml"), overwrite=overwrite))
    with pytest.raises(UserError, match=r"cannot write .*Not a directory"):
        RunFolder(settings(tmp_path, output_dir=str(path / "config.yaml" / "run"), overwrite=overwrite))
    assert (path / "config.yaml").read_text() == "theirs"


@pytest.mark.parametrize("before", ["", "mindnlp:"])
@pytest.mark.parametrize("model", ["", "checkpoint"])
def test_the_model_to_train_is_not_replaced(tmp_path, model, before):
    RunFolder(settings(tmp_path)).close()
    model = before + str(tmp_path / "runs" / "one" / model)
    with pytest.raises(UserError, match="holds the model to train"):
        RunFolder(settings(tmp_path, model=model, overwrite=True))
