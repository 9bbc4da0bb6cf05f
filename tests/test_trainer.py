"""Training from a file to a model that Hugging Face loads, on a small random BERT with MiniLM's vocabulary."""

import json
import re
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
import sklearn.metrics
import torch
import transformers
import yaml
from mindspore import Tensor
from tiny_bert import bits
from training_files import SIZES, command_line, make_training_files, rows

from mindspore_floodx import run_state, train
from mindspore_floodx.bert import BertForSequenceClassification
from mindspore_floodx.data import load_dataset
from mindspore_floodx.device import use_device
from mindspore_floodx.encoding import epoch_order
from mindspore_floodx.errors import UserError
from mindspore_floodx.pretrained import find_model
from mindspore_floodx.settings import TrainSettings, resolve
from mindspore_floodx.trainer import _Training
from mindspore_floodx.training_inputs import load_data

use_device("CPU", 1)
LOG = ["step", "epoch", "loss", "flooded", "learning_rate", "tokens_per_second"]
EPOCHS = ["epoch", "train_loss", "eval_loss", "eval_accuracy", "seconds"]
ROOT = Path(__file__).resolve().parents[1]


def column(run, name):
    return [row[name] for row in rows(run / "log.csv")]


def weights(run):
    return BertForSequenceClassification.from_pretrained(run / "checkpoint").state()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return tmp_path_factory.mktemp("small")


@pytest.fixture(scope="module")
def given(minilm_folder, small):
    return make_training_files(small, minilm_folder)


@pytest.fixture(scope="module")
def finished(given, small):
    """A finished run with its settings and the object that ran it."""
    settings = resolve(given | {"output_dir": str(small / "finetune"), "save_every_epoch": True})
    training = _Training(settings, load_data(settings), find_model(settings.model))
    return training.run(), settings, training


class TestTheRunFolder:
    def test_everything_is_there(self, finished):
        run, settings, _ = finished
        assert {path.name for path in run.iterdir()} == {
            "config.yaml",
            "environment.json",
            "log.csv",
            "epochs.csv",
            "checkpoint",
            "checkpoints",
            "export",
            "plots",
            "tensorboard",
        }
        assert TrainSettings(**yaml.safe_load((run / "config.yaml").read_text())) == settings
        assert settings.dataset == "custom"
        environment = json.loads((run / "environment.json").read_text())
        assert set(environment) >= {"packages", "device", "threads", "seed", "data"}
        assert environment["data"]["train"]["examples"] == 37 and environment["data"]["train"]["source"] == "train.csv"
        assert len(environment["data"]["test"]["sha256"]) == 64
        assert (run / "plots" / "training.png").stat().st_size > 10_000
        card = (run / "export" / "README.md").read_text()
        last = rows(run / "epochs.csv")[-1]
        assert f"{100 * float(last['eval_accuracy']):.2f}" in card and "has not been attacked" in card

    def test_a_row_for_each_step_the_last_partial_batch_included(self, finished):
        run, _, _ = finished
        log = rows(run / "log.csv")
        assert list(log[0]) == LOG
        assert [int(row["step"]) for row in log] == list(range(1, 11))
        assert [int(row["epoch"]) for row in log] == [1] * 5 + [2] * 5
        assert all(float(row["tokens_per_second"]) > 0 for row in log)
        assert {row["flooded"] for row in log} == {"0"}
        assert float(log[0]["loss"]) == pytest.approx(np.log(2), abs=0.5)

    def test_a_row_for_each_epoch(self, finished):
        run, _, _ = finished
        epochs = rows(run / "epochs.csv")
        assert list(epochs[0]) == EPOCHS and [row["epoch"] for row in epochs] == ["1", "2"]
        losses = np.array(column(run, "loss"), float).reshape(2, 5)
        for row, step_losses in zip(epochs, losses, strict=True):
            assert float(row["train_loss"]) == pytest.approx(np.average(step_losses, weights=SIZES), rel=1e-5)
            assert float(row["seconds"]) > 0

    def test_the_learning_rate_is_transformers_and_the_optimisers(self, finished):
        run, settings, training = finished
        parameter = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.SGD([parameter], lr=settings.learning_rate)
        schedule = transformers.get_linear_schedule_with_warmup(optimizer, 3, 10)  # 0.3 of 10 steps
        for step, logged in enumerate(column(run, "learning_rate")):
            assert float(logged) == pytest.approx(schedule.get_last_lr()[0], rel=1e-6, abs=1e-12)
            used = float(training.optimizer.learning_rate(Tensor([step], ms.int32)).asnumpy().item())
            assert used == pytest.approx(float(logged), rel=1e-6, abs=1e-12)
            optimizer.step()
            schedule.step()
        assert int(training.optimizer.global_step.asnumpy().item()) == 10

    def test_one_graph_for_training_and_one_for_evaluation(self, finished):
        _, _, training = finished
        assert len(training.defence.step.compile_cache) == 1
        assert len(training.evaluator.forward.compile_cache) == 1
        assert training.compile_seconds > 0

    def test_a_checkpoint_for_each_epoch_when_asked(self, finished):
        run, _, _ = finished
        first, second = (
            BertForSequenceClassification.from_pretrained(run / "checkpoints" / f"epoch-{epoch}").state()
            for epoch in (1, 2)
        )
        assert bits(second) == bits(weights(run)) and bits(first) != bits(second)


class TestTheExport:
    def test_evaluation_is_what_pytorch_gives_with_the_exported_model(self, finished, small):
        run, _, _ = finished
        model = transformers.AutoModelForSequenceClassification.from_pretrained(run / "export").eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(run / "export")
        assert model.config.id2label == {0: "bad", 1: "good"}
        test = rows(small / "test.csv")
        labels = torch.tensor([model.config.label2id[row["opinion"]] for row in test])
        with torch.no_grad():
            logits = model(**tokenizer([row["review"] for row in test], padding=True, return_tensors="pt")).logits
        last = rows(run / "epochs.csv")[-1]
        assert float(last["eval_loss"]) == pytest.approx(
            torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5
        )
        assert float(last["eval_accuracy"]) == pytest.approx((logits.argmax(1) == labels).float().mean().item())

    def test_a_pipeline_answers_in_the_users_words(self, finished):
        run, _, _ = finished
        classify = transformers.pipeline("text-classification", model=str(run / "export"))
        assert {answer["label"] for answer in classify(["A good film.", "A bad film."], top_k=None)[0]} == {
            "bad",
            "good",
        }

    def test_the_weights_are_the_checkpoints(self, finished):
        run, _, _ = finished
        exported = BertForSequenceClassification.from_pretrained(run / "export")
        assert bits(exported.state()) == bits(weights(run))
        assert bits(BertForSequenceClassification.from_pretrained(run).state()) == bits(weights(run))


class TestSeeds:
    def test_the_same_seed_in_another_process_gives_the_same_bits(self, given, finished, small):
        again = small / "again"
        command = [sys.executable, ROOT / "run" / "train.py", *command_line(given | {"output_dir": str(again)})]
        said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=small).stdout
        assert f"run folder: {again}" in said and "python run/attack.py" in said
        assert "compiled in " in said and "largest logit difference to PyTorch" in said
        for name in ("loss", "learning_rate", "flooded"):
            assert column(again, name) == column(finished[0], name)
        assert bits(weights(again)) == bits(weights(finished[0]))
        assert [row["eval_loss"] for row in rows(again / "epochs.csv")] == [
            row["eval_loss"] for row in rows(finished[0] / "epochs.csv")
        ]

    def test_another_seed_is_another_run(self, given, finished, small):
        other = train(**given | {"seed": 1, "output_dir": str(small / "seed1")})
        assert column(other, "loss")[0] != column(finished[0], "loss")[0]
        assert bits(weights(other)) != bits(weights(finished[0]))

    def test_flooding_leaves_fine_tuning_at_the_first_step_below_the_level(self, given, finished, small):
        """Same seed, same masks, same order: everything before and in that step is equal to the last bit."""
        plain = np.array(column(finished[0], "loss"), float)
        lowest = np.minimum.accumulate(plain)
        # the first new minimum at a step whose rate is above 0, and a level that only this step's loss is below
        step = next(index for index in range(1, 9) if plain[index] < lowest[index - 1])
        level = (plain[step] + lowest[step - 1]) / 2
        flooded = train(
            **given
            | {
                "method": "flooding",
                "flood_level": float(level),
                "output_dir": str(small / "flooding"),
                "dataset": "reviews",
            }
        )
        losses = column(flooded, "loss")
        assert losses[: step + 1] == column(finished[0], "loss")[: step + 1]
        assert losses[step + 1] != column(finished[0], "loss")[step + 1]
        assert [int(flag) for flag in column(flooded, "flooded")] == [int(float(loss) < level) for loss in losses]
        assert yaml.safe_load((flooded / "config.yaml").read_text())["flood_level"] == float(level)


class TestStopped:
    def test_a_finished_run_is_not_replaced_by_mistake(self, given, finished, monkeypatch):
        monkeypatch.setattr("mindspore_floodx.trainer.load_data", lambda settings: pytest.fail("too late"))
        with pytest.raises(UserError, match="holds a finished run"):
            train(**given | {"output_dir": str(finished[0])})

    def test_a_loss_that_is_no_number(self, given, small):
        run = small / "nan"
        with pytest.raises(UserError) as refused:
            train(
                **given
                | {"learning_rate": 1e30, "warmup_ratio": 0.0, "output_dir": str(run), "checkpoint_every_steps": 1}
            )
        said = re.match(
            r"the loss is (nan|inf) at step (\d+) \(epoch 1, learning rate .*e.29, examples ([\d, ]+) of the training "
            r"data, from 0\); no checkpoint was written of this \((.*)\); try a smaller --learning-rate",
            str(refused.value),
        )
        step, examples = int(said[2]), [int(each) for each in said[3].split(", ")]
        assert step == len(rows(run / "log.csv")) + 1
        assert examples == epoch_order(37, 0, 0)[8 * (step - 1) :][:8].tolist()
        states = sorted((run / "state").glob("step-*")) if (run / "state").exists() else []
        assert said[4].endswith(str(states[-1]) if states else "there is no earlier one yet")
        if states:
            assert all(np.isfinite(array).all() for array in run_state.load(run).arrays.values())
        assert not (run / "checkpoint").exists() and not (run / "export").exists()
        assert all(np.isfinite(float(loss)) for loss in column(run, "loss"))

    def test_a_last_step_that_ruins_the_model(self, given, small):
        run = small / "ruined"
        with pytest.raises(UserError, match=r"the loss is (nan|inf) at the evaluation after epoch 1"):
            train(
                **given
                | {"learning_rate": 1e30, "warmup_ratio": 0.0, "epochs": 1, "batch_size": 64, "output_dir": str(run)}
            )
        assert len(rows(run / "log.csv")) == 1 and not (run / "checkpoint").exists()

    def test_more_tokens_than_positions(self, given, small):
        with pytest.raises(UserError, match="has only 64 positions; give --max-length 64 or less"):
            train(**given | {"max_length": 65, "output_dir": str(small / "long")})


class TestWhatToTrainOn:
    @pytest.mark.parametrize(
        "change, said",
        [
            ({"label_column": None}, "need all three of --train, --text-column and --label-column"),
            ({"train_file": None}, "need all three"),
            ({"eval_file": None}, "--eval-file FILE"),
            ({"text_column": "revue"}, "revue"),
            (
                {"text_column": None, "label_column": None, "dataset": "sst"},
                r"no data set 'sst' \(did you mean 'sst2'\?\)",
            ),
        ],
    )
    def test_refused(self, given, small, change, said):
        with pytest.raises(UserError, match=said):
            train(**{"output_dir": str(small / "none")} | given | change)
        assert not (small / "none").exists()

    def test_settings_in_two_ways(self, given):
        with pytest.raises(UserError, match="not both"):
            train(resolve(given), epochs=3)

    def test_a_share_of_the_training_file(self, given):
        data = load_data(resolve(given | {"eval_file": None, "eval_fraction": 0.2, "max_train_examples": 20}))
        assert len(data.train) == 20 and data.num_labels == 2 and data.name == "custom"


def test_real_mrpc_pairs(shared_data, given, small):
    """Pairs from the official files with F1 beside accuracy: what PyTorch gives with the exported model."""
    run = train(
        dataset="mrpc",
        data_dir=str(shared_data / "glue"),
        max_train_examples=32,
        epochs=1,
        max_length=64,
        learning_rate=1e-3,
        model=given["model"],
        threads=1,
        output_dir=str(small / "mrpc"),
    )
    assert len(rows(run / "log.csv")) == 2
    (epoch,) = rows(run / "epochs.csv")
    assert list(epoch) == [*EPOCHS[:-1], "eval_f1", "seconds"]
    data = json.loads((run / "environment.json").read_text())["data"]
    assert data["train"]["examples"] == 32 and data["validation"]["examples"] == 408
    model = transformers.AutoModelForSequenceClassification.from_pretrained(run / "export").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(run / "export")
    split = load_dataset("mrpc", shared_data / "glue").evaluation
    with torch.no_grad():
        tokens = tokenizer(split.texts, split.pairs, padding=True, truncation=True, max_length=64, return_tensors="pt")
        logits = model(**tokens).logits
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(split.labels).long()).item()
    assert float(epoch["eval_loss"]) == pytest.approx(loss, rel=1e-5)
    predicted = logits.argmax(1).numpy()
    assert float(epoch["eval_accuracy"]) == pytest.approx(sklearn.metrics.accuracy_score(split.labels, predicted))
    assert float(epoch["eval_f1"]) == pytest.approx(sklearn.metrics.f1_score(split.labels, predicted), rel=1e-6)
