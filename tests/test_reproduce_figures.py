"""Figures of a grid: what they show follows from the result files, and what has no data is listed as left out."""

from __future__ import annotations

import json

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from reproduce_results import EPOCHS, draw_results, write_cell, write_grid

from mindspore_floodx.reproduce.figures import figure2, figure3, figure4, noise_curve, write_all_figures
from mindspore_floodx.reproduce.results import read_results
from mindspore_floodx.reproduce.write import write_all


@pytest.fixture(autouse=True)
def no_open_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    return write_grid(tmp_path_factory.mktemp("grid"), examples=40)


@pytest.fixture(scope="module")
def written(grid):
    paths = write_all(grid)
    assert len(set(paths)) == len(paths) and all(path.stat().st_size for path in paths)
    return grid / "figures"


def read(written, stem):
    return pd.read_csv(written / f"{stem}.csv")


def content(grid, cell):
    return json.loads((grid / "cells" / cell / "result.json").read_text())


def test_every_figure_in_every_format(written):
    listed = json.loads((written / "figures.json").read_text())
    stems = [each["stem"] for each in listed["figures"]]
    assert stems == ["figure1-sst2", "figure2-sst2", "figure3-sst2", "figure3-mrpc", "figure3-ag_news", "figure4-sst2"]
    starts = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}
    for stem in stems:
        for suffix, start in starts.items():
            assert (written / f"{stem}.{suffix}").read_bytes().startswith(start)
        image = matplotlib.image.imread(written / f"{stem}.png")
        assert image.shape[1] > 800 and image[..., :3].std() > 0.05  # neither empty nor blank
    left_out = {(each["figure"], each["dataset"]): each["reason"] for each in listed["left_out"]}
    assert left_out[("figure2", "mrpc")] == "there was no sweep of flood levels"
    assert len(left_out) == 6
    text = (written / "figures.md").read_text(encoding="utf-8")
    assert "Figure 2, MRPC: left out, there was no sweep of flood levels." in text and "figure1-sst2.svg" in text


def test_captions_tell_the_conditions(written):
    for each in json.loads((written / "figures.json").read_text())["figures"]:
        for said in ("Encoder MiniLM", "4,000 training examples", "a part of the data set", "Seed"):
            assert said in each["caption"], each["stem"]
        attacked = each["figure"] in ("figure2", "figure4")
        assert ("stand-in resources" if attacked else "No attack plays a part in it") in each["caption"]


def test_figure_1_is_the_mean_over_the_seeds(grid, written):
    table = read(written, "figure1-sst2")
    at = table[(table["method"] == "fine-tuning") & (table["deviation"] == 0.3)].iloc[0]
    losses = [
        next(
            row["loss_mean"]
            for row in content(grid, f"sst2-finetune-{seed}")["smoothness"]["curve"]
            if row["deviation"] == 0.3
        )
        for seed in (0, 1, 2)
    ]
    assert at["loss_mean"] == pytest.approx(np.mean(losses)) and at["seeds"] == 3
    assert at["loss_std"] == pytest.approx(np.std(losses, ddof=1))
    one = content(grid, "sst2-pgd-0")
    assert noise_curve([one])["loss_std"][0.5] == one["smoothness"]["curve"][-1]["loss_std"]  # over the draws


def test_figure_2_shows_the_sweep_and_what_it_is_held_against(grid, written):
    table = read(written, "figure2-sst2")
    swept = table[(table["method"] == "flooding") & (table["attack"] == "textfooler") & (table["kind"] == "raw")]
    assert swept["flood level"].tolist() == [0.05, 0.06, 0.1, 0.2]
    summary = content(grid, "sst2-flooding-b0.06-0")["attacks"]["textfooler"]["raw"]
    row = swept[swept["flood level"] == 0.06].iloc[0]
    assert row["accuracy %"] == pytest.approx(100 * summary["accuracy_under_attack"])
    bounds = summary["accuracy_under_attack_interval"]
    assert [row["low"], row["high"]] == pytest.approx([100 * each for each in bounds])
    base = table[(table["method"] == "fine-tuning") & (table["attack"] == "textfooler") & (table["kind"] == "raw")]
    shares = [content(grid, f"sst2-finetune-{s}")["attacks"]["textfooler"]["raw"] for s in (0, 1, 2)]
    assert base["accuracy %"].iloc[0] == pytest.approx(
        100 * np.mean([each["accuracy_under_attack"] for each in shares])
    )
    assert (table["method"] == "Flooding-X").sum() == 3 * 7  # seeds; three attacks of two kinds, and before the attack


def test_figure_3_marks_the_turn(grid, written):
    table = read(written, "figure3-sst2")
    assert table.groupby("seed")["turn"].sum().tolist() == [1, 1, 1]
    assert table[table["turn"]]["sub_epoch"].tolist() == [9, 9, 9]
    rows = content(grid, "sst2-floodingx-1")["accordance"]
    assert table[table["seed"] == 1]["accordance"].tolist() == pytest.approx([row["accordance"] for row in rows])
    caption = json.loads((written / "figures.json").read_text())["figures"][2]["caption"]
    assert "Seed 2: turn at sub-epoch 9, lowest evaluation loss before flooding at sub-epoch 8." in caption


def test_figure_4_has_both_axes(grid, written):
    table = read(written, "figure4-sst2")
    assert table["method"].unique().tolist() == ["fine-tuning", "flooding (best b)"]
    flooded = table[table["method"] == "flooding (best b)"]
    assert flooded["accuracy under attack %"].tolist() == pytest.approx([30] * 6 + [35, 40, 45, 50])
    losses = [row["train_loss"] for row in content(grid, "sst2-flooding-b0.1-0")["epochs"]]
    assert flooded["training loss"].tolist() == pytest.approx(losses) and len(losses) == EPOCHS


def test_outdated_files_go_and_others_stay(grid, written):
    old, own = written / "figure2-imdb.svg", written / "notes.md"
    table = grid / "tables" / "table2.csv"
    old.write_text("old")
    own.write_text("mine")
    for cell in (grid / "cells").iterdir():
        if cell.name != "mrpc-finetune-0":
            (cell / "result.json").rename(cell / "result.json.kept")
    (grid / "timing" / "sst2.json").rename(grid / "timing" / "kept")
    try:
        write_all(grid)
        assert not old.exists() and own.exists() and not (written / "figure1-sst2.svg").exists()
        assert pd.read_csv(table)["table"].tolist() == ["MRPC"] and not (grid / "tables" / "table3.md").exists()
    finally:
        for cell in (grid / "cells").glob("*/result.json.kept"):
            cell.rename(cell.with_suffix(""))
        (grid / "timing" / "kept").rename(grid / "timing" / "sst2.json")


def test_the_same_results_give_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        write_cell(tmp_path, by_epoch=[0.1, 0.2, 0.3], epochs=3)
        write_all_figures(read_results(tmp_path), tmp_path / folder)
    for suffix in ("svg", "pdf", "png", "csv"):
        name = f"figure4-sst2.{suffix}"
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_half_measured_runs(tmp_path):
    held = {"textfooler": draw_results(20, 0.9, 0.3, 0)}
    write_cell(tmp_path, "sst2", "flooding", 0, variant="b0.1", level=0.1, attacks=held)
    write_cell(tmp_path, "sst2", "floodingx", 0, accordance=True, flood_level=None)
    assert figure2(read_results(tmp_path), "sst2") == "the sweep of flood levels has one level only"
    write_cell(tmp_path, "sst2", "flooding", 0, variant="b0.2", level=0.2)
    shown = figure2(read_results(tmp_path), "sst2")  # one level was not attacked, and there is no fine-tuning
    assert shown.data["attack"].tolist().count("textfooler") == 1
    assert "Dashed" not in shown.caption
    assert (
        "Seed 0: no turn, lowest evaluation loss before flooding at sub-epoch 8."
        in figure3(read_results(tmp_path), "sst2").caption
    )
    assert figure4(read_results(tmp_path), "sst2") == "no run was attacked after each epoch"
