"""What a training is made of, from its settings: data, their order and batches, model and optimizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .data import DATASETS, TextDataset, load_dataset, load_files
from .encoding import EncodedSplit, bucketed_order, epoch_order, make_batch
from .errors import UserError, nearest
from .settings import TrainSettings

if TYPE_CHECKING:
    from .bert import BertForSequenceClassification
    from .optim import AdamW


def load_data(settings: TrainSettings) -> TextDataset:
    """Loads what the settings name: a known data set, or files of the user's.

    Raises:
        UserError: as `data.load_dataset` and `data.load_files` do.
    """
    if settings.text_column or settings.label_column:
        if not (settings.train_file and settings.text_column and settings.label_column):
            raise UserError("your own files need all three of --train, --text-column and --label-column")
        return load_files(
            settings.train_file,
            settings.eval_file,
            text_column=settings.text_column,
            text_pair_column=settings.text_pair_column,
            label_column=settings.label_column,
            eval_fraction=settings.eval_fraction,
            seed=settings.seed,
            max_train_examples=settings.max_train_examples,
            min_words=settings.min_words,
            name=settings.dataset,
        )
    if settings.dataset not in DATASETS:
        raise UserError(
            f"there is no data set {settings.dataset!r}{nearest(settings.dataset, DATASETS)}; choose "
            f"one of {', '.join(DATASETS)}, or give --train, --text-column and --label-column for your own"
        )
    return load_dataset(
        settings.dataset,
        settings.data_dir,
        train_file=settings.train_file,
        eval_file=settings.eval_file,
        max_train_examples=settings.max_train_examples,
        min_words=settings.min_words,
    )


def build_model(
    settings: TrainSettings, label_names: list[str], model_folder: Path, total_steps: int
) -> tuple[BertForSequenceClassification, AdamW, list[float]]:
    """Returns the model at the start of a run, its optimizer, and the learning rate of every step.

    Raises:
        UserError: the model has fewer positions than `max_length`.
    """
    import mindspore as ms

    from .bert import BertForSequenceClassification
    from .layers import compute_in_half
    from .loss_scale import LossScale
    from .optim import AdamW, linear_warmup_decay

    ms.set_seed(settings.seed)
    model = BertForSequenceClassification.from_pretrained(model_folder, label_names=label_names, seed=settings.seed)
    longest = model.config.max_position_embeddings
    if settings.max_length > longest:
        raise UserError(
            f"max_length is {settings.max_length}, but {settings.model} has only {longest} positions; "
            f"give --max-length {longest} or less"
        )
    if settings.recompute:
        model.bert.encoder.recompute_activations()
    loss_scale = None
    if settings.precision == "float16":
        assert settings.loss_scale and settings.loss_scale_steps
        compute_in_half(model.bert.encoder)
        loss_scale = LossScale(settings.loss_scale, settings.loss_scale_steps)
    rates = linear_warmup_decay(settings.learning_rate, settings.warmup_share(total_steps), total_steps)
    optimizer = AdamW(
        model.trainable_params(),
        rates,
        epsilon=settings.adam_epsilon,
        weight_decay=settings.weight_decay,
        loss_scale=loss_scale,
    )
    return model, optimizer, rates


def examples_in_order(train_set: EncodedSplit, settings: TrainSettings, epoch: int) -> np.ndarray:
    """Returns the order, int64 [n], in which an epoch (from 0) visits the training examples."""
    if settings.bucket_by_length:
        return bucketed_order(train_set.lengths, settings.batch_size, settings.seed, epoch)
    return epoch_order(len(train_set), settings.seed, epoch)


def epoch_batches(
    train_set: EncodedSplit,
    example_inputs: Mapping[str, np.ndarray],
    settings: TrainSettings,
    epoch: int,
    skipped: int = 0,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the batches of an epoch (from 0) but the first `skipped`, each with its rows of the `example_inputs`."""
    order = examples_in_order(train_set, settings, epoch)
    for start in range(skipped * settings.batch_size, len(order), settings.batch_size):
        examples = order[start : start + settings.batch_size]
        values = {name: of_all[examples] for name, of_all in example_inputs.items()}
        yield make_batch(train_set, examples) | values


def fingerprints(dataset: TextDataset) -> dict[str, Any]:
    """Returns what tells each split's data apart, by the split's name."""
    return {
        split.name: {
            "source": split.source,
            "examples": len(split),
            "partial": split.partial,
            "sha256": split.fingerprint,
        }
        for split in (dataset.train, dataset.evaluation)
    }
