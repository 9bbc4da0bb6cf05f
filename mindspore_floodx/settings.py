"""What a training run is made of: one dataclass, filled from configs/, a file of the user's and the command line."""

from __future__ import annotations

import dataclasses
import math
import os
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .device import DEVICES
from .errors import UserError, nearest
from .flood_level import RULES, choose_flood_level
from .methods import demand_right_settings, method_names
from .untrusted import read_yaml, shown

METHODS = method_names()
LARGEST = 2**53  # of a whole number
MAX_EPOCHS = 100_000
PRECISIONS = ("float32", "float16")
TRACKERS = ("tensorboard", "mlflow", "both", "none")
ACCORDANCE = ("none", "online", "snapshot", "both")
DATA_SETTINGS = (  # those that say which examples there are
    "dataset",
    "data_dir",
    "train_file",
    "eval_file",
    "text_column",
    "text_pair_column",
    "label_column",
    "eval_fraction",
    "max_train_examples",
    "min_words",
)


_AT_LEAST_ONE = (
    "epochs",
    "batch_size",
    "gradient_accumulation_steps",
    "eval_batch_size",
    "max_length",
    "threads",
    "max_train_examples",
    "sub_epochs",
    "accordance_every",
    "warmup_steps",
    "checkpoint_every_steps",
    "loss_scale_steps",
)


def _setting(default: Any, text: str, **more: Any) -> Any:
    return field(default=default, metadata={"help": text, **more})


@dataclass
class TrainSettings:
    """The settings of a run. Defaults are the paper's (its section 4); `help` of each field says what it is."""

    dataset: str = _setting("mrpc", "sst2, mrpc, qnli, imdb, ag_news, demo (generated), or a name for your own files")
    data_dir: str | None = _setting(None, "folder with the data set in its official layout; without it, the hub")
    train_file: str | None = _setting(
        None, "your own .csv/.tsv/.jsonl, or another file of the data set's folder", option="--train"
    )
    eval_file: str | None = _setting(None, "evaluation file, likewise")
    text_column: str | None = _setting(None, "own files: column of the text")
    text_pair_column: str | None = _setting(None, "own files: column of the second text, for tasks on pairs")
    label_column: str | None = _setting(None, "own files: column of the label")
    eval_fraction: float | None = _setting(
        None, "own files: share of the training file to evaluate on, if no --eval-file"
    )
    max_train_examples: int | None = _setting(None, "use only the first so many training examples")
    min_words: int | None = _setting(None, "use only training examples of at least so many words")
    model: str = _setting(
        "bert-base-uncased",
        "hub id, local model folder, or minilm (bundled 6-layer encoder); mindnlp:NAME by way of mindnlp",
    )
    method: str = _setting("finetune", "what training does to a batch's loss and gradient", choices=METHODS)
    options: dict | None = _setting(  # noqa: RUF009 - the default is None
        None, "settings of another package's method, by name; only in a settings file"
    )
    flood_level: float | None = _setting(
        None, "flooding, iflood, softad, selective: the level b; by default configs/ has it for each data set"
    )
    floodingx_runs: int = _setting(
        1, "floodingx: 1 switches flooding on at the turn; 2 measures in one run and trains with the level in another"
    )
    accordance: str = _setting(
        "none",
        "gradient accordance: online (from the training steps themselves), snapshot (at each sub-epoch's end, dropout "
        "off) or both",
        choices=ACCORDANCE,
    )
    sub_epochs: int = _setting(4, "accordance: sub-epochs in an epoch")
    accordance_batches: int | None = _setting(
        None, "snapshot: only so many of a sub-epoch's batches, evenly spaced; by default all"
    )
    accordance_every: int = _setting(
        1, "online: measure only every so many steps; the others are plain ones and cost nothing more"
    )
    accordance_parameters: str | None = _setting(
        None, "accordance of the parameters whose names this regular expression is found in; by default all"
    )
    evaluate_sub_epochs: bool = _setting(False, "accordance: evaluate after every sub-epoch, not only every epoch")
    flood_rule: str = _setting("change-point", "floodingx: what counts as the turn of the accordance", choices=RULES)
    flood_smoothing: int = _setting(1, "floodingx: sub-epochs that are averaged")
    flood_patience: int = _setting(2, "floodingx: sub-epochs in a row that must show the turn")
    flood_margin: float = _setting(0.05, "floodingx: distance from the threshold below which nothing counts")
    flood_window: int = _setting(4, "floodingx, change-point: sub-epochs of the plateau")
    flood_deviations: float = _setting(3.0, "floodingx, change-point: standard deviations above the plateau")
    adversarial_steps: int | None = _setting(None, "pgd, freelb, tavat, infobert, selective: K, steps of ascent")
    adversarial_step_size: float | None = _setting(None, "likewise: a, the length of a step")
    adversarial_init: float | None = _setting(None, "likewise: e0, about the norm of the perturbation at the start")
    adversarial_bound: float | None = _setting(None, "likewise: R, its largest norm; 0: none")
    freelb_shared_dropout: bool | None = _setting(None, "freelb: the same dropout masks in all passes of a step")
    tavat_mean_gradient: bool | None = _setting(None, "tavat: the mean of the passes' gradients; if not, their sum")
    infobert_alpha: float | None = _setting(None, "infobert: weight of the lower bound (local anchored features)")
    infobert_beta: float | None = _setting(None, "infobert: weight of the upper bound (information bottleneck)")
    infobert_low: float | None = _setting(None, "infobert: tokens count from this quantile of the gradient's norm")
    infobert_high: float | None = _setting(None, "infobert: to below this quantile")
    infobert_learning_rate: float | None = _setting(None, "infobert: learning rate of the estimators' Adam")
    adaflood_folds: int | None = _setting(None, "adaflood: auxiliary models, each trained without its fold")
    adaflood_epochs: int | None = _setting(None, "adaflood: epochs of an auxiliary model")
    adaflood_gamma: float | None = _setting(None, "adaflood: from the auxiliary model's level (0) to no flooding (1)")
    adaflood_scale: float | None = _setting(None, "adaflood: factor of the auxiliary loss")
    adaflood_shift: float | None = _setting(None, "adaflood: what is added to it")
    selective_share: float | None = _setting(None, "selective: share of examples, the least robust, that are flooded")
    selective_beta: float | None = _setting(None, "selective: weight of the other examples")
    selective_epochs: int | None = _setting(None, "selective: epochs of the model that tells which are least robust")
    epochs: int = _setting(10, "passes over the training data; the last epoch's model is the result")
    batch_size: int = _setting(16, "examples in a step, of all micro-batches and workers together")
    gradient_accumulation_steps: int = _setting(
        1, "compute a batch in so many micro-batches, one after the other, to save memory; the step stays the same"
    )
    bucket_by_length: bool = _setting(
        False,
        "batches of examples of similar length, in random order: less padding, but other batches than the paper's",
    )
    learning_rate: float = _setting(2e-5, "peak learning rate")
    warmup_ratio: float = _setting(0.1, "share of all steps in which the rate rises; then it falls linearly to 0")
    warmup_steps: int | None = _setting(
        None, "so many steps instead, unless that is more than half of the run; then the share holds"
    )
    weight_decay: float = _setting(0.01, "decoupled weight decay (none on biases and LayerNorm)")
    adam_epsilon: float = _setting(1e-8, "epsilon of Adam")
    max_grad_norm: float | None = _setting(None, "clip the gradient to this global norm")
    max_length: int = _setting(512, "most tokens of an example; batches are padded to their longest")
    eval_batch_size: int = _setting(64, "examples in an evaluation batch")
    seed: int = _setting(0, "decides classifier, data order and dropout")
    device: str = _setting("CPU", "CPU or GPU", choices=DEVICES)
    precision: str = _setting(
        "float32", "float16: the encoder's matrix products in training, with a dynamic loss scale", choices=PRECISIONS
    )
    loss_scale: float | None = _setting(None, "float16: factor of the loss at first, a power of 2 (default 65536)")
    loss_scale_steps: int | None = _setting(
        None, "float16: steps without overflow after which it is doubled (default 2000)"
    )
    recompute: bool = _setting(
        False, "keep only the outputs of the encoder's layers and compute the rest again: less memory, more time"
    )
    threads: int | None = _setting(
        None, "CPU threads, by default all cores; MindSpore's matrix products take at least two"
    )
    save_every_epoch: bool = _setting(False, "keep a checkpoint of every epoch, not only of the last")
    checkpoint_every_minutes: float = _setting(
        5.0, "write the state that a stopped run goes on from every so many minutes; 0: not by time"
    )
    checkpoint_every_steps: int | None = _setting(None, "also write it every so many steps")
    track: str = _setting(
        "tensorboard",
        "where the run's curves go besides its CSV files; mlflow: to MLFLOW_TRACKING_URI (extra mlflow)",
        choices=TRACKERS,
    )
    overwrite: bool = _setting(
        False, "begin anew where the output folder holds a run, finished or not, instead of going on or refusing"
    )
    output_dir: str | None = _setting(None, "run folder; by default runs/<dataset>-<method>-<seed>")

    def __post_init__(self) -> None:
        for name, kinds in _kinds(type(self)).items():
            setattr(self, name, _checked(name, getattr(self, name), kinds))
        self._check_ranges()
        if self.output_dir is None:
            self.output_dir = f"runs/{self.dataset}-{self.method}-{self.seed}"

    def _check_ranges(self) -> None:
        for each in dataclasses.fields(self):
            value, allowed = getattr(self, each.name), each.metadata.get("choices")
            if allowed and value not in allowed:
                raise UserError(
                    f"{each.name} is {value!r}{nearest(value, allowed)}; choose one of {', '.join(allowed)}"
                )
        for name in _AT_LEAST_ONE:
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.epochs > MAX_EPOCHS:
            raise UserError(f"epochs is {self.epochs}; it must be at most {MAX_EPOCHS}")
        if self.accordance_batches is not None and self.accordance_batches < 2:
            raise UserError(f"accordance_batches is {self.accordance_batches}; accordance compares at least 2 batches")
        for name in ("learning_rate", "adam_epsilon", "max_grad_norm"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise UserError(f"{name} is {getattr(self, name)}; it must be above 0")
        if not 0 <= self.warmup_ratio <= 1:
            raise UserError(f"warmup_ratio is {self.warmup_ratio}; it must lie between 0 and 1")
        if self.checkpoint_every_minutes < 0:
            raise UserError(f"checkpoint_every_minutes is {self.checkpoint_every_minutes}; it must be 0 or more")
        if self.weight_decay < 0 or not 0 <= self.seed < 2**31:
            raise UserError("weight_decay must not be negative, and seed must lie between 0 and 2147483647")
        if self.method == "floodingx" and self.flood_level is not None:
            raise UserError("method floodingx finds the flood_level itself; leave it out, or use --method flooding")
        demand_right_settings(self.method, self.to_dict())
        if self.method not in ("finetune", "floodingx") and self.accordance in ("online", "both"):
            raise UserError(
                f"accordance online is measured on the steps of fine-tuning; with method {self.method} use "
                "--accordance snapshot"
            )
        if self.method == "floodingx":
            self._check_floodingx()
        self._check_precision()

    def _check_precision(self) -> None:
        if self.precision == "float32":
            for name in ("loss_scale", "loss_scale_steps"):
                if getattr(self, name) is not None:
                    option = "--" + name.replace("_", "-")
                    raise UserError(f"{name} is only for float16; leave {option} out, or add --precision float16")
            return
        self.loss_scale = 2.0**16 if self.loss_scale is None else self.loss_scale
        self.loss_scale_steps = 2000 if self.loss_scale_steps is None else self.loss_scale_steps
        if not 1 <= self.loss_scale <= 2**24 or math.frexp(self.loss_scale)[0] != 0.5:
            raise UserError(f"loss_scale is {self.loss_scale:g}; it must be a power of 2 from 1 to {2**24}")

    def _check_floodingx(self) -> None:
        if self.accordance == "none":
            raise UserError("method floodingx needs the accordance; use --accordance online")
        if self.floodingx_runs not in (1, 2):
            raise UserError(f"floodingx_runs is {self.floodingx_runs}; choose 1 or 2")
        choose_flood_level([], [], **self.flood_rule_options())  # refuses what is out of range

    def flood_rule_options(self) -> dict[str, Any]:
        """Returns the options of `flood_level.choose_flood_level`."""
        names = ("rule", "smoothing", "patience", "margin", "window", "deviations")
        return {name: getattr(self, f"flood_{name}") for name in names}

    def warmup_share(self, total_steps: int) -> float:
        """Returns the share of a run's steps in which the learning rate rises.

        `warmup_steps` is meant for long runs; one that it would fill more than half of takes `warmup_ratio`.
        """
        if self.warmup_steps is None or 2 * self.warmup_steps > total_steps:
            return self.warmup_ratio
        return self.warmup_steps / total_steps

    @property
    def run_folder(self) -> Path:
        """Where the run is written: `output_dir`, which has a value once the settings are made."""
        assert self.output_dir is not None
        return Path(self.output_dir)

    def that_matter(self) -> dict[str, Any]:
        """Returns the settings that the outcome depends on: not how its folder, state and curves are kept."""
        free = ("overwrite", "output_dir", "checkpoint_every_minutes", "checkpoint_every_steps", "track")
        return {name: value for name, value in self.to_dict().items() if name not in free}

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def _kinds(owner: type) -> dict[str, tuple[type, ...]]:
    """Returns the types each field accepts; `type(None)` among them if it may be left empty."""
    hints = typing.get_type_hints(owner)
    return {
        each.name: typing.get_args(hints[each.name])
        if isinstance(hints[each.name], types.UnionType)
        else (hints[each.name],)
        for each in dataclasses.fields(owner)
    }


def _checked(name: str, value: Any, kinds: tuple[type, ...]) -> Any:
    if value is None and type(None) in kinds:
        return None
    wanted = next(kind for kind in kinds if kind is not type(None))
    if wanted is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            value = float(value)  # YAML reads 2e-5 as text
        except (ValueError, OverflowError):
            pass
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        named = {
            int: "a whole number",
            float: "a number",
            str: "text",
            bool: "true or false",
            dict: "names and values",
        }[wanted]
        raise UserError(f"{name} is {shown(value)}; expected {named}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{name} is {value}; expected a finite number")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise UserError(f"{name} is {shown(value)}; expected at most {LARGEST}")
    if isinstance(value, str) and not _can_name_a_file(value):
        raise UserError(f"{name} is {shown(value)}; expected text without NUL characters and broken escapes")
    return value


def _can_name_a_file(value: str) -> bool:
    try:
        return b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def config_folder() -> Path:
    """Returns the folder of the shipped settings: configs/ of the checkout, or the copy inside an installed package."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


def read_settings_file(path: str | Path) -> dict[str, Any]:
    """Reads a YAML file of settings.

    Raises:
        UserError: no such file, not a YAML mapping, or a key that is no setting (the nearest valid one is named).
    """
    path = Path(path)
    content = read_yaml(path) or {}
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no `setting: value` lines")
    _demand_known(content, path, extra=("methods",))
    demand_types(content, path)
    methods = content.get("methods") or {}
    if not isinstance(methods, dict):
        raise UserError(f"{path}: methods holds {shown(methods)}; write a method under it, and its settings under that")
    for method, values in methods.items():
        if method not in METHODS:
            raise UserError(f"{path}: methods: {shown(method)} is not a method{nearest(str(method), METHODS)}")
        if not isinstance(values, dict):
            raise UserError(f"{path}: methods: {method} holds no `setting: value` lines")
        _demand_known(values, f"{path}: methods: {method}")
        demand_types(values, f"{path}: methods: {method}")
    return content


def _demand_known(content: dict[str, Any], where: object, extra: tuple[str, ...] = ()) -> None:
    known = (*(each.name for each in dataclasses.fields(TrainSettings)), *extra)
    for key in content:
        if key not in known:
            raise UserError(f"{where}: {shown(key)} is not a setting{nearest(str(key), known)}")


def demand_types(content: dict[str, Any], where: object) -> None:
    """Checks the types of settings that were read from the file `where`; what is no setting is left aside.

    Raises:
        UserError: names the file and the setting.
    """
    kinds = _kinds(TrainSettings)
    for key, value in content.items():
        try:
            _checked(key, value, kinds.get(key, (object,)))
        except UserError as error:
            raise UserError(f"{where}: {error}") from None


def resolve(given: dict[str, Any], settings_file: str | Path | None = None) -> TrainSettings:
    """Returns the settings of a run, later ones winning: defaults, configs/methods, configs/datasets, the user's file,
    and what is `given` (the command line).

    Raises:
        UserError: an unknown setting (the nearest valid name is told) or a value out of range.
    """
    _demand_known(given, "settings")
    users = read_settings_file(settings_file) if settings_file else {}
    named = {"method": TrainSettings.method} | users | given
    # the user's own files are not the default data set, whose settings and name they would otherwise take
    chosen = {"dataset": "custom" if named.get("text_column") else TrainSettings.dataset} | named
    for name in ("method", "dataset"):
        _checked(name, chosen[name], (str,))
    layers = [
        read_settings_file(path)
        for name in ("method", "dataset")
        for path in (config_folder() / f"{name}s").glob("*.yaml")  # a name from a file is compared, never opened
        if path.stem == chosen[name]
    ]
    merged: dict[str, Any] = {"dataset": chosen["dataset"]}
    for layer in (*layers, users):
        merged |= {key: value for key, value in layer.items() if key != "methods"}
        merged |= (layer.get("methods") or {}).get(chosen["method"]) or {}
    try:
        return TrainSettings(**merged | given)
    except UserError as error:
        named_first = str(error).split()[0]
        if named_first in users and named_first not in given:
            raise UserError(f"{settings_file}: {error}") from None
        raise
