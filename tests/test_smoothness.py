"""Loss under noise on the word embeddings, held against PyTorch on the exported model, one unpadded text at a time."""

import csv
import json
import shutil

import matplotlib.colors
import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import torch
import transformers
import yaml
from training_files import make_training_files

from mindspore_floodx import measure_smoothness, smoothness, train
from mindspore_floodx.bert import BertForSequenceClassification
from mindspore_floodx.cli import smoothness as command
from mindspore_floodx.data import load_files
from mindspore_floodx.device import use_device
from mindspore_floodx.encoding import EncodedSplit, encode, load_tokenizer, make_batch
from mindspore_floodx.errors import UserError, run_command
from mindspore_floodx.evaluation import Evaluator, PerturbedEvaluator
from mindspore_floodx.plots import plot_smoothness
from mindspore_floodx.smoothness import noise

use_device("CPU", 1)
DEVIATIONS = (0.0, 0.1, 0.6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("smoothness")


@pytest.fixture(scope="module")
def run(minilm_folder, folder):
    """A finished run whose evaluation batches hold 6 examples."""
    given = make_training_files(folder, minilm_folder) | {"epochs": 1, "learning_rate": 3e-3}
    return train(**given, output_dir=str(folder / "finetune-6"))


@pytest.fixture(scope="module")
def others(run):
    """Two more: the same model with larger batches, and another model."""
    larger, flooded = (run.parent / name for name in ("finetune-20", "other"))
    copy_run(run, larger, eval_batch_size=20)
    copy_run(run, flooded, method="flooding", flood_level=0.5)
    model = BertForSequenceClassification.from_pretrained(run / "checkpoint")
    for name, parameter in model.parameters_and_names():
        if name == "classifier.weight":
            parameter.set_data(-2 * parameter)
    model.save_pretrained(flooded / "checkpoint")
    return larger, flooded


@pytest.fixture(scope="module")
def results(run, others, folder):
    """The folder that the command wrote for the three runs."""
    target = folder / "results"
    words = ["--deviations", *map(str, reversed(DEVIATIONS)), "--draws", "2", "--seed", "5"]
    assert command.main([str(run), *map(str, others), *words, "--output-dir", str(target)]) == 0
    return target


def copy_run(run, target, **changed):
    shutil.copytree(run, target)
    settings = yaml.safe_load((run / "config.yaml").read_text()) | changed
    (target / "config.yaml").write_text(yaml.safe_dump(settings))
    return target


def rows_of(results, name):
    table = pd.read_csv(results / "smoothness.csv")
    return table[table["run"] == name].reset_index(drop=True)


def by_pytorch(run, classifier, deviation, seed, draw, places=None):
    """Mean loss and accuracy: Hugging Face's BERT on noisy inputs_embeds, float64 means."""
    model = transformers.BertForSequenceClassification.from_pretrained(run / "export").eval()
    model.classifier.weight.data *= classifier
    tokenizer = transformers.AutoTokenizer.from_pretrained(run / "export")
    with open(run.parent / "test.csv", newline="", encoding="utf-8") as file:
        examples = list(csv.DictReader(file))
    losses, right = [], []
    for place, example in enumerate(examples):
        if places is not None and place not in places:
            continue
        inputs = tokenizer(example["review"], truncation=True, max_length=64, return_tensors="pt")
        embedded = model.bert.embeddings.word_embeddings(inputs.pop("input_ids"))
        rng = np.random.default_rng([seed, draw, place])
        shift = rng.standard_normal(tuple(embedded.shape[1:]), np.float32)
        with torch.no_grad():
            logits = model(inputs_embeds=embedded + deviation * torch.from_numpy(shift), **inputs).logits[0].double()
        label = ["bad", "good"].index(example["opinion"])
        losses.append(-torch.log_softmax(logits, 0)[label].item())
        right.append(logits.argmax().item() == label)
    assert losses
    return np.mean(losses), np.mean(right)


@pytest.mark.parametrize("name, classifier", [("finetune-6", 1), ("other (flooding)", -2)])
def test_equals_pytorch_with_the_same_noise(run, results, name, classifier):
    table = rows_of(results, name)
    assert list(zip(table["deviation"], table["draw"], strict=True)) == [
        (a, draw) for a in DEVIATIONS for draw in (0, 1)
    ]
    for row in table.itertuples():
        loss, accuracy = by_pytorch(run, classifier, row.deviation, 5, row.draw)
        assert abs(row.loss - loss) <= 1e-5, row
        assert row.accuracy == accuracy, row
    assert table.drop_duplicates("loss").shape[0] == 5  # noise tells; only the draws of no noise are equal
    assert np.ptp(table["loss"]) > 1e-3


def test_without_noise_it_is_the_evaluation(run, results):
    model = BertForSequenceClassification.from_pretrained(run / "checkpoint")
    data = load_files(
        run.parent / "train.csv", run.parent / "test.csv", text_column="review", label_column="opinion"
    ).evaluation
    encoded = encode(data, load_tokenizer(run / "checkpoint"), 64)
    expected = Evaluator(model).evaluate(encoded, 6)
    for row in rows_of(results, "finetune-6").query("deviation == 0").itertuples():
        assert row.loss == pytest.approx(expected["eval_loss"], abs=1e-6)
        assert row.accuracy == expected["eval_accuracy"]


def test_the_noise_is_the_same_in_other_batches(results):
    small, large = rows_of(results, "finetune-6"), rows_of(results, "finetune-20")
    assert len(small) == 6
    np.testing.assert_allclose(small["loss"], large["loss"], rtol=0, atol=1e-6)
    assert list(small["accuracy"]) == list(large["accuracy"])


def test_deterministic(run, results):
    before = rows_of(results, "finetune-6").query("deviation == 0.6")
    again = measure_smoothness([run], deviations=[0.6], draws=2, seed=5, output_dir=None, progress=False)
    ((point,),) = (each["curve"] for each in again["runs"])
    assert point["loss_mean"] == before["loss"].mean() and point["loss_std"] == before["loss"].std()


def test_a_sample_has_the_noise_of_its_places(run):
    """7 of the 20 examples, drawn by another seed, in batches of another size."""
    result = measure_smoothness(
        [run], deviations=[0.6], draws=1, num_examples=7, seed=3, batch_size=4, output_dir=None, progress=False
    )
    places = set(np.random.default_rng(3).permutation(20)[:7].tolist())
    loss, accuracy = by_pytorch(run, 1, 0.6, 3, 0, places)
    (point,) = result["runs"][0]["curve"]
    assert abs(point["loss_mean"] - loss) <= 1e-5 and point["accuracy_mean"] == pytest.approx(accuracy, abs=1e-12)
    assert point["loss_std"] is None and point["accuracy_std"] is None
    assert result["data"]["measured"] == 7 and result["data"]["examples"] == 20


def test_what_is_written(run, others, results):
    plots = {f"plots/smoothness.{suffix}" for suffix in ("svg", "png", "pdf")}
    files = {path.relative_to(results).as_posix() for path in results.rglob("*") if path.is_file()}
    assert files == {"smoothness.csv", "smoothness.json"} | plots  # no temporary files
    assert (results / "plots" / "smoothness.pdf").read_bytes().startswith(b"%PDF")
    assert "<svg" in (results / "plots" / "smoothness.svg").read_text(encoding="utf-8")
    assert matplotlib.image.imread(results / "plots" / "smoothness.png").std() > 0.05
    content = json.loads((results / "smoothness.json").read_text(encoding="utf-8"))
    assert [each["run"] for each in content["runs"]] == ["finetune-6", "finetune-20", "other (flooding)"]
    assert [each["folder"] for each in content["runs"]] == [str(run), *map(str, others)]
    assert content["runs"][0]["sha256"] == content["runs"][1]["sha256"] != content["runs"][2]["sha256"]
    for each in content["runs"]:
        table = rows_of(results, each["run"]).groupby("deviation")
        assert [point["deviation"] for point in each["curve"]] == list(DEVIATIONS)
        for point in each["curve"]:
            part = table.get_group(point["deviation"])
            for name in ("loss", "accuracy"):
                assert point[f"{name}_mean"] == pytest.approx(part[name].mean(), abs=1e-12)
                assert point[f"{name}_std"] == pytest.approx(part[name].std(ddof=1), abs=1e-12)
    assert content["settings"] == {
        "deviations": list(DEVIATIONS),
        "draws": 2,
        "num_examples": "all",
        "seed": 5,
        "batch_size": None,
        "device": "CPU",
        "threads": None,
    }
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    assert content["data"]["sha256"] == environment["data"]["test"]["sha256"]
    assert content["versions"]["packages"] == environment["packages"]


class TestNoise:
    def test_of_an_example_in_any_batch(self):
        whole = noise([3, 0, 7], np.array([4, 6, 2]), 5, seed=1, draw=2)
        assert whole.shape == (3, 6, 5) and whole.dtype == np.float32
        assert not whole[0, 4:].any() and not whole[2, 2:].any() and np.count_nonzero(whole) == 12 * 5
        np.testing.assert_array_equal(noise([7], np.array([2]), 5, 1, 2)[0], whole[2, :2])
        np.testing.assert_array_equal(noise([7, 3], np.array([9, 4]), 5, 1, 2)[1, :4], whole[0, :4])

    def test_differs_by_seed_draw_and_example_and_is_standard_normal(self):
        some = [noise([place], np.array([500]), 64, seed, draw) for seed, draw, place in np.ndindex(2, 2, 2)]
        flat = np.array([each.ravel() for each in some])
        assert np.abs(np.corrcoef(flat) - np.eye(8)).max() < 0.03
        assert abs(flat.mean()) < 0.01 and abs(flat.std() - 1) < 0.01


def test_one_graph_and_no_dropout(run):
    model = BertForSequenceClassification.from_pretrained(run / "checkpoint")
    evaluator = PerturbedEvaluator(model)
    found = []
    for rows, length in ((3, 9), (3, 9), (2, 30), (5, 12)):
        model.set_train()  # as in the middle of a training run
        split = EncodedSplit(
            np.full(rows * length, 7, np.int32),
            np.zeros(rows * length, np.int8),
            length * np.arange(rows + 1),
            np.zeros(rows, np.int32),
        )
        batch = make_batch(split, range(rows))
        found.append(evaluator.logits(batch, noise(range(rows), split.lengths, model.config.hidden_size, 0, 0)))
    np.testing.assert_array_equal(found[0], found[1])
    assert found[0].shape == (3, 2) and len(evaluator.forward.compile_cache) == 1


class TestRefused:
    @pytest.fixture(autouse=True)
    def nothing_is_computed(self, monkeypatch):
        def compute(*_):
            raise AssertionError("refused too late")

        monkeypatch.setattr(smoothness, "use_device", compute)
        monkeypatch.setattr(smoothness, "_measure", compute)

    @pytest.mark.parametrize(
        "words, said",
        [
            (["--deviations", "0", "-0.1"], "the standard deviation -0.1 is no noise"),
            (["--deviations", "nan"], "the standard deviation nan is no noise"),
            (["--deviations", "inf"], "the standard deviation inf is no noise"),
            (["--draws", "0"], "draws is 0; it must be at least 1"),
            (["--batch-size", "0"], "batch_size is 0; it must be at least 1"),
            (["--num-examples", "0"], "the number of examples must be a positive number"),
            (["--seed", "-1"], "the seed must not be negative"),
            (["--labels", "a", "b"], "--labels has 2 names for 1 runs"),
        ],
    )
    def test_values(self, run, words, said, tmp_path, capsys):
        with pytest.raises(SystemExit) as ended:
            run_command(lambda: command.main([str(run), *words, "--output-dir", str(tmp_path / "none")]))
        out, err = capsys.readouterr()
        assert ended.value.code == 2 and out == ""
        assert err.startswith(f"error: {said}") and err.count("\n") == 1
        assert not (tmp_path / "none").exists()

    def refused(self, runs, said, tmp_path, **given):
        with pytest.raises(UserError, match=said):
            measure_smoothness(runs, output_dir=tmp_path / "none", **given)
        assert not (tmp_path / "none").exists()

    def test_no_run_folder(self, run, tmp_path):
        self.refused([run, run / "export"], "export is no run folder", tmp_path)
        self.refused([], "there is no run to measure", tmp_path)
        (tmp_path / "config.yaml").write_text("- one\n- two\n")
        for name in ("export", "checkpoint"):
            (tmp_path / name).mkdir()
        self.refused([tmp_path], "config.yaml holds no settings of a run", tmp_path)

    @pytest.mark.parametrize("missing", ["export", "checkpoint"])
    def test_an_unfinished_run(self, run, tmp_path, missing):
        shutil.rmtree(copy_run(run, tmp_path / "run") / missing)
        self.refused([run, tmp_path / "run"], "holds no finished run", tmp_path)

    def test_other_evaluation_examples(self, run, tmp_path):
        lines = (run.parent / "test.csv").read_text(encoding="utf-8").splitlines(keepends=True)
        (tmp_path / "fewer.csv").write_text("".join(lines[:-1]), encoding="utf-8")
        other = copy_run(run, tmp_path / "other", eval_file=str(tmp_path / "fewer.csv"))
        self.refused([run, other], r"20 examples\) and .*fewer\.csv, 19 examples", tmp_path)

    def test_another_number_of_classes(self, run, tmp_path):
        train_file = tmp_path / "three.csv"
        train_file.write_text((run.parent / "train.csv").read_text(encoding="utf-8") + "not bad,so-so\n")
        other = copy_run(run, tmp_path / "other", train_file=str(train_file))
        self.refused([other], "has the 2 classes bad, good, but the data .* has bad, good, so-so", tmp_path)
        path = other / "checkpoint" / "config.json"
        names = {"id2label": {"0": "bad", "1": "good", "2": "so-so"}}
        path.write_text(json.dumps(json.loads(path.read_text()) | names))
        self.refused([run, other], "has the 2 classes bad, good and .* the 3 classes bad, good, so-so", tmp_path)

    def test_a_run_twice(self, run, tmp_path):
        self.refused([run, run], "two curves would be named", tmp_path)

    def test_an_output_folder_that_cannot_be(self, run, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(UserError, match="cannot write .*file.*; choose another --output-dir"):
            measure_smoothness([run], output_dir=tmp_path / "file")


def test_folders_of_one_name_are_told_apart_by_their_paths(run, tmp_path):
    twin = copy_run(run, tmp_path / run.name)
    opened = smoothness._open_runs([run, twin], None, None)
    assert [each.label for each in opened] == [str(run), str(twin)]


def test_a_loss_that_is_not_finite(run, monkeypatch):
    monkeypatch.setattr(PerturbedEvaluator, "logits", lambda self, batch, noise: np.full((len(noise), 2), np.nan))
    with pytest.raises(UserError, match="finetune-6: the loss is nan at a standard deviation of 0.3"):
        measure_smoothness([run], deviations=[0.3], draws=1, output_dir=None, progress=False)


@pytest.mark.parametrize("draws, runs", [(3, ["a", "costs $1 or $2"]), (1, [f"run {index}" for index in range(12)])])
def test_the_picture(tmp_path, monkeypatch, draws, runs):
    import matplotlib.pyplot as plt

    drawn = []
    monkeypatch.setattr(plt, "close", drawn.append)  # keeps the figure, to look at it
    values = [(run, a, draw, a + draw, 0.5 - a / 2) for run in runs for a in (0.0, 0.2, 0.4) for draw in range(draws)]
    table = pd.DataFrame(values, columns=["run", "deviation", "draw", "loss", "accuracy"])
    plot_smoothness(table, [tmp_path / "a.png", tmp_path / "a.svg"], "a title")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.svg"]
    left, right = drawn[0].axes
    assert len(left.get_lines()) == len(right.get_lines()) == len(runs)
    middle = np.array([0.0, 0.2, 0.4]) + (draws - 1) / 2
    np.testing.assert_allclose(left.get_lines()[1].get_ydata(), middle)
    np.testing.assert_allclose(right.get_lines()[1].get_ydata(), [50, 40, 30])
    assert len({matplotlib.colors.to_rgba(line.get_color()) for line in left.get_lines()}) == len(runs)
    band = left.collections[0].get_paths()
    if draws == 3:  # of 0, 1 and 2 the standard deviation is 1
        assert band[0].vertices[:, 1].min() == pytest.approx(0) and band[0].vertices[:, 1].max() == pytest.approx(2.4)
    legend = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert legend == list(runs)
    assert not any(text.get_parse_math() for text in drawn[0].legends[0].get_texts())
    monkeypatch.undo()
    plt.close(drawn[0])
