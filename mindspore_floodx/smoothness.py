"""How smooth the loss is around the data: loss and accuracy under Gaussian noise on the word embeddings.

Flooding-X, Figure 1: the mean test loss of a model whose word embeddings are shifted by N(0, a^2), against a. A curve
that rises late and slowly belongs to a model that small changes of its input do not move.

The noise of an example is drawn from [seed, draw, the example's place in the evaluation set] alone and scaled by a.
Neither the run nor the batch plays a role, so runs are compared on the same noise.
"""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from .attack_fingerprint import sha256_of_model
from .attack_source import choose_examples
from .data import TextDataset
from .device import stoppable, use_device
from .encoding import EncodedSplit, encode, load_tokenizer, make_batch
from .errors import UserError
from .files import demand_writable, replacing, write_json
from .model_config import labels_of, read_config
from .plots import plot_smoothness
from .runs import package_versions, settings_of
from .settings import DATA_SETTINGS, TrainSettings
from .training_inputs import load_data

DEVIATIONS = tuple(round(0.05 * step, 2) for step in range(11))  # 0 to 0.5


def measure_smoothness(
    runs: Sequence[str | os.PathLike],
    *,
    deviations: Sequence[float] = DEVIATIONS,
    draws: int = 5,
    num_examples: int | str = "all",
    seed: int = 0,
    batch_size: int | None = None,
    device: str = "CPU",
    threads: int | None = None,
    data_dir: str | None = None,
    labels: Sequence[str] | None = None,
    output_dir: str | os.PathLike | None = "runs/smoothness",
    progress: bool = True,
) -> dict[str, Any]:
    """Measures loss and accuracy of finished runs under N(0, a^2) added to their word embeddings, dropout off.

    Args:
        runs: run folders with one and the same evaluation set.
        deviations: the values of a, in any order; 0 is measured once, since all its draws are equal.
        draws: how often the noise is drawn anew.
        num_examples: so many random examples of the evaluation set, the same for every run, or ``all``.
        seed: of these examples and of the noise.
        batch_size: by default each run's `eval_batch_size`.
        device: `CPU` or `GPU`.
        threads: CPU threads; by default all cores.
        data_dir: where the data sets are now; by default where each run had them.
        labels: the curves' names; by default the run folders', with the method where the name does not tell it.
        output_dir: gets smoothness.csv (run, deviation, draw, loss, accuracy), smoothness.json and
            plots/smoothness.svg, .png and .pdf; None writes nothing.
        progress: show a progress bar.

    Returns:
        the content of smoothness.json: command, settings, data, versions, and for each run its `curve`, a row a
        deviation: deviation, loss_mean, loss_std, accuracy_mean, accuracy_std. The standard deviations are over the
        draws (n - 1 in the denominator), None for a single draw.

    Raises:
        UserError: a value out of range, a folder that is no finished run, runs with different evaluation sets or
            classes, an output folder that cannot be written, or a loss that is not finite.
    """
    deviations = _checked_deviations(deviations)
    for name, value in (("draws", draws), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise UserError(f"{name} is {value}; it must be at least 1")
    choose_examples(1, num_examples, seed)  # refuses what is out of range
    opened = _open_runs([Path(run) for run in runs], labels, data_dir)
    dataset = opened[0].dataset
    chosen = np.array(choose_examples(len(dataset.evaluation), num_examples, seed))
    if output_dir is not None:
        demand_writable(Path(output_dir))
    use_device(device, threads)
    encoded = [
        encode(run.dataset.evaluation, load_tokenizer(run.checkpoint), run.settings.max_length) for run in opened
    ]
    passes = sum(1 if deviation == 0 else draws for deviation in deviations)
    tokens = sum(int(split.lengths[chosen].sum()) for split in encoded) * passes
    tables = []
    with stoppable(), tqdm(total=tokens, unit="tok", unit_scale=True, disable=not progress, dynamic_ncols=True) as bar:
        for run, split in zip(opened, encoded, strict=True):
            bar.set_description(run.label)
            size = batch_size or run.settings.eval_batch_size
            tables.append(_measure(run, split, chosen, deviations, draws, seed, size, bar))
    table = pd.concat(tables, ignore_index=True)
    result = {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "settings": {
            "deviations": deviations,
            "draws": draws,
            "num_examples": num_examples,
            "seed": seed,
            "batch_size": batch_size,
            "device": device,
            "threads": threads,
        },
        "data": {
            "dataset": dataset.name,
            "split": dataset.evaluation.name,
            "source": dataset.evaluation.source,
            "partial": dataset.evaluation.partial,
            "sha256": dataset.evaluation.fingerprint,
            "classes": list(dataset.label_names),
            "examples": len(dataset.evaluation),
            "measured": len(chosen),
        },
        "versions": {"python": platform.python_version(), "packages": package_versions()},
        "runs": [run.described() | {"curve": _curve(table[table["run"] == run.label])} for run in opened],
    }
    if output_dir is not None:
        _write(Path(output_dir), table, result)
    return result


def noise(indices: Sequence[int] | np.ndarray, lengths: np.ndarray, hidden: int, seed: int, draw: int) -> np.ndarray:
    """Returns standard normal noise for a batch, float32 [batch, longest, hidden], 0 at padding.

    Args:
        indices: the examples' places in the evaluation set, [batch].
        lengths: their tokens, [CLS] and [SEP] included, [batch].
        hidden: size of a word embedding.
        seed: with `draw` and the example's place it decides the example's noise, whatever the batch.
        draw: number of the draw, from 0.
    """
    result = np.zeros((len(indices), int(max(lengths)), hidden), np.float32)
    for row, index, length in zip(result, indices, lengths, strict=True):
        generator = np.random.default_rng([seed, draw, int(index)])
        row[:length] = generator.standard_normal((int(length), hidden), np.float32)
    return result


@dataclass(frozen=True)
class _Run:
    """A finished run that has passed the checks."""

    folder: Path
    label: str
    settings: TrainSettings
    dataset: TextDataset

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"

    def described(self) -> dict[str, Any]:
        kept = ("method", "flood_level", "model", "seed", "max_length")
        return {
            "run": self.label,
            "folder": str(self.folder),
            **{name: getattr(self.settings, name) for name in kept},
            "sha256": sha256_of_model(self.checkpoint),
        }


def _open_runs(folders: list[Path], labels: Sequence[str] | None, data_dir: str | None) -> list[_Run]:
    """Returns the runs with settings, data and names of their curves, if they can be compared."""
    if not folders:
        raise UserError("there is no run to measure; give one or more run folders")
    settings = []
    for folder in folders:
        if not (folder / "config.yaml").is_file():
            raise UserError(f"{folder} is no run folder (it has no config.yaml); give a folder that run/train.py wrote")
        if not (folder / "export").exists() or not (folder / "checkpoint").exists():  # an old checkpoint may be left
            raise UserError(f"{folder} holds no finished run (it has no export/ or checkpoint/); train it again")
        settings.append(settings_of(folder, {} if data_dir is None else {"data_dir": data_dir}))
    names = _labels(folders, settings, labels)
    loaded: dict[tuple[Any, ...], TextDataset] = {}
    opened: list[_Run] = []
    for folder, made_with, name in zip(folders, settings, names, strict=True):
        key = tuple(getattr(made_with, field) for field in DATA_SETTINGS)
        if made_with.eval_fraction is not None:
            key = (*key, made_with.seed)  # which draws what is held out
        if key not in loaded:
            loaded[key] = load_data(made_with)
        opened.append(_Run(folder, name, made_with, loaded[key]))
        _demand_same_classes(opened[-1])
        _demand_same_data(opened[0], opened[-1])
    return opened


def _labels(folders: list[Path], settings: list[TrainSettings], given: Sequence[str] | None) -> list[str]:
    """Returns a different name for every curve: those given, the folders' names, or their paths if names meet."""
    if given is not None and len(given) != len(folders):
        raise UserError(f"--labels has {len(given)} names for {len(folders)} runs; give one name for each run")
    if given is not None:
        names = list(given)
    else:
        bare = [folder.resolve().name for folder in folders]
        if len(set(bare)) < len(bare):
            bare = [str(folder) for folder in folders]
        names = [
            name if made_with.method in name else f"{name} ({made_with.method})"
            for name, made_with in zip(bare, settings, strict=True)
        ]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two curves would be named {name!r}; give every run once, or --labels that differ")
    return names


def _demand_same_classes(run: _Run) -> None:
    classes = list(labels_of(read_config(run.checkpoint)).values())
    if classes != list(run.dataset.label_names):
        raise UserError(
            f"{run.checkpoint / 'config.json'} has the {len(classes)} classes {', '.join(classes)}, but the data "
            f"{run.dataset.name} has {', '.join(run.dataset.label_names)}; the run was trained on other data"
        )


def _demand_same_data(first: _Run, other: _Run) -> None:
    a, b = first.dataset, other.dataset
    if list(a.label_names) != list(b.label_names):
        raise UserError(
            f"{first.folder} has the {a.num_labels} classes {', '.join(a.label_names)} and {other.folder} the "
            f"{b.num_labels} classes {', '.join(b.label_names)}; compare runs on the same data set"
        )
    if a.evaluation.fingerprint != b.evaluation.fingerprint:
        raise UserError(
            f"{first.folder} was evaluated on {a.name} ({a.evaluation.source}, {len(a.evaluation)} examples) and "
            f"{other.folder} on others, {b.name} ({b.evaluation.source}, {len(b.evaluation)} examples); compare runs "
            "with the same evaluation set"
        )


def _checked_deviations(given: Sequence[float]) -> list[float]:
    if len(given) == 0:
        raise UserError("there is no standard deviation to measure at; give some, such as --deviations 0 0.1 0.2")
    for value in given:
        if not (math.isfinite(value) and value >= 0):
            raise UserError(f"the standard deviation {value:g} is no noise; --deviations takes numbers from 0")
    return sorted({float(value) for value in given})


def _measure(
    run: _Run,
    encoded: EncodedSplit,
    chosen: np.ndarray,
    deviations: list[float],
    draws: int,
    seed: int,
    batch_size: int,
    bar: tqdm,
) -> pd.DataFrame:
    """Returns the rows (run, deviation, draw, loss, accuracy) of a run; the longest examples are computed first."""
    from .bert import BertForSequenceClassification
    from .evaluation import PerturbedEvaluator, scores

    model = BertForSequenceClassification.from_pretrained(run.checkpoint)
    evaluator = PerturbedEvaluator(model)
    lengths, hidden = encoded.lengths, model.config.hidden_size
    order = chosen[np.argsort(-lengths[chosen], kind="stable")]
    logits = np.empty((len(deviations), draws, len(order), len(run.dataset.label_names)), np.float32)
    for start in range(0, len(order), batch_size):
        rows = slice(start, start + batch_size)
        batch, tokens = make_batch(encoded, order[rows]), int(lengths[order[rows]].sum())
        for draw in range(draws):
            standard = noise(order[rows], lengths[order[rows]], hidden, seed, draw)
            for place, deviation in enumerate(deviations):
                if deviation == 0 and draw > 0:
                    logits[place, draw, rows] = logits[place, 0, rows]
                    continue
                logits[place, draw, rows] = evaluator.logits(batch, np.float32(deviation) * standard)
                bar.update(tokens)
    table = []
    for place, deviation in enumerate(deviations):
        for draw in range(draws):
            found = scores(logits[place, draw], encoded.labels[order])
            if not math.isfinite(found["eval_loss"]):
                raise UserError(
                    f"{run.folder}: the loss is {found['eval_loss']} at a standard deviation of {deviation:g}; "
                    "leave such large ones out of --deviations, or train the run again"
                )
            table.append((run.label, deviation, draw, found["eval_loss"], found["eval_accuracy"]))
    return pd.DataFrame(table, columns=["run", "deviation", "draw", "loss", "accuracy"])


def _curve(table: pd.DataFrame) -> list[dict[str, float | None]]:
    """Returns a row a deviation: mean and standard deviation of loss and accuracy over the draws of one run."""
    curve = []
    for deviation, rows in table.groupby("deviation"):
        point: dict[str, float | None] = {"deviation": float(deviation)}  # type: ignore[arg-type]
        for name in ("loss", "accuracy"):
            point[f"{name}_mean"] = float(rows[name].mean())
            point[f"{name}_std"] = float(rows[name].std()) if len(rows) > 1 else None
        curve.append(point)
    return curve


def _write(folder: Path, table: pd.DataFrame, result: dict[str, Any]) -> None:
    with replacing(folder / "smoothness.csv") as temporary:
        table.to_csv(temporary, index=False)
    write_json(folder / "smoothness.json", result)
    data, draws = result["data"], result["settings"]["draws"]
    title = f"{data['dataset']}: noise on the word embeddings, {data['measured']:,} examples, {draws} draw"
    targets = [folder / "plots" / f"smoothness.{suffix}" for suffix in ("svg", "png", "pdf")]
    plot_smoothness(table, targets, title + "s" * (draws != 1))
