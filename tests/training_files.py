"""A short training run on files of a user's: a model of one layer, 37 training and 20 evaluation examples."""

import csv
import shutil
from pathlib import Path
from typing import Any

SIZES = [8, 8, 8, 8, 5]  # 37 examples in batches of 8: the last one is smaller


def make_training_files(folder: Path, minilm_folder: Path) -> dict[str, Any]:
    """Writes model, train.csv and test.csv, with labels in words; returns the settings of a run on them.

    The learning rate is high, so that two epochs change the model.
    """
    import mindspore as ms

    from mindspore_floodx.bert import BertConfig, BertForSequenceClassification
    from mindspore_floodx.demo_corpus import generate

    ms.set_seed(0)
    config = BertConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
        initializer_range=0.1,
    )
    BertForSequenceClassification(config).save_pretrained(folder / "model")
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(minilm_folder / name, folder / "model")
    data = generate(seed=0, n_train=sum(SIZES), n_eval=20)
    for split, name in ((data.train, "train.csv"), (data.evaluation, "test.csv")):
        with open(folder / name, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["review", "opinion"])
            writer.writerows(zip(split.texts, (["bad", "good"][label] for label in split.labels), strict=True))
    return {
        "train_file": str(folder / "train.csv"),
        "eval_file": str(folder / "test.csv"),
        "text_column": "review",
        "label_column": "opinion",
        "model": str(folder / "model"),
        "max_length": 64,
        "epochs": 2,
        "batch_size": 8,
        "eval_batch_size": 6,
        "learning_rate": 1e-3,
        "warmup_ratio": 0.3,
        "threads": 1,
    }


def command_line(settings: dict[str, Any]) -> list[str]:
    """Returns settings as options of run/train.py."""
    names = {"train_file": "--train"}
    options = ((names.get(name, "--" + name.replace("_", "-")), str(value)) for name, value in settings.items())
    return [word for option in options for word in option]


def rows(path: Path) -> list[dict[str, str]]:
    """Returns the rows of a CSV file as dictionaries of text."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
