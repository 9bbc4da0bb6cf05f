"""The grid of a reproduction: reading it, choosing from it, and running its cells."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from mindspore_floodx.cli import reproduce as command
from mindspore_floodx.errors import UserError
from mindspore_floodx.lock import locked
from mindspore_floodx.reproduce import cells
from mindspore_floodx.reproduce.cells import Places, StepFailed, attack_options, is_done, run_grid
from mindspore_floodx.reproduce.collect import changes_of
from mindspore_floodx.reproduce.grid import find_grid, presets, read_grid
from mindspore_floodx.reproduce.overview import estimate, overview
from mindspore_floodx.reproduce.rows import best_level

SMALL = {
    "name": "small",
    "settings": {"model": "minilm", "epochs": 1},
    "attacks": ["synonym"],
    "num_examples": 5,
    "datasets": {
        "demo": {
            "methods": {
                "finetune": {"seeds": [0, 1]},
                "flooding": {"seeds": [0, 1], "levels": [0.1, 0.2]},
            },
            "experiments": {"long": {"method": "finetune", "settings": {"epochs": 2}}},
        }
    },
}
IDS = ["demo-finetune-0", "demo-finetune-1", "demo-flooding-b0.1-0", "demo-flooding-b0.2-0", "demo-flooding-best-1"]


def write_grid(folder: Path, content: object) -> Path:
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def changed(**values: object) -> dict:
    """SMALL with other values of the data set."""
    return SMALL | {"datasets": {"demo": SMALL["datasets"]["demo"] | values}}


def finished(aua: float, level: float | None = None) -> dict:
    """As much of a cell's result as the grid itself reads."""
    attacks = {"synonym": {"raw": {"accuracy_under_attack": aua}, "calibrated": None}}
    variant = None if level is None else f"b{level:g}"
    return {"variant": variant, "attacks": attacks, "seconds": {"train": 60.0, "attack": 60.0}}


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float | None]]:
    """Cells that were run, each with the level that it was given; their results are made up, but nothing else is."""
    ran: list[tuple[str, float | None]] = []

    def run(cell, places, keep_texts, level=None):
        ran.append((cell.id, level))
        settings = cell.train_settings(level)
        result = finished(0.4 if settings.flood_level == 0.2 else 0.3, settings.flood_level)
        (places.cell(cell.id) / "result.json").write_text(json.dumps(result))

    monkeypatch.setattr(cells, "run_cell", run)
    return ran


def test_every_shipped_grid_can_be_read_and_covers_the_paper():
    grids = {name: read_grid(find_grid(name)) for name in presets()}
    assert set(grids) == {"cpu", "paper"}
    paper = grids["paper"]
    assert {cell.dataset for cell in paper.cells} == {"sst2", "mrpc", "qnli", "imdb", "ag_news"}
    for dataset in ("sst2", "imdb"):
        methods = {cell.method for cell in paper.cells if cell.dataset == dataset}
        assert methods >= {"finetune", "pgd", "freelb", "tavat", "infobert", "flooding", "floodingx"}
    samples = {cell.dataset: cell.plan.num_examples for cell in paper.cells}
    assert samples == {"sst2": "all", "mrpc": "all", "qnli": 800, "imdb": 800, "ag_news": 800}
    assert all(set(cell.plan.attacks) == {"textfooler", "bertattack", "textbugger"} for cell in paper.cells)
    assert all(cell.settings["epochs"] == 10 for cell in paper.cells)


def test_cells_and_their_settings(tmp_path):
    grid = read_grid(write_grid(tmp_path, SMALL))
    assert [cell.id for cell in grid.cells] == [*IDS, "demo-finetune-long-0"]
    by_id = {cell.id: cell for cell in grid.cells}
    assert by_id["demo-flooding-b0.2-0"].train_settings().flood_level == 0.2
    assert by_id["demo-flooding-best-1"].train_settings(0.15).flood_level == 0.15
    assert by_id["demo-finetune-long-0"].train_settings(output_dir="x", data_dir=None).epochs == 2
    assert [cell.id for cell in grid.choose(["*-finetune-?", "*-best-*"]).cells] == [*IDS[:2], IDS[4]]
    with pytest.raises(UserError, match="no cell fits --only demo-finetun-0.*did you mean 'demo-finetune-0'"):
        grid.choose(["demo-finetun-0"])


def test_attacks_of_a_plan(tmp_path):
    plan = {"attacks": ["textfooler", "textbugger"], "calibrate": ["textbugger"], "resources": "standin"}
    (cell, *_) = read_grid(write_grid(tmp_path, changed(**plan))).cells
    assert cell.plan.calibrated == ("textbugger",)
    options = attack_options(cell, Places(tmp_path, tmp_path, masked_lm="lm", workers=2), cell.plan.attacks)
    wanted = "--attack textfooler textbugger --num-examples 5 --seed 0 --resources standin --workers 2 --device CPU"
    assert options == [*wanted.split(), "--masked-lm", "lm"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "holds no `name: value` lines"),
        (SMALL | {"seeds": [1]}, "'seeds' is not known here"),
        (SMALL | {"datasets": {}}, "datasets is empty"),
        (SMALL | {"datasets": {"demo": {"methods": {"floding": {}}}}}, "no method 'floding' .did you mean 'flooding'"),
        (SMALL | {"datasets": {"demo": {"methods": {"finetune": {"sed": [1]}}}}}, "'sed' is not known here .*'seeds'"),
        (SMALL | {"datasets": {"demo": {"methods": {"finetune": {"seeds": 1}}}}}, "seeds is 1; write a list of numb"),
        (
            SMALL | {"datasets": {"demo": {"methods": {"finetune": {"seeds": [1, 1]}}}}},
            "demo-finetune-1 is there twice",
        ),
        (SMALL | {"datasets": {"demo": {"methods": {"pgd": {"levels": [0.1]}}}}}, "levels are searched for flooding"),
        (SMALL | {"settings": {"epoch": 3}}, "cell demo-finetune-0: .*'epoch' is not a setting .*'epochs'"),
        (changed(attacks=["textfoler"]), "no attack 'textfoler' .did you mean 'textfooler'"),
        (changed(attacks=[]), "attacks is empty"),
        (changed(calibrate=["pwws"]), "calibrate: 'pwws' is not one of the attacks"),
        (changed(resources="best"), "resources is 'best'; it is official or standin"),
        (changed(num_examples=True), "num_examples is True"),
        (changed(by_epoch={"attack": "synonym"}), "by_epoch needs methods, attack, num_examples"),
        (changed(experiments={"x": {"seeds": [1]}}), "experiments: x needs a method"),
    ],
)
def test_a_wrong_grid_is_refused_by_name(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read_grid(write_grid(tmp_path, content))


@pytest.mark.parametrize("text", ["a: [", "a: &x [*x", "!!python/object/apply:os.system [id]", "\x00"])
def test_what_is_no_yaml_is_refused(tmp_path, text):
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="not valid YAML"):
        read_grid(path)


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(UserError, match="no preset 'papr' .did you mean 'paper'"):
        find_grid("papr")


def test_the_best_level_goes_to_the_other_seeds_after_the_sweep(tmp_path, done):
    grid, places = read_grid(write_grid(tmp_path, SMALL)), Places(tmp_path, tmp_path / "runs")
    outcome = run_grid(grid, places, print)
    assert dict(done)["demo-flooding-best-1"] == 0.2
    assert sorted(outcome.finished) == sorted(cell.id for cell in grid.cells)
    again = run_grid(grid, places, print)
    assert len(done) == len(grid.cells)  # nothing was run twice
    assert sorted(again.finished) == sorted(outcome.finished)


def test_a_sweep_that_is_not_there_makes_its_cell_wait(tmp_path, done):
    grid = read_grid(write_grid(tmp_path, SMALL)).choose(["*-best-1", "demo-finetune-0"])
    outcome = run_grid(grid, Places(tmp_path, tmp_path / "runs"), print)
    assert outcome.waiting == ["demo-flooding-best-1"]
    assert outcome.finished == ["demo-finetune-0"]


def test_best_level():
    assert best_level([finished(0.3, 0.1), finished(0.4, 0.3), finished(0.4, 0.2)]) == 0.2


def test_a_failed_cell_is_told_and_tried_again(tmp_path, monkeypatch, done):
    grid, places = read_grid(write_grid(tmp_path, SMALL)), Places(tmp_path, tmp_path / "runs")
    works = cells.run_cell

    def fails(cell, places, keep_texts, level=None):
        if cell.id == "demo-finetune-1":
            raise StepFailed("train", "no space left")
        works(cell, places, keep_texts, level)

    monkeypatch.setattr(cells, "run_cell", fails)
    outcome = run_grid(grid, places, print)
    log = tmp_path / "runs" / "demo-finetune-1.log"
    assert outcome.failed == {"demo-finetune-1": f"train: no space left (see {log})"}
    assert len(outcome.finished) == len(grid.cells) - 1
    failed = json.loads((places.cell("demo-finetune-1") / "failed.json").read_text())
    assert (failed["step"], failed["message"]) == ("train", "no space left")
    rows = {row["cell"]: row for row in overview(grid, grid, places)}
    assert rows["demo-finetune-1"]["state"] == "failed: train"
    assert rows["demo-finetune-0"] == {
        "cell": "demo-finetune-0",
        "state": "finished",
        "attacks": "synonym on 5",
        "minutes": "2",
    }
    assert "5 of 6 cells are finished; 1 of the 1 others will take about 0.0 hours" in estimate(grid, grid, places)
    monkeypatch.setattr(cells, "run_cell", works)
    assert not run_grid(grid, places, print).failed
    assert not (places.cell("demo-finetune-1") / "failed.json").exists()


def test_a_cell_of_another_process_is_left_to_it(tmp_path, done):
    grid, places = read_grid(write_grid(tmp_path, SMALL)), Places(tmp_path, tmp_path / "runs")
    code = (
        "import sys; from mindspore_floodx.lock import locked\n"
        "with locked(sys.argv[1]): print('held', flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(places.cell(IDS[0]))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert other.stdout is not None
    assert other.stdout.readline().strip() == b"held"
    outcome = run_grid(grid, places, print)
    assert outcome.elsewhere == [IDS[0]]
    assert IDS[0] not in dict(done)
    other.communicate(b"\n")
    assert IDS[0] in run_grid(grid, places, print).finished
    with locked(places.cell(IDS[0])):
        assert is_done(grid.cells[0], places)


def test_a_steps_error_is_its_last_line(tmp_path, capfd):
    with pytest.raises(StepFailed, match="there is no such data set") as caught:
        cells.step("data", ["--dataset", "nothing"], tmp_path / "log")
    assert caught.value.step == "data"
    assert "error: " not in caught.value.message
    assert "there is no such data set" in capfd.readouterr().err
    assert "floodx-data --dataset nothing" in (tmp_path / "log").read_text()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ends a process with its parent")
def test_a_step_ends_with_a_killed_grid(tmp_path):
    """The step is `sleep` under Python's name; when the grid's process is killed it goes too."""
    code = (
        "import subprocess, sys, time\nfrom mindspore_floodx.device import end_with_parent\n"
        "child = subprocess.Popen(['sleep', '60'], preexec_fn=end_with_parent); print(child.pid, flush=True)\n"
        "time.sleep(60)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    for _ in range(100):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the step went on")


def test_words_that_were_changed():
    record = {
        "original": {"one": "a good film , really", "two": "same"},
        "perturbed": {"one": "a great film , truly so", "two": "same"},
    }
    assert changes_of(record) == [["good", "great"], ["really", "truly so"]]


def test_a_grid_is_not_written_over_anothers_results(tmp_path):
    path = write_grid(tmp_path, SMALL)
    output = tmp_path / "out"
    output.mkdir()
    command._keep_grid(path, output)
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(SMALL | {"name": "other"}))
    with pytest.raises(UserError, match="holds the results of another grid"):
        command._keep_grid(other, output)


def test_dry_run_writes_nothing(tmp_path, capsys):
    output = tmp_path / "out"
    assert command.main(["--preset", str(write_grid(tmp_path, SMALL)), "--output-dir", str(output), "--dry-run"]) == 0
    assert "demo-flooding-best-1" in capsys.readouterr().out
    assert not output.exists()
