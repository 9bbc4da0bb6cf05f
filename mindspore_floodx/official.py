"""The five data sets of the paper in their official layouts: which files, which columns, which labels.

Accepted under a data folder: the data set's own folder (``MRPC/``), that folder inside ``glue/``, or the data folder
itself being it. A file that holds only a part of the official data is used when it is asked for, and never otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from . import imdb
from .errors import UserError, nearest
from .readers import SUFFIXES, read_rows
from .splits import TextDataset, TextSplit, split_from_rows


@dataclass(frozen=True)
class Layout:
    """A pair of files that belong together, with the official numbers of examples."""

    train: str
    evaluation: str
    train_size: int
    evaluation_size: int


@dataclass(frozen=True)
class Official:
    """A published data set.

    Attributes:
        label_names: names of labels 0, 1, ..., as on the Hugging Face hub.
        text_columns: our names of the text columns, as on the hub.
        folders: names of its folder.
        layouts: its official files, the preferred ones first.
        file_columns: the text columns of its .tsv and .csv files; more than `text_columns` are joined with spaces.
        file_label: their label column.
        file_labels: what that column holds, in the order of `label_names`.
        hub: repository and configuration on the hub.
        evaluation: the split that is evaluated (method.md: validation for GLUE, test otherwise).
        header: the column names, for files without a header line.
    """

    label_names: tuple[str, ...]
    text_columns: tuple[str, ...]
    folders: tuple[str, ...]
    layouts: tuple[Layout, ...]
    file_columns: tuple[str, ...]
    file_label: str
    file_labels: tuple[str, ...]
    hub: tuple[str, str | None]
    evaluation: str = "validation"
    header: tuple[str, ...] | None = None


OFFICIAL = {
    "sst2": Official(
        label_names=("negative", "positive"),
        text_columns=("sentence",),
        folders=("SST-2", "sst2"),
        layouts=(Layout("train.tsv", "dev.tsv", 67349, 872),),
        file_columns=("sentence",),
        file_label="label",
        file_labels=("0", "1"),
        hub=("nyu-mll/glue", "sst2"),
    ),
    "mrpc": Official(
        label_names=("not_equivalent", "equivalent"),
        text_columns=("sentence1", "sentence2"),
        folders=("MRPC", "mrpc"),
        # GLUE's dev.tsv is cut out of Microsoft's training file, so files of the two layouts must not meet
        layouts=(
            Layout("train.tsv", "dev.tsv", 3668, 408),
            Layout("msr_paraphrase_train.txt", "msr_paraphrase_test.txt", 4076, 1725),
        ),
        file_columns=("#1 String", "#2 String"),
        file_label="Quality",
        file_labels=("0", "1"),
        hub=("nyu-mll/glue", "mrpc"),
    ),
    "qnli": Official(
        label_names=("entailment", "not_entailment"),
        text_columns=("question", "sentence"),
        folders=("QNLI", "qnli"),
        layouts=(Layout("train.tsv", "dev.tsv", 104743, 5463),),
        file_columns=("question", "sentence"),
        file_label="label",
        file_labels=("entailment", "not_entailment"),
        hub=("nyu-mll/glue", "qnli"),
    ),
    "imdb": Official(
        label_names=imdb.LABEL_NAMES,
        text_columns=("text",),
        folders=("imdb", "aclImdb"),
        layouts=(Layout("train", "test", 25000, 25000),),
        file_columns=(),
        file_label="",
        file_labels=(),
        hub=("stanfordnlp/imdb", None),
        evaluation="test",
    ),
    "ag_news": Official(
        label_names=("World", "Sports", "Business", "Sci/Tech"),
        text_columns=("text",),
        folders=("ag_news", "ag_news_csv", "AG_NEWS"),
        layouts=(Layout("train.csv", "test.csv", 120000, 7600),),
        file_columns=("title", "description"),
        file_label="class",
        file_labels=("1", "2", "3", "4"),
        hub=("fancyzhx/ag_news", None),
        evaluation="test",
        header=("class", "title", "description"),
    ),
}


def read_official(
    name: str, data_dir: str | Path, *, train_file: str | None, eval_file: str | None, allow_partial: bool
) -> TextDataset:
    """Reads a data set from its official layout; see `data.load_dataset` for the arguments.

    Raises:
        UserError: the files are not there, only a partial one is and it was not asked for, or a row is bad.
    """
    official = OFFICIAL[name]
    data_dir = Path(data_dir)
    if not data_dir.exists():
        raise UserError(f"{data_dir}: no such folder; set --data-dir to the folder that holds {name}'s official files")
    if name == "imdb":
        if train_file or eval_file:
            raise UserError(
                "imdb is read from its folder or archive, not from single files; leave --train and --eval-file out, "
                "or give both and their columns with --dataset custom"
            )
        train, evaluation = imdb.read_imdb(data_dir)
        sizes = official.layouts[0].train_size, official.layouts[0].evaluation_size
    else:
        folder = _folder(name, data_dir, train_file)
        train_path, eval_path, layout = _choose_files(name, folder, train_file, eval_file, allow_partial)
        sizes = layout.train_size, layout.evaluation_size
        train = _read(official, train_path, "train")
        evaluation = _read(official, eval_path, official.evaluation)
    return TextDataset(
        name,
        _mark_partial(train, sizes[0]),
        _mark_partial(evaluation, sizes[1]),
        list(official.label_names),
        official.text_columns,
    )


def _mark_partial(split: TextSplit, official_size: int) -> TextSplit:
    return replace(split, partial=len(split) < official_size)


def _folder(name: str, data_dir: Path, train_file: str | None) -> Path:
    """The first of the data set's possible folders that holds one of its files."""
    official = OFFICIAL[name]
    tried = [base / folder for base in (data_dir, data_dir / "glue") for folder in official.folders] + [data_dir]
    expected = {file for layout in official.layouts for file in (layout.train, layout.evaluation)}
    expected |= {train_file} if train_file else set()
    for folder in tried:
        if any((folder / file).is_file() for file in expected) or _partial_files(folder):
            return folder
    layout = official.layouts[0]
    raise UserError(
        f"{data_dir}: no {name} files; put {layout.train} and {layout.evaluation} into {tried[0]}, or point --data-dir "
        "to the folder that holds them"
    )


def _partial_files(folder: Path) -> list[str]:
    found = (path.name for suffix in SUFFIXES for path in folder.glob(f"train_partial*{suffix}"))
    return sorted(found)


def _choose_files(
    name: str, folder: Path, train_file: str | None, eval_file: str | None, allow_partial: bool
) -> tuple[Path, Path, Layout]:
    """The training and evaluation files, and the layout whose sizes they are compared with."""
    layouts = OFFICIAL[name].layouts
    by_name = {file: layout for layout in layouts for file in (layout.train, layout.evaluation)}
    layout = by_name.get(train_file or "") or next(
        (one for one in layouts if (folder / one.train).is_file()),
        next((one for one in layouts if (folder / one.evaluation).is_file()), layouts[0]),
    )
    partial = _partial_files(folder)
    if train_file is None and not (folder / layout.train).is_file():
        if partial and not allow_partial:
            raise UserError(
                f"{folder}: {name}'s training file {layout.train} is not there, only {partial[0]}, a part of it; ask "
                f"for it with --train {partial[0]}, or copy the whole file there"
            )
        train_file = partial[0] if partial else None
    train_path, eval_path = folder / (train_file or layout.train), folder / (eval_file or layout.evaluation)
    for path, option in ((train_path, "--train"), (eval_path, "--eval-file")):
        if not path.is_file():
            there = sorted(file.name for file in folder.iterdir() if file.suffix in SUFFIXES)
            raise UserError(
                f"{path}: no such file{nearest(path.name, there)}; {folder} has {', '.join(there) or 'no text files'}; "
                f"copy it there or name another with {option}"
            )
    return train_path, eval_path, layout


def _read(official: Official, path: Path, split: str) -> TextSplit:
    source = f"{path.parent.name}/{path.name}"
    if path.suffix == ".jsonl":  # not an official form: our column names, and labels as numbers or names
        columns, label = official.text_columns, "label"
        label_ids = {str(i): i for i in range(len(official.label_names))}
        label_ids |= {name: i for i, name in enumerate(official.label_names)}
        header = None
    else:
        columns, label, header = official.file_columns, official.file_label, official.header
        label_ids = {name: i for i, name in enumerate(official.file_labels)}
    rows = read_rows(path, [*columns, label], header=header)
    return split_from_rows(
        split, rows, columns, label, label_ids, join=len(columns) > len(official.text_columns), source=source
    )
