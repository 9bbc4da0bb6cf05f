"""Runs with accordance and Flooding-X, from the settings to the files of the run folder; a model of one layer."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from training_files import command_line, make_training_files

from mindspore_floodx import BertConfig, GradientAccordance, measure_accordance, train
from mindspore_floodx.accordance_of_run import _demand_same_classes
from mindspore_floodx.cli import accordance as accordance_command
from mindspore_floodx.cli import sweep as sweep_command
from mindspore_floodx.device import use_device
from mindspore_floodx.errors import UserError
from mindspore_floodx.files import write_json
from mindspore_floodx.monitor import sub_epoch_ends
from mindspore_floodx.settings import TrainSettings, resolve

use_device("CPU", 1)
EASY = {"flood_window": 2, "flood_margin": 0.0, "flood_deviations": 0.0, "flood_patience": 1}  # any rise is a turn


@pytest.fixture(scope="module")
def given(minilm_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("floodingx")
    return make_training_files(folder, minilm_folder) | {"sub_epochs": 2, "epochs": 3}


@pytest.fixture(scope="module")
def switched(given, tmp_path_factory):
    """Flooding-X in one run, with both ways of measuring."""
    folder = tmp_path_factory.mktemp("runs") / "switched"
    return train(**given, **EASY, method="floodingx", accordance="both", output_dir=str(folder), save_every_epoch=True)


def test_sub_epochs_have_two_steps_at_least_and_end_with_the_epoch():
    assert sub_epoch_ends(125, 4) == [31, 62, 94, 125]
    assert sub_epoch_ends(5, 4) == [2, 5]
    assert sub_epoch_ends(1, 4) == [1]


def test_one_run_switches_flooding_on_at_the_turn(switched):
    decision = json.loads((switched / "flood_level.json").read_text())
    assert decision["fired"] and decision["runs"] == 1 and decision["measured"] == "online"
    rows, log = pd.read_csv(switched / "accordance.csv"), pd.read_csv(switched / "log.csv")
    assert decision["level"] == pytest.approx(rows["train_loss"][decision["sub_epoch"] - 2], rel=1e-6)
    assert decision["reason"].startswith("accordance left its plateau")
    since = int(rows["step"][decision["confirmed"] - 1])
    assert (log["flooded"][:since] == 0).all()
    np.testing.assert_array_equal(log["flooded"][since:], log["loss"][since:] < decision["level"])


def test_a_row_for_each_sub_epoch(switched):
    rows, epochs = pd.read_csv(switched / "accordance.csv"), pd.read_csv(switched / "epochs.csv")
    assert list(rows["sub_epoch"]) == [1, 2, 3, 4, 5, 6] and list(rows["step"]) == [2, 5, 7, 10, 12, 15]
    assert list(rows["epoch"]) == [1, 1, 2, 2, 3, 3]
    known = rows["eval_loss"].notna()
    assert list(known) == [False, True] * 3  # evaluated at the ends of epochs
    np.testing.assert_allclose(rows["eval_loss"][known], epochs["eval_loss"], rtol=1e-6)
    log = pd.read_csv(switched / "log.csv")
    assert rows["train_loss"][0] == pytest.approx(log["loss"][:2].mean(), rel=1e-6)
    confirmed = json.loads((switched / "flood_level.json").read_text())["confirmed"]
    assert rows["accordance"][:confirmed].between(-1, 1).all()
    assert rows["accordance"][confirmed:].isna().all()  # flooding's own steps are not measured online
    assert rows["snapshot"].between(-1, 1).all()
    classes = pd.read_csv(switched / "accordance_classes.csv")
    first = classes[(classes["sub_epoch"] == 1) & (classes["measured"] == "online")]
    matrix = first.pivot(index="class_a", columns="class_b", values="accordance").to_numpy()
    assert matrix[0, 1] == matrix[1, 0] == pytest.approx(rows["accordance"][0], rel=1e-6)
    assert (switched / "plots" / "accordance.png").stat().st_size > 10_000


@pytest.mark.slow  # .ci/run does it with MiniLM
def test_measuring_a_finished_run(switched, capsys):
    rows = measure_accordance(switched, num_batches=4, batch_matrix=True, every_epoch=True, parameters="classifier")
    assert [row["checkpoint"] for row in rows] == ["epoch-1", "epoch-2", "epoch-3"]
    for row in rows:
        matrix = np.array(row["batch_matrix"], float)
        across = matrix[~np.eye(4, dtype=bool)]
        assert row["accordance"] == pytest.approx(across.mean(), abs=1e-5)  # every batch has both classes
        assert row["batches"] == 4 and np.isnan(np.diagonal(matrix)).all()
        assert row["accordance_of_parameters"] != row["accordance"]
    assert json.loads((switched / "accordance" / "accordance.json").read_text()) == rows
    assert (switched / "accordance" / "batches-epoch-3.png").exists()
    assert accordance_command.main([str(switched), "--rules-only"]) == 0
    said = capsys.readouterr().out
    for word in ("turns-negative", "turns-positive", "change-point", "snapshot", "flood level"):
        assert word in said


def test_two_runs_measure_and_then_train_from_scratch(given, tmp_path, capsys):
    settings = given | EASY | {"method": "floodingx", "floodingx_runs": 2, "epochs": 2, "flood_margin": 2.0}
    run = train(**settings, output_dir=str(tmp_path / "two"))
    decision = json.loads((run / "flood_level.json").read_text())
    assert decision["runs"] == 2 and not decision["fired"] and "fall-back" in decision["reason"]
    assert json.loads((tmp_path / "two-measurement" / "flood_level.json").read_text()) == decision
    measured = pd.read_csv(tmp_path / "two-measurement" / "accordance.csv")
    assert decision["level"] == pytest.approx(measured["train_loss"][decision["sub_epoch"] - 2], rel=1e-6)
    log = pd.read_csv(run / "log.csv")
    np.testing.assert_array_equal(log["flooded"], log["loss"] < decision["level"])  # from the first step on
    stamp = (tmp_path / "two-measurement" / "log.csv").stat().st_mtime_ns
    train(**settings, output_dir=str(run), overwrite=True)
    assert (tmp_path / "two-measurement" / "log.csv").stat().st_mtime_ns == stamp  # not measured again


def test_no_turn_is_said_and_the_run_is_fine_tuning(given, tmp_path, capsys):
    run = train(**given | {"epochs": 1}, method="floodingx", output_dir=str(tmp_path / "none"))
    decision = json.loads((run / "flood_level.json").read_text())
    assert decision["level"] is None and not decision["fired"]
    assert (pd.read_csv(run / "log.csv")["flooded"] == 0).all()
    assert "flooding was never switched on" in capsys.readouterr().out


@pytest.mark.slow
def test_only_every_second_step_measured(given, tmp_path, monkeypatch):
    model = tmp_path / "model"
    shutil.copytree(given["model"], model)
    config = json.loads((model / "config.json").read_text())
    write_json(model / "config.json", config | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    sizes = []
    add = GradientAccordance.add
    monkeypatch.setattr(
        GradientAccordance, "add", lambda self, batch: sizes.append(len(batch["labels"])) or add(self, batch)
    )
    losses = []
    for every, measured in ((1, [8, 8, 8, 8, 5]), (2, [8, 8, 5])):
        settings = given | {"model": str(model), "epochs": 1, "sub_epochs": 1, "accordance": "online"}
        run = train(**settings, accordance_every=every, output_dir=str(tmp_path / f"every-{every}"))
        losses.append(pd.read_csv(run / "log.csv")["loss"])
        assert sizes == measured
        assert -1 <= float(pd.read_csv(run / "accordance.csv")["accordance"][0]) <= 1
        sizes.clear()
    np.testing.assert_allclose(*losses, atol=1e-5)  # measured or not, the steps are the same


def test_settings_that_do_not_fit():
    for settings, message in (
        ({"method": "floodingx", "flood_level": 0.1}, "finds the flood_level itself"),
        ({"method": "floodingx", "accordance": "none"}, "needs the accordance"),
        ({"method": "floodingx", "floodingx_runs": 3}, "choose 1 or 2"),
        ({"method": "floodingx", "flood_window": 1}, "window is 1"),
        ({"method": "flooding", "flood_level": 0.1, "accordance": "both"}, "use --accordance snapshot"),
        ({"accordance": "onlin"}, "did you mean 'online'"),
        ({"flood_rule": "negative"}, "choose one of"),
        ({"sub_epochs": 0}, "sub_epochs is 0"),
        ({"accordance_batches": 1}, "at least 2 batches"),
        ({"accordance_every": 0}, "accordance_every is 0"),
    ):
        with pytest.raises(UserError, match=message):
            resolve(settings)
    assert resolve({"method": "floodingx"}).accordance == "online"
    assert TrainSettings().accordance == "none"


def test_classes_in_another_order_are_refused(tmp_path):
    config = BertConfig(id2label={0: "bad", 1: "good"})
    write_json(tmp_path / "config.json", config.to_dict())
    _demand_same_classes(tmp_path, ["bad", "good"])
    _demand_same_classes(tmp_path, ["negative", "positive"])  # only names differ: the order is the user's word
    with pytest.raises(UserError, match="in the order bad, good, those of the data good, bad"):
        _demand_same_classes(tmp_path, ["good", "bad"])


def test_what_cannot_be_measured_is_one_sentence(switched, tmp_path):
    for path, options, message in (
        (tmp_path / "nothing", {}, "nothing"),
        (switched, {"num_batches": 0}, "num_batches is 0"),
        (tmp_path, {"every_epoch": True, "dataset": "demo"}, "is no run folder"),
    ):
        with pytest.raises(UserError, match=message):
            measure_accordance(path, **options)
    with pytest.raises(UserError, match="was not measured"):
        accordance_command.main([str(tmp_path), "--rules-only"])


class TestSweep:
    def test_levels(self):
        assert sweep_command.levels_of(0.01, 0.05, 0.01) == [0.01, 0.02, 0.03, 0.04, 0.05]
        assert sweep_command.levels_of(0.1, 0.1, 0.01) == [0.1]
        for wrong in ((0.1, 0.01, 0.01), (0.1, 0.2, 0), (-0.1, 0.2, 0.1), (0, float("inf"), 1)):
            with pytest.raises(UserError, match="is no range"):
                sweep_command.levels_of(*wrong)

    def test_wrong_options_before_anything_is_trained(self, tmp_path):
        for options, message in (
            (["--flood-level", "1"], "--flood-level is what the sweep sets"),
            (["--epoch", "1"], "did you mean '--epochs'"),
        ):
            with pytest.raises(UserError, match=message):
                sweep_command.main(["--levels", "0.1", "0.2", "0.1", "--output-dir", str(tmp_path / "s"), *options])
        assert not (tmp_path / "s").exists()

    def test_trains_each_level_once(self, given, tmp_path, capsys):
        options = [*command_line(given | {"epochs": 1}), "--levels", "0.5", "5", "4.5", "--output-dir", str(tmp_path)]
        assert sweep_command.main(options) == 0
        table = pd.read_csv(tmp_path / "sweep.csv")
        assert list(table["flood_level"]) == [0.5, 5.0] and list(table["flooded"]) == [0.0, 1.0]
        stamp = (tmp_path / "level-0.5" / "log.csv").stat().st_mtime_ns
        assert sweep_command.main(options) == 0
        assert (tmp_path / "level-0.5" / "log.csv").stat().st_mtime_ns == stamp
        assert (tmp_path / "sweep.png").stat().st_size > 10_000
