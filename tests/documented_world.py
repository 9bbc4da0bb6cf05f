"""A folder in which documented commands find what they name: DATA, FILE, FOLDER, RUN, my.csv, runs/mrpc-flooding-0 ...

Names in the documentation's capitals are folders and files of that very name, so that commands are executed as they
stand there, letter by letter.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

from run_files import write_attack, write_run_files
from tiny_victim import NEIGHBOURS, export_tiny

from mindspore_floodx.demo_corpus import generate
from mindspore_floodx.official import OFFICIAL

RUNS = {"runs/mrpc-finetune-0": None, "runs/mrpc-flooding-0": 0.1, "runs/sst2-finetune-0": None}
RUNS |= {"runs/sst2-flooding-0": 0.1, "RUN": 0.1, "runs/reviews-finetune": None, "runs/reviews-floodingx": 0.1}
MRPC = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"
QNLI = "index\tquestion\tsentence\tlabel"


def make_world(folder: Path) -> None:
    """Writes small data sets in their official layouts, files of a user's, and finished runs with their models."""
    _write_data(folder / "DATA")
    _write_own_files(folder)
    (folder / "FILE").write_text(json.dumps(NEIGHBOURS), encoding="utf-8")
    models = {name: export_tiny(folder / "models" / name, OFFICIAL[name].label_names) for name in ("mrpc", "sst2")}
    for name in ("FOLDER", "MODEL_FOLDER", "standin-mlm", "exported"):
        shutil.copytree(models["sst2"], folder / name)
    from ckpt_convert import to_mindspore

    for name, level in RUNS.items():
        data = "mrpc" if "mrpc" in name else "sst2"
        run = write_run_files(folder / name, level, finished=False, dataset=data, data_dir="DATA", max_length=32)
        shutil.copytree(models[data], run / "export")
        to_mindspore(models[data], run / "checkpoint")
        write_attack(run, "textfooler", ["failed", "succeeded", "skipped"])


def _write_data(folder: Path) -> None:
    data = generate(seed=0, n_train=60, n_eval=400)  # 400: a calibration needs 200 in each half
    train, evaluation = (
        list(zip(each.texts, each.labels.tolist(), strict=True)) for each in (data.train, data.evaluation)
    )
    for part, name in ((train, "train"), (evaluation, "dev")):
        lines = [f"{text}\t{label}" for text, label in part]
        _put(folder / f"SST-2/{name}.tsv", ["sentence\tlabel", *lines])
        part = part[:40]
        _put(folder / f"MRPC/{name}.tsv", [MRPC, *(f"{label}\t1\t2\t{text}\t{text}" for text, label in part)])
        words = ("entailment", "not_entailment")
        _put(folder / f"QNLI/{name}.tsv", [QNLI, *(f"{i}\twhy?\t{t}\t{words[n]}" for i, (t, n) in enumerate(part))])
    for name in ("train", "test"):
        lines = [f'"{1 + i % 4}","{text}","more"' for i, (text, _) in enumerate(train)]
        _put(folder / f"ag_news/{name}.csv", lines)
        for i, (text, label) in enumerate(train[:20]):
            _put(folder / f"imdb/aclImdb/{name}/{('neg', 'pos')[label]}/{i}_1.txt", [text])


def _write_own_files(folder: Path) -> None:
    data = generate(seed=1, n_train=40, n_eval=12)
    for part, name in ((data.train, "my.csv"), (data.evaluation, "my_test.csv")):
        with open(folder / name, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("review", "stars"))
            writer.writerows(
                (text, ("one", "five")[label]) for text, label in zip(part.texts, part.labels, strict=True)
            )
    pairs = zip(data.train.texts, data.train.labels, strict=True)
    _put(folder / "my.jsonl", [json.dumps({"a": text, "b": text, "same": bool(label)}) for text, label in pairs])


def _put(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
