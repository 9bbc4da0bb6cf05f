"""Temperature-calibrated attacks: one factor on the logits, fitted on examples that are not attacked with it.

Extreme confidence, or the lack of it, hides from attacks that follow the model's scores. Logits divided by a
temperature keep every prediction and show the attack scores that mean what they say (Guo et al., ICML 2017; "The
Illusion of Adversarial Robustness", ACL 2024).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from .attack_clean import inputs_of, predict_logits
from .attack_source import example_order
from .data import TextDataset, TextSplit
from .errors import UserError
from .readers import read_rows
from .splits import split_from_rows

MIN_HELD_OUT, MAX_HELD_OUT = 200, 1000  # examples that a temperature is fitted on
LOWEST, HIGHEST = 1e-3, 1e3  # of a temperature; at a limit there is no best one
BINS = 15  # of the expected calibration error
NO_TEMPERATURE = "for which no temperature is best"  # in the error of a model that cannot be calibrated


class Calibrated:
    """A victim whose logits are divided by `temperature`; see `attack_victims.build_victim` for its shape."""

    def __init__(self, victim: Any, temperature: float = 1.0) -> None:
        self.victim, self.temperature = victim, temperature
        self.model, self.tokenizer, self.max_tokens = victim.model, victim.tokenizer, victim.max_tokens

    def __call__(self, texts: list[Any]) -> Any:
        """Returns logits / temperature, [len(texts), labels] float32."""
        return self.victim(texts) / self.temperature

    def forget(self) -> None:
        """Drops what the victim remembers of earlier calls."""
        self.victim.forget()


@dataclass(frozen=True)
class Part:
    """Attacked examples that share a temperature: their ids, and what it was fitted on, which holds none of them."""

    ids: list[int]
    temperature: float
    fit: dict[str, float]


@dataclass(frozen=True)
class Calibration:
    """The temperatures of an attack.

    Attributes:
        settings: JSON-ready; what they depend on and what they are, whatever the number of attacked examples.
        parts: the attacked examples by temperature, each example in one part.
    """

    settings: dict[str, Any]
    parts: list[Part]

    def describe(self, logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        """Returns what the summary says, given the logits and labels of the whole evaluation set.

        ``temperatures`` of the attacked examples; for each ``parts``: the ids, and ``held_out`` with the number of
        examples of the fit, their mean negative log-likelihood (nats) and expected calibration error at temperature 1
        (before) and at the fitted one (after); ``attacked``: the same of the attacked examples, none of which took
        part in the fit of its own temperature.
        """
        ids = [id for part in self.parts for id in part.ids]
        temperatures = np.concatenate([np.full(len(part.ids), part.temperature) for part in self.parts])
        return {
            **self.settings,
            "temperatures": [part.temperature for part in self.parts],
            "parts": [
                {"temperature": part.temperature, "held_out": part.fit, "example_ids": part.ids} for part in self.parts
            ],
            "attacked": before_and_after(logits[ids], labels[ids], temperatures),
        }


def check_calibration(
    calibrate: bool,
    calibration_file: str | os.PathLike | None,
    data: TextDataset,
    split: TextSplit,
    names: Sequence[str],
    label_column: str | None = None,
) -> TextSplit | None:
    """Refuses a calibration that is impossible, before anything runs; returns the examples of `calibration_file`.

    Args:
        split: the attacked set with its labels in the model's order of classes.
        names: the model's classes in that order.
        label_column: the file's column of the label; by default ``label``. Its columns of text are the data set's.

    Raises:
        UserError: too few examples, a file that cannot be read, or one with attacked or training examples in it.
    """
    if not calibrate:
        if calibration_file is not None:
            raise UserError(
                "a calibration file is of use only to a calibrated attack; add --calibrate, or leave it out"
            )
        return None
    if calibration_file is None:
        if len(split) // 2 < MIN_HELD_OUT:
            raise UserError(
                f"{split.source} has {len(split)} examples, and calibration needs {2 * MIN_HELD_OUT}, half of them to "
                f"fit on; give labelled text from elsewhere with --calibration-file FILE"
            )
        return None
    held_out = _read(Path(calibration_file), data, names, label_column or "label")
    if len(held_out) < MIN_HELD_OUT:
        raise UserError(f"{calibration_file} has {len(held_out)} examples; calibration needs at least {MIN_HELD_OUT}")
    for known, what in ((data.evaluation, "evaluation"), (data.train, "training")):
        if common := set(inputs_of(known)) & set(inputs_of(held_out)):
            raise UserError(
                f"{calibration_file} has {len(common)} of the {what} examples in it; take them out, since a "
                f"temperature is fitted on data that is neither trained on nor attacked"
            )
    return held_out


def calibrate_halves(logits: np.ndarray, labels: np.ndarray, ids: Sequence[int], seed: int) -> Calibration:
    """Fits the temperature of each half of the evaluation set on the other half, and chooses among the `ids`.

    The halves are those of the random order from which samples are taken, so a sample of at most half of the set has
    one temperature, and it does not change when the sample grows.

    Raises:
        UserError: no temperature is best.
    """
    order = example_order(len(labels), seed)
    middle = len(order) - len(order) // 2
    halves = {"first": order[:middle], "second": order[middle:]}
    held_out = {"first": order[max(middle, len(order) - MAX_HELD_OUT) :], "second": order[: min(middle, MAX_HELD_OUT)]}
    fitted = {half: fit_temperature(logits[chosen], labels[chosen]) for half, chosen in held_out.items()}
    settings = {
        "held_out": f"the other half of the evaluation set in its random order, at most {MAX_HELD_OUT} examples",
        "temperature_of_half": fitted,
    }
    parts = [
        Part(kept, fitted[half], _fit(logits[held_out[half]], labels[held_out[half]], fitted[half]))
        for half, members in halves.items()
        if (kept := sorted(set(ids) & set(members.tolist())))
    ]
    return Calibration(settings, parts)


def calibrate_on_file(victim: Any, held_out: TextSplit, ids: Sequence[int], progress: bool = False) -> Calibration:
    """Fits one temperature on the examples of a file; see `check_calibration`.

    Raises:
        UserError: no temperature is best.
    """
    logits = predict_logits(victim, inputs_of(held_out), progress=progress)
    temperature = fit_temperature(logits, held_out.labels)
    settings = {"held_out": held_out.source, "held_out_fingerprint": held_out.fingerprint, "temperature": temperature}
    return Calibration(settings, [Part(list(ids), temperature, _fit(logits, held_out.labels, temperature))])


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the T > 0 that minimises the mean negative log-likelihood of logits / T, to 6 significant digits.

    Args:
        logits: [examples, classes].
        labels: [examples], positions of the right classes.

    Raises:
        UserError: there is no minimum: every prediction is right (T would go to 0), or none is better than chance.
    """
    found = minimize_scalar(
        lambda log_temperature: negative_log_likelihood(logits, labels, math.exp(log_temperature)),
        bounds=(math.log(LOWEST), math.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-9},
    )
    temperature = float(f"{math.exp(found.x):.6g}")
    right = int((logits.argmax(axis=1) == labels).sum())
    if right == len(labels) or temperature < 2 * LOWEST or temperature > HIGHEST / 2:
        raise UserError(
            f"the model classifies {right} of the {len(labels)} held-out examples correctly, {NO_TEMPERATURE}; "
            f"calibrate on harder or more text with --calibration-file FILE, or leave --calibrate out"
        )
    return temperature


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray, temperature: float | np.ndarray = 1.0) -> float:
    """Returns the mean cross-entropy in nats of logits / temperature, one temperature or [examples]."""
    return float(-_log_probabilities(logits, temperature)[np.arange(len(labels)), labels].mean())


def expected_calibration_error(
    logits: np.ndarray, labels: np.ndarray, temperature: float | np.ndarray = 1.0, bins: int = BINS
) -> float:
    """Returns the mean gap between confidence and accuracy over `bins` equally wide bins of confidence, in [0, 1].

    Confidence is the largest probability; a bin (low, high] counts by its share of the examples.
    """
    probabilities = np.exp(_log_probabilities(logits, temperature))
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(place, confidence, bins) - np.bincount(place, right, bins)  # count x (confidence - accuracy)
    return float(np.abs(gaps).sum() / len(labels))


def before_and_after(logits: np.ndarray, labels: np.ndarray, temperature: float | np.ndarray) -> dict[str, float]:
    """Returns negative log-likelihood and expected calibration error at temperature 1 and at `temperature`."""
    return {
        "nll_before": negative_log_likelihood(logits, labels),
        "nll_after": negative_log_likelihood(logits, labels, temperature),
        "ece_before": expected_calibration_error(logits, labels),
        "ece_after": expected_calibration_error(logits, labels, temperature),
    }


def calibration_line(calibration: Mapping[str, Any]) -> str:
    """Returns the `Calibration.describe` of a summary as a line for the reader."""
    temperatures = " and ".join(f"{value:.3g}" for value in calibration["temperatures"])
    found = calibration["attacked"]
    return (
        f"temperature {temperatures}; of the attacked examples before and after: negative log-likelihood "
        f"{found['nll_before']:.3f} and {found['nll_after']:.3f}, expected calibration error "
        f"{found['ece_before']:.3f} and {found['ece_after']:.3f}"
    )


def _fit(logits: np.ndarray, labels: np.ndarray, temperature: float) -> dict[str, float]:
    return {"examples": len(labels), **before_and_after(logits, labels, temperature)}


def _log_probabilities(logits: np.ndarray, temperature: float | np.ndarray) -> np.ndarray:
    return log_softmax(logits.astype(np.float64) / np.reshape(temperature, (-1, 1)), axis=1)


def _read(path: Path, data: TextDataset, names: Sequence[str], label_column: str) -> TextSplit:
    rows = read_rows(path, [*data.text_columns, label_column])
    order = names if set(data.label_names) <= set(names) else data.label_names  # else the model's have no names
    label_ids = {name: list(order).index(name) for name in data.label_names}
    if not any(name.isdigit() for name in label_ids):  # named classes may be given by number, in the data's order
        label_ids |= {str(number): label_ids[name] for number, name in enumerate(data.label_names)}
    return split_from_rows("calibration", rows, data.text_columns, label_column, label_ids)
