"""What the methods cost: the same batches for all in a moving order, ratios that can be counted again, whole files."""

import json

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from training_files import SIZES, command_line, make_training_files

from mindspore_floodx import measure_timing, timing
from mindspore_floodx.cli import timing as command
from mindspore_floodx.data import load_files
from mindspore_floodx.device import use_device
from mindspore_floodx.encoding import encode, epoch_order, load_tokenizer, make_batch
from mindspore_floodx.errors import UserError, run_command
from mindspore_floodx.plots import plot_timing
from mindspore_floodx.settings import resolve
from mindspore_floodx.timing import TIMED_SETTINGS

use_device("CPU", 1)
GIVEN = ("pgd", "floodingx", "adaflood")
METHODS = ("finetune", *GIVEN)
PASSES = {"finetune": (1, 1), "pgd": (3, 3), "floodingx": (1, 1), "adaflood": (1, 1)}  # K = 2
WARM_UP = 1


@pytest.fixture(scope="module")
def given(minilm_folder, tmp_path_factory):
    """Settings that name data and model."""
    made = make_training_files(tmp_path_factory.mktemp("timing"), minilm_folder)
    return {name: value for name, value in made.items() if name in TIMED_SETTINGS}


@pytest.fixture(scope="module")
def measured(given, tmp_path_factory):
    """The folder that the command wrote, and which method took a step on which batch, in order."""
    folder, taken, take = tmp_path_factory.mktemp("results") / "new", [], timing._Method.take

    def spied(self, batch):
        taken.append((self.name, batch["input_ids"].tobytes(), int(batch["attention_mask"].sum())))
        return take(self, batch)

    words = ["--methods", *GIVEN, "--adversarial-steps", "2", "--batches", "3", "--warm-up", str(WARM_UP)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing._Method, "take", spied)
        patch.setattr(timing.sys, "argv", ["timing.py", *words, "--data-dir", "/home/me/glue"])
        assert command.main([*command_line(given), *words, "--output-dir", str(folder)]) == 0
    return folder, taken


@pytest.fixture(scope="module")
def result(measured):
    return json.loads((measured[0] / "timing.json").read_text(encoding="utf-8"))


@pytest.fixture
def no_compiling(monkeypatch):
    def late(*_):
        raise AssertionError("compiled")

    monkeypatch.setattr(timing._Method, "compile", late)


def test_fine_tuning_is_added_and_first(result):
    assert [row["method"] for row in result["rows"]] == list(METHODS) == result["settings"]["methods"]
    assert result["rows"][0]["ratio"] == result["rows"][0]["cpu_ratio_median"] == 1


def test_passes(result):
    for row in result["rows"]:
        assert (row["forward_passes"], row["backward_passes"]) == PASSES[row["method"]]
        auxiliary = row["auxiliary_forward_passes"], row["auxiliary_backward_passes"]
        assert auxiliary == ((4 * 3 + 1, 4 * 3) if row["method"] == "adaflood" else (0, 0))  # 5 folds, 3 epochs
    assert result["rows"][1]["settings"]["adversarial_steps"] == 2
    assert result["rows"][2]["label"] == "floodingx (measuring)"


def test_auxiliary_passes_of_selective_flooding():
    from mindspore_floodx.defences.selective import Selective

    settings = resolve({"method": "selective", "selective_epochs": 2, "adversarial_steps": 4})
    assert Selective.auxiliary_passes(settings) == (2 * (1 + 4 + 1), 2 * (1 + 4))


def test_seconds_and_ratios_count_again(result):
    steps = {row["method"]: row["steps"] for row in result["rows"]}
    for row in result["rows"]:
        for clock, prefix in (("seconds", ""), ("cpu_seconds", "cpu_")):
            mine, base = np.array(steps[row["method"]][clock]), np.array(steps["finetune"][clock])
            assert len(mine) == 3 and (mine > 0).all()
            assert row[f"{prefix}seconds_per_step"] == pytest.approx(sorted(mine)[1])
            assert row[f"{prefix}seconds_per_epoch"] == pytest.approx(mine.sum() / 3 * len(SIZES))
            assert row[f"{prefix}ratio"] == pytest.approx(mine.sum() / base.sum())
            low, middle, high = sorted(mine / base)
            assert row[f"{prefix}ratio_median"] == pytest.approx(middle)
            assert row[f"{prefix}ratio_low"] == pytest.approx((low + middle) / 2)  # quartiles of three
            assert row[f"{prefix}ratio_high"] == pytest.approx((middle + high) / 2)
        assert row["compile_seconds"] > 0
    assert result["rows"][1]["cpu_ratio"] > 1.3  # three times the passes


def test_the_batches_are_those_of_the_first_epoch_for_every_method(measured, result, given):
    data = load_files(given["train_file"], given["eval_file"], text_column="review", label_column="opinion").train
    encoded = encode(data, load_tokenizer(given["model"]), 64)
    order = epoch_order(len(encoded), 0, 0)
    batches = [make_batch(encoded, order[8 * number : 8 * number + 8]) for number in range(WARM_UP + 3)]
    for method in METHODS:
        assert [ids for name, ids, _ in measured[1] if name == method] == [b["input_ids"].tobytes() for b in batches]
    tokens = [int(batch["attention_mask"].sum()) for batch in batches[WARM_UP:]]
    assert len(set(tokens)) > 1
    for row in result["rows"]:
        assert row["steps"]["tokens"] == tokens and row["steps"]["examples"] == [8, 8, 8]


def test_the_order_moves_on_from_batch_to_batch(measured, result):
    names = [name for name, *_ in measured[1]]
    turns = [tuple(names[start : start + 4]) for start in range(0, len(names), 4)]
    assert turns == [METHODS[first:] + METHODS[:first] for first in range(4)]
    for row in result["rows"]:
        assert row["steps"]["turn"] == [turn.index(row["method"]) for turn in turns[WARM_UP:]]


def test_what_is_written(measured, result, given):
    folder = measured[0]
    plots = {f"plots/timing.{suffix}" for suffix in ("svg", "png", "pdf")}
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {"timing.json", "timing.csv", "timing.md"} | plots  # no temporary files
    table = pd.read_csv(folder / "timing.csv")
    assert tuple(table.columns) == timing.COLUMNS
    for row, read in zip(result["rows"], table.to_dict("records"), strict=True):
        assert {name: row[name] for name in timing.COLUMNS} == pytest.approx(read)
    text = (folder / "timing.md").read_text(encoding="utf-8")
    assert "custom, 37 examples, model, batch 8; 5 steps an epoch, 3 of them timed, CPU, 1 thread; load" in text
    lines = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    assert lines == ["method", *(row["label"] for row in result["rows"])]
    assert f"| {result['rows'][1]['ratio']:.2f} |" in " ".join(text.split())
    assert (folder / "plots" / "timing.pdf").read_bytes().startswith(b"%PDF")
    assert "<svg" in (folder / "plots" / "timing.svg").read_text(encoding="utf-8")
    assert matplotlib.image.imread(folder / "plots" / "timing.png").std() > 0.05
    assert result["command"].endswith("--data-dir DATA") and "/home/me" not in json.dumps(result)
    assert result["settings"]["batch_size"] == 8 and result["settings"]["warm_up"] == WARM_UP
    data = load_files(given["train_file"], given["eval_file"], text_column="review", label_column="opinion").train
    assert result["data"]["sha256"] == data.fingerprint and result["data"]["steps_per_epoch"] == len(SIZES)
    assert result["threads"] == 1 and result["cores"] >= 1 and result["versions"]["packages"]["mindspore"]
    assert [len(result["load_average"][when]) for when in ("start", "end")] == [3, 3]


def test_a_file_that_cannot_be_finished_leaves_the_old_one(result, tmp_path, monkeypatch):
    timing._write(tmp_path, result)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(before) == 6

    def half(self, path, **_):
        path.write_text("method,forw")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", half)
    with pytest.raises(UserError, match=r"cannot write .*timing\.csv: No space left on device"):
        timing._write(tmp_path, result)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_stopping_leaves_no_files(given, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(timing._Method, "compile", stop)
    with pytest.raises(KeyboardInterrupt):
        measure_timing(["flooding"], batches=1, warm_up=0, output_dir=tmp_path / "none", progress=False, **given)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_loss_that_is_not_finite(given, monkeypatch):
    from mindspore_floodx.defences.flooding import Flooding

    monkeypatch.setattr(timing._Method, "compile", lambda self: None)
    monkeypatch.setattr(Flooding, "train_step", lambda self, batch: float("nan"))
    with pytest.raises(UserError, match="the loss of finetune is nan"):
        measure_timing(["finetune"], batches=1, warm_up=0, output_dir=None, progress=False, **given)


class TestRefused:
    @pytest.fixture(autouse=True)
    def nothing_is_computed(self, monkeypatch):
        def compute(*_):
            raise AssertionError("refused too late")

        monkeypatch.setattr(timing, "use_device", compute)

    @pytest.mark.parametrize(
        "words, said",
        [
            (["--methods", "floding"], "method is 'floding' (did you mean 'flooding'?)"),
            (["--batches", "0"], "batches is 0; give a whole number from 1, or all"),
            (["--warm-up", "-1"], "warm_up is -1; it must be 0 or more"),
            (["--batches", "3", "--warm-up", "3"], "the epoch has 5 batches, and after 3 to warm up 3 cannot be timed"),
            (["--batches", "all", "--warm-up", "5"], "the epoch has 5 batches, and after 5 to warm up none is left"),
            (["--adversarial-steps", "2", "--methods", "flooding"], "adversarial_steps is of pgd, freelb"),
            (["--adversarial-steps", "0"], "adversarial_steps is 0; it must be at least 1"),
            (["--batch-size", "0"], "batch_size is 0; it must be at least 1"),
            (["--epochs", "3"], "--epochs is not an option"),
            (["--eval-file", "none.csv"], "none.csv"),
        ],
    )
    def test_values(self, given, words, said, tmp_path, capsys):
        with pytest.raises(SystemExit) as ended:
            run_command(lambda: command.main([*command_line(given), *words, "--output-dir", str(tmp_path / "none")]))
        out, err = capsys.readouterr()
        assert ended.value.code == 2 and out == ""
        assert err.startswith("error: ") and said in err and err.count("\n") == 1
        assert not (tmp_path / "none").exists()

    def test_from_python(self, given):
        with pytest.raises(UserError, match="the timing takes no flood_level"):
            measure_timing(["flooding"], output_dir=None, flood_level=0.1, **given)
        with pytest.raises(UserError, match="there is no method to time"):
            measure_timing([], output_dir=None, **given)
        with pytest.raises(UserError, match="batches is many; give a whole number"):
            measure_timing(batches="many", output_dir=None, **given)

    def test_an_output_folder_that_cannot_be(self, given, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(UserError, match="cannot write .*file.*; choose another --output-dir"):
            measure_timing(batches=1, warm_up=1, output_dir=tmp_path / "file", **given)


def test_more_tokens_than_the_model_has_positions(given, no_compiling):
    with pytest.raises(UserError, match="max_length is 65, but .*model has only 64 positions"):
        measure_timing(["flooding"], batches=1, warm_up=1, output_dir=None, **given | {"max_length": 65})


def test_every_method_has_the_settings_of_fine_tuning(monkeypatch):
    """SST-2's batch size for all, also for a method with its own, and steps of ascent for those that have them."""
    own = {"pgd": {"batch_size": 4, "max_length": 20}}
    monkeypatch.setattr(timing, "resolve", lambda given: resolve(own.get(given["method"], {}) | given))
    chosen = timing._settings_of(None, {"dataset": "sst2", "adversarial_steps": 7, "seed": 3})
    assert list(chosen) == list(timing.method_names()) and chosen["finetune"].batch_size == 32
    for method, settings in chosen.items():
        assert all(getattr(settings, name) == getattr(chosen["finetune"], name) for name in timing.SHARED)
        assert settings.adversarial_steps == (7 if method in timing.NEEDED_BY["adversarial_steps"] else None)


def test_all_batches_are_those_after_the_warm_up():
    assert timing._counted("all", 3, 10) == 7 and timing._counted(7, 3, 10) == 7


def test_the_picture(tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    drawn = []
    monkeypatch.setattr(plt, "close", drawn.append)  # keeps the figure, to look at it
    rows = [("finetune", 10.0, 1.0), ("costs $1 or $2", 60.0, 6.0), ("flooding", 12.5, 1.25)]
    plot_timing(rows, [tmp_path / "a.png", tmp_path / "a.svg"], "a title")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.svg"]
    (axes,) = drawn[0].axes
    assert [bar.get_width() for bar in axes.patches] == [10, 12.5, 60] and axes.yaxis_inverted()
    assert [text.get_text() for text in axes.texts] == ["1.00x", "1.25x", "6.00x"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["finetune", "flooding", "costs $1 or $2"]
    assert not any(text.get_parse_math() for text in axes.get_yticklabels())
    monkeypatch.undo()
    plt.close(drawn[0])
