"""`floodx-data`: check data before training on it, and print Table 1 (sizes and mean words) from the data itself."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ..data import DATASETS, TextDataset, describe, load_dataset, load_files
from ..errors import UserError, nearest, printable
from ..files import replacing, write_json

EXAMPLES = """\
examples:
  # Table 1 for every data set whose official files lie under one folder (glue/, imdb/, ag_news/)
  %(prog)s --stats --dataset all --data-dir DATA

  # one data set; without --data-dir it comes from the Hugging Face hub
  %(prog)s --stats --dataset mrpc --data-dir DATA/glue

  # a training file that is only a part of the official one has to be asked for
  %(prog)s --dataset qnli --data-dir DATA/glue --train train_partial.tsv

  # your own files: every row is checked, and a bad one is named by its line
  %(prog)s --train my.csv --eval-file my_test.csv --text-column review --label-column stars --show 3

  # pairs of texts, with a tenth of the training file held out for evaluation
  %(prog)s --train my.jsonl --eval-fraction 0.1 --text-column a --text-pair-column b --label-column same

official layouts (found in --data-dir itself, in the folder named here, or in glue/ for the first three):
  sst2     SST-2/train.tsv, dev.tsv
  mrpc     MRPC/train.tsv, dev.tsv (or msr_paraphrase_train.txt, msr_paraphrase_test.txt)
  qnli     QNLI/train.tsv, dev.tsv
  imdb     imdb/aclImdb/ or imdb/aclImdb_v1.tar.gz (also .tar.xz, .tar.bz2, .tar)
  ag_news  ag_news/train.csv, test.csv
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the data named on the command line, prints what is asked for, and returns the exit status."""
    arguments = _parser().parse_args(argv)
    datasets, failures = _load(arguments)
    rows = [describe(dataset) for dataset in datasets]
    if arguments.output:
        _write(Path(arguments.output), rows)
    shown = [_shown(row) for row in rows]
    alignment = ["left" if key in ("data set", "split") else "right" for key in shown[0]]
    print(tabulate(shown, headers="keys", tablefmt="github", disable_numparse=True, colalign=alignment))
    for row in rows:
        for part in ("train", "evaluation"):
            if row[f"{part}_partial"]:
                print(f"partial: {row['dataset']} {part} is {row[f'{part}_source']}, a part of the official data")
    if not arguments.stats:
        for dataset in datasets:
            _print_details(dataset, arguments.show)
    for failure in failures:
        print(f"left out: {failure}", file=sys.stderr)
    if any("train_partial" in failure for failure in failures):
        print("--allow-partial includes training files that are only a part of the official one", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Check data and print its statistics, for the data sets of the paper and for your own files.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--stats", action="store_true", help="print the table alone, without label counts and examples")
    add(
        "--dataset",
        nargs="+",
        metavar="NAME",
        help=f"{', '.join(DATASETS)}, or all for every one that is there (the default without --train)",
    )
    add("--data-dir", metavar="DIR", help="folder with the official files; without it, the Hugging Face hub")
    add("--train", metavar="FILE", help="your own training file; with --dataset, a file name in its folder")
    add("--eval-file", metavar="FILE", help="likewise for evaluation")
    add("--eval-fraction", type=float, metavar="SHARE", help="hold out this share of your training file instead")
    add("--seed", type=int, default=0, metavar="N", help="draws the share that is held out (default 0)")
    add("--text-column", metavar="NAME", help="column of the text in your files")
    add("--text-pair-column", metavar="NAME", help="column of the second text, for pairs")
    add("--label-column", metavar="NAME", help="column of the label")
    add("--allow-partial", action="store_true", help="take train_partial files where the whole file is not there")
    add("--max-train-examples", type=int, metavar="N", help="only the first N training examples")
    add("--min-words", type=int, metavar="N", help="only training examples of at least N words")
    add("--show", type=int, default=0, metavar="N", help="print the first N training examples")
    add("--output", metavar="FILE", help="write the table, with sources and fingerprints, to a .csv or .json file")
    return parser


def _load(arguments: argparse.Namespace) -> tuple[list[TextDataset], list[str]]:
    """The data sets asked for, and for "all" the reasons why some are left out."""
    if arguments.output and Path(arguments.output).suffix not in (".csv", ".json"):
        raise UserError(f"--output {arguments.output}: the format follows from the name; end it in .csv or .json")
    cut: dict[str, Any] = {"max_train_examples": arguments.max_train_examples, "min_words": arguments.min_words}
    if arguments.dataset is None and arguments.train:
        return [_own_files(arguments, cut)], []
    own = ("text_column", "text_pair_column", "label_column", "eval_fraction")
    if given := [name for name in own if getattr(arguments, name) is not None]:
        option = "--" + given[0].replace("_", "-")
        raise UserError(f"{option} is for your own files; give them with --train FILE and leave --dataset out")
    names = arguments.dataset or ["all"]
    everything = names == ["all"]
    for name in names:
        if name not in (*DATASETS, "all"):
            choices = ", ".join((*DATASETS, "all"))
            raise UserError(f"--dataset {name}: there is no such data set{nearest(name, DATASETS)}; use {choices}")
    if "all" in names and len(names) > 1:
        raise UserError("--dataset all already stands for every data set; leave the other names out")
    if len(DATASETS if everything else names) > 1 and (arguments.train or arguments.eval_file):
        raise UserError("--train and --eval-file name files of one data set; give one --dataset with them")
    if arguments.data_dir is not None and not Path(arguments.data_dir).exists():
        raise UserError(f"--data-dir {arguments.data_dir}: no such folder; name the one that holds the official files")
    datasets, failures = [], []
    for name in DATASETS if everything else names:
        try:
            datasets.append(
                load_dataset(
                    name,
                    None if name == "demo" else arguments.data_dir,
                    train_file=arguments.train,
                    eval_file=arguments.eval_file,
                    allow_partial=arguments.allow_partial,
                    **cut,
                )
            )
        except UserError as error:
            if not everything:
                raise
            failures.append(str(error))
    return datasets, failures


def _own_files(arguments: argparse.Namespace, cut: dict[str, Any]) -> TextDataset:
    for option in ("text_column", "label_column"):
        if getattr(arguments, option) is None:
            flag = "--" + option.replace("_", "-")
            raise UserError(f"{arguments.train}: {flag} is missing; name the column, or give --dataset with --train")
    if arguments.data_dir is not None:
        raise UserError("--data-dir is for --dataset; give the whole path of your own file to --train")
    return load_files(
        arguments.train,
        arguments.eval_file,
        text_column=arguments.text_column,
        text_pair_column=arguments.text_pair_column,
        label_column=arguments.label_column,
        eval_fraction=arguments.eval_fraction,
        seed=arguments.seed,
        **cut,
    )


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """The columns of the printed table; an asterisk marks a part of the official data."""

    def size(part: str) -> str:
        return f"{row[f'{part}_examples']:,}{'*' if row[f'{part}_partial'] else ''}"

    return {
        "data set": row["dataset"],
        "train": size("train"),
        "evaluation": size("evaluation"),
        "split": row["evaluation_split"],
        "classes": row["classes"],
        "mean words (train)": f"{row['train_mean_words']:.1f}",
        "mean words (evaluation)": f"{row['evaluation_mean_words']:.1f}",
    }


def _print_details(dataset: TextDataset, show: int) -> None:
    print(f"\n{dataset.name}: columns {', '.join(dataset.text_columns)}")
    for split in (dataset.train, dataset.evaluation):
        counts = [int((split.labels == label).sum()) for label in range(dataset.num_labels)]
        named = ", ".join(f"{name} {count:,}" for name, count in zip(dataset.label_names, counts, strict=True))
        print(f"  {split.name}: {named} (from {split.source}, fingerprint {split.fingerprint[:12]})")
    train = dataset.train
    for position in range(min(show, len(train))):
        print(f"  [{dataset.label_names[train.labels[position]]}] {printable(train.texts[position])}")
        if train.pairs is not None:
            print(f"      {printable(train.pairs[position])}")


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".json":
        write_json(path, rows)
        return
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
