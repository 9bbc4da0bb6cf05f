"""Accordance of a finished run, or of any model on any data: by checkpoint, by class, by pair of batches."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .accordance_result import AccordanceOfGradients, accordance_from_products
from .device import use_device
from .encoding import encode, epoch_order, load_tokenizer, make_batch
from .errors import UserError
from .files import write_json
from .model_config import labels_of, read_config
from .pretrained import find_model
from .runs import settings_of
from .settings import TrainSettings, resolve
from .training_inputs import load_data

MOST_BATCHES_OF_A_MATRIX = 64
_COLUMNS = 1 << 16  # parameters taken at a time in the products of whole gradients


def measure_accordance(
    source: str | Path,
    *,
    num_batches: int | None = 16,
    parameters: str | None = None,
    batch_matrix: bool = False,
    every_epoch: bool = False,
    output_dir: str | Path | None = None,
    **given: Any,
) -> list[dict[str, Any]]:
    """Measures the accordance of a model on the first batches of an epoch, dropout off (a snapshot).

    Args:
        source: a run folder, whose data and batch size are then the run's, or a model as `--model` takes it.
        num_batches: so many batches; None takes all of an epoch.
        parameters: a regular expression; the accordance of the parameters in whose name it is found is measured too,
            to be compared with that of all.
        batch_matrix: also the accordance of every batch with every other; all class gradients are held in a temporary
            file for it, so there are at most 64 batches.
        every_epoch: measure every checkpoint of a run that was trained with `save_every_epoch`, not only the last.
        output_dir: gets accordance.json and the pictures; by default <run folder>/accordance, for a bare model nothing
            is written.
        given: settings that are not the run's, as `train` takes them: `dataset`, `data_dir`, `batch_size`, ...

    Returns:
        for each checkpoint a dictionary: checkpoint, accordance, same_class, class_matrix, batches, undefined; with
        `parameters` also parameters and accordance_of_parameters; with `batch_matrix` also that.

    Raises:
        UserError: no such run or model, wrong settings or data, or too many batches for a matrix.
    """
    if num_batches is not None and num_batches < 1:
        raise UserError(f"num_batches is {num_batches}; it must be at least 1")
    source = Path(source)
    is_run = (source / "config.yaml").is_file()
    settings = _settings(source, is_run, given)
    models = _models(source, is_run, every_epoch)
    folder = find_model(models[0])
    dataset = load_data(settings)
    _demand_same_classes(folder, dataset.label_names)
    use_device(settings.device, settings.threads)
    from .accordance import GradientAccordance
    from .bert import BertForSequenceClassification

    encoded = encode(dataset.train, load_tokenizer(folder), settings.max_length)
    order = epoch_order(len(encoded), settings.seed, 0)
    starts = range(0, len(order), settings.batch_size)[:num_batches]
    if batch_matrix and len(starts) > MOST_BATCHES_OF_A_MATRIX:
        raise UserError(f"a matrix of {len(starts)} batches is too large; give --batches {MOST_BATCHES_OF_A_MATRIX}")
    batches = [make_batch(encoded, order[start : start + settings.batch_size]) for start in starts]
    rows = []
    for path in models:
        model = BertForSequenceClassification.from_pretrained(path, label_names=list(dataset.label_names))
        measure = GradientAccordance(model)
        for batch in batches:
            measure.add(batch)
        result = measure.result()
        row = {
            "checkpoint": Path(path).name,
            "accordance": _number(result.value),
            "same_class": _number(result.same_class),
            "class_matrix": [[_number(value) for value in values] for values in result.class_matrix],
            "batches": result.batches,
            "undefined": result.undefined,
        }
        if parameters is not None:
            part = GradientAccordance(model, parameters=parameters)
            for batch in batches:
                part.add(batch)
            row |= {"parameters": parameters, "accordance_of_parameters": _number(part.result().value)}
        if batch_matrix:
            matrix = of_all_pairs(measure, batches).batch_matrix
            row["batch_matrix"] = [[_number(value) for value in values] for values in matrix]
        rows.append(row)
    target = Path(output_dir) if output_dir else source / "accordance" if is_run else None
    if target:
        _write(target, rows, settings, batch_matrix)
    return rows


def of_all_pairs(measure: Any, batches: Iterable[Mapping[str, np.ndarray]]) -> AccordanceOfGradients:
    """Returns the accordance of a few batches from all pairs of class gradients, with the batch matrix.

    Whole gradients go to a temporary file (4 bytes a parameter, class and batch; of the word embeddings only the rows
    of each batch's words), since those of BERT-base for 64 batches would not fit into memory.

    Args:
        measure: a `GradientAccordance`; it measures with its own parameters, in its own way.
        batches: at most 64.
    """
    batches = list(batches)
    words: list[np.ndarray] = []
    by_word: list[np.ndarray] = []
    with tempfile.TemporaryFile() as file:
        for batch in batches:
            ids, classes = measure.class_gradients(batch)
            for gradients in classes:
                words.append(ids)
                by_word.append(gradients[0].asnumpy())
                for tensor in gradients[1:]:
                    file.write(np.ascontiguousarray(tensor.asnumpy(), np.float32).tobytes())
        file.flush()
        rows = len(words)
        whole = np.memmap(file, np.float32, "r").reshape(rows, -1)
        products = np.zeros((rows, rows))
        for start in range(0, whole.shape[1], _COLUMNS):
            part = np.array(whole[:, start : start + _COLUMNS])
            products += part @ part.T
        del whole
    vocabulary = np.unique(np.concatenate(words))
    size = by_word[0].shape[1]
    for start in range(0, len(vocabulary), _COLUMNS // size):
        some = vocabulary[start : start + _COLUMNS // size]
        part = np.zeros((rows, len(some), size), np.float32)
        for row, (ids, values) in enumerate(zip(words, by_word, strict=True)):
            chosen = np.isin(ids, some)
            part[row, np.searchsorted(some, ids[chosen])] = values[chosen]
        flat = part.reshape(rows, -1)
        products += flat @ flat.T
    shape = (len(batches), measure.num_classes)
    # a class that a batch lacks has gradient 0, which counts as absent
    return accordance_from_products(products.reshape(*shape, *shape), np.ones(shape, bool))


def _settings(source: Path, is_run: bool, given: Mapping[str, Any]) -> TrainSettings:
    given = {name: value for name, value in given.items() if value is not None}
    if not is_run:
        return resolve({"model": str(source)} | given)
    return settings_of(source, given)


def _models(source: Path, is_run: bool, every_epoch: bool) -> list[Path]:
    if not is_run:
        if every_epoch:
            raise UserError(f"{source} is no run folder, so it has no checkpoint of every epoch")
        return [source]
    saved = sorted((source / "checkpoints").glob("epoch-*"), key=lambda path: int(path.name.split("-")[1]))
    if every_epoch and not saved:
        raise UserError(f"{source / 'checkpoints'} holds no checkpoint; train with --save-every-epoch")
    last = source / "checkpoint"
    if not last.exists():
        raise UserError(f"{last} is missing: the run is not finished; train it again")
    return saved if every_epoch else [last]


def _demand_same_classes(folder: Path, names: Sequence[str]) -> None:
    """Refuses a trained classifier whose classes are the data's in another order: its gradients would be wrong."""
    labels = list(labels_of(read_config(folder)).values())
    if labels != list(names) and sorted(labels) == sorted(names):
        raise UserError(
            f"{folder / 'config.json'}: the classes are in the order {', '.join(labels)}, those of the data "
            f"{', '.join(names)}; reorder id2label and the rows of the classifier"
        )


def _write(target: Path, rows: list[dict[str, Any]], settings: TrainSettings, batch_matrix: bool) -> None:
    from .plots import plot_batch_matrix

    write_json(target / "accordance.json", rows)
    if batch_matrix:
        for row in rows:
            matrix = np.array(row["batch_matrix"], dtype=float)
            title = f"accordance between batches (eq. 12), {settings.dataset}, {row['checkpoint']}"
            plot_batch_matrix(matrix, target / f"batches-{row['checkpoint']}.png", title)


def _number(value: float) -> float | None:
    """A number for JSON, which has no NaN."""
    return None if np.isnan(value) else float(value)
