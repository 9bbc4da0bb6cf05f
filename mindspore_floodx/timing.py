"""What each training method costs: the time of its steps on the same batches (the paper, Table 3).

One process times all methods. They share one model and one optimizer, since the time of a step does not depend on the
weights, and take every batch in turn, in an order that moves on by one from batch to batch: whatever else the machine
does meets all of them alike.
"""

from __future__ import annotations

import itertools
import math
import os
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tabulate import tabulate
from tqdm import tqdm

from .device import stoppable, use_device
from .encoding import encode, load_tokenizer
from .errors import UserError, nearest
from .files import demand_writable, replacing, write_json, write_text
from .methods import NEEDED_BY, find_defence, method_names
from .plots import plot_timing
from .pretrained import find_model
from .runs import package_versions
from .settings import DATA_SETTINGS, TrainSettings, resolve
from .training_inputs import build_model, epoch_batches, fingerprints, load_data

if TYPE_CHECKING:
    from mindspore import nn

    from .bert import BertForSequenceClassification
    from .defences.base import Batch

BASE = "finetune"  # what the others are held against
SHARED = (*DATA_SETTINGS, "model", "batch_size", "max_length", "device", "threads", "seed")  # one value for all
TIMED_SETTINGS = (*SHARED, "adversarial_steps")  # what a user may set
COLUMNS = (  # of timing.csv
    "method",
    "forward_passes",
    "backward_passes",
    "auxiliary_forward_passes",
    "auxiliary_backward_passes",
    "seconds_per_step",
    "seconds_per_epoch",
    "ratio",
    "ratio_median",
    "ratio_low",
    "ratio_high",
    "cpu_seconds_per_step",
    "cpu_seconds_per_epoch",
    "cpu_ratio",
    "cpu_ratio_median",
    "cpu_ratio_low",
    "cpu_ratio_high",
    "compile_seconds",
)


def measure_timing(
    methods: Sequence[str] | None = None,
    *,
    batches: int | str = 20,
    warm_up: int = 6,
    output_dir: str | os.PathLike | None = "runs/timing",
    progress: bool = True,
    **given: Any,
) -> dict[str, Any]:
    """Times the training steps of several methods, in turn on the same batches, those of a run's first epoch.

    A step is what training does with a batch: forward and backward passes and the optimizer's update. Evaluation and
    the making of a batch, which are the same for all, are left out, and so are the auxiliary models of AdaFlood and
    selective flooding, whose passes are counted instead. Flooding-X is timed while it measures gradient accordance;
    after the turn its steps are flooding's.

    Args:
        methods: by default all; fine-tuning is added where it is left out.
        batches: so many batches are timed, or ``all`` of the epoch that follow the warm-up.
        warm_up: so many batches come before, which are not counted.
        output_dir: gets timing.json, timing.csv, timing.md and plots/timing.svg, .png and .pdf; None writes nothing.
        progress: show progress bars.
        given: settings of `train` by name, those in `TIMED_SETTINGS`: the data's, model, batch_size, max_length,
            adversarial_steps (of those methods that have it), device, threads and seed.

    Returns:
        the content of timing.json: command, settings, data, versions, cores, threads, load average at start and end,
        and `rows`, one a method: the columns of timing.csv, its own settings, and `steps`, what was measured batch by
        batch. `ratio` is that of the seconds of all steps to fine-tuning's; `ratio_median`, `ratio_low` and
        `ratio_high` are median and quartiles of the ratios batch by batch; `cpu_` tells the same of the processor time
        of all the process's threads. `auxiliary_..._passes` are the passes of each training example through auxiliary
        models before the training.

    Raises:
        UserError: a method or setting that does not exist or is out of range, unreadable data or model, fewer batches
            than asked for, an output folder that cannot be written, or a loss that is not finite.
    """
    chosen = _settings_of(methods, given)
    shared = chosen[BASE]
    if warm_up < 0:
        raise UserError(f"warm_up is {warm_up}; it must be 0 or more")
    if batches != "all" and (not isinstance(batches, int) or batches < 1):
        raise UserError(f"batches is {batches}; give a whole number from 1, or all")
    dataset = load_data(shared)
    steps_per_epoch = -(-len(dataset.train) // shared.batch_size)
    count = _counted(batches, warm_up, steps_per_epoch)
    if output_dir is not None:
        demand_writable(output_dir)
    model_folder = find_model(shared.model)
    use_device(shared.device, shared.threads)
    train_set = encode(dataset.train, load_tokenizer(model_folder), shared.max_length)
    total_steps = steps_per_epoch * shared.epochs
    model, optimizer, _ = build_model(shared, list(dataset.label_names), model_folder, total_steps)
    load_before = os.getloadavg()
    timed = [_Method(settings, model, optimizer) for settings in chosen.values()]
    with stoppable():
        for each in tqdm(timed, "compiling", unit="method", disable=not progress, dynamic_ncols=True):
            each.compile()
        stream = epoch_batches(train_set, _example_inputs(timed, len(train_set), shared.seed), shared, 0)
        passes = sum(each.forward + each.backward for each in timed) * (warm_up + count)
        with tqdm(total=passes, unit="pass", disable=not progress, dynamic_ncols=True) as bar:
            _take_turns(timed, itertools.islice(stream, warm_up + count), warm_up, bar)
    kept = {name: getattr(shared, name) for name in SHARED}
    result = {
        "command": _command(),
        "settings": {"methods": list(chosen), "batches": batches, "warm_up": warm_up}
        | kept
        | {"data_dir": None if shared.data_dir is None else "DATA"},
        "data": {
            "dataset": dataset.name,
            **fingerprints(dataset)[dataset.train.name],
            "steps_per_epoch": steps_per_epoch,
            "batches_timed": count,
        },
        "versions": {"python": platform.python_version(), "packages": package_versions()},
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "threads": shared.threads or os.cpu_count(),
        "load_average": {"start": list(load_before), "end": list(os.getloadavg())},
        "rows": [each.row(timed[0], steps_per_epoch) for each in timed],
    }
    if output_dir is not None:
        _write(Path(output_dir), result)
    return result


def timing_table(rows: Sequence[dict[str, Any]], style: str = "github") -> str:
    """Returns the rows of a result as a text table; `style` is one of tabulate's, `github` is Markdown."""
    shown = []
    for row in rows:
        auxiliary = row["auxiliary_forward_passes"], row["auxiliary_backward_passes"]
        shown.append(
            {
                "method": row["label"],
                "passes": f"{row['forward_passes']} + {row['backward_passes']}",
                "s/epoch": f"{row['seconds_per_epoch']:,.1f}",
                "ratio": f"{row['ratio']:.2f}",
                "by batch (quartiles)": f"{row['ratio_median']:.2f} ({row['ratio_low']:.2f}-{row['ratio_high']:.2f})",
                "CPU s/epoch": f"{row['cpu_seconds_per_epoch']:,.1f}",
                "CPU ratio": f"{row['cpu_ratio']:.2f}",
                "auxiliary": f"{auxiliary[0]} + {auxiliary[1]}" if any(auxiliary) else "-",
                "compiling s": f"{row['compile_seconds']:.1f}",
            }
        )
    aligned = ("left", *["right"] * 8)
    return tabulate(shown, headers="keys", tablefmt=style, disable_numparse=True, colalign=aligned)


def conditions(result: dict[str, Any]) -> str:
    """Returns in one line what was timed: the data and the model; how."""
    settings, data = result["settings"], result["data"]
    model = settings["model"]
    model = Path(model).name if Path(model).is_dir() else model
    threads = f"{result['threads']} thread{'s' * (result['threads'] != 1)}"
    return (
        f"{data['dataset']}, {data['examples']:,} examples, {model}, batch {settings['batch_size']}; "
        f"{data['steps_per_epoch']:,} steps an epoch, {data['batches_timed']:,} of them timed, "
        f"{settings['device']}, {threads}"
    )


class _Method:
    """A method that is timed: how it takes a step, and the measurements of its steps."""

    def __init__(self, settings: TrainSettings, model: BertForSequenceClassification, optimizer: nn.Optimizer):
        from .accordance import GradientAccordance

        if settings.freelb_shared_dropout:  # changes the model itself
            raise UserError("freelb_shared_dropout would change the dropout of all; leave it off in configs/")
        self.settings, self.name, self.label = settings, settings.method, settings.method
        kind = find_defence(settings.method)
        self.example_inputs = kind.example_inputs
        self.auxiliary = kind.auxiliary_passes(settings)
        if settings.method == "floodingx":
            self.label = "floodingx (measuring)"
            names = settings.accordance_parameters
            measure = GradientAccordance(model, optimizer, names, settings.max_grad_norm)
            self._compile, self.step = measure.compile, measure.add
            self.forward, self.backward = kind.forward_passes, kind.backward_passes
        else:
            defence = kind(model, optimizer, settings)
            self._compile, self.step = defence.compile, defence.train_step
            self.forward, self.backward = defence.forward_passes, defence.backward_passes
        self.compile_seconds = 0.0
        self.steps: dict[str, list[Any]] = {"turn": [], "examples": [], "tokens": [], "seconds": [], "cpu_seconds": []}

    def compile(self) -> None:
        started = time.perf_counter()
        self._compile()
        self.compile_seconds = time.perf_counter() - started

    def take(self, batch: Batch) -> dict[str, float]:
        """Takes a step and returns its measurements."""
        started, cpu_started = time.perf_counter(), time.process_time()
        loss = self.step(batch)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
        if not math.isfinite(loss):
            raise UserError(f"the loss of {self.name} is {loss}; a model that computes no loss cannot be timed")
        return {"seconds": seconds, "cpu_seconds": cpu_seconds}

    def row(self, base: _Method, steps_per_epoch: int) -> dict[str, Any]:
        own = {name: getattr(self.settings, name) for name in (*NEEDED_BY, "max_grad_norm")}
        row = {
            "method": self.name,
            "label": self.label,
            "settings": {name: value for name, value in own.items() if value is not None},
            "forward_passes": self.forward,
            "backward_passes": self.backward,
            "auxiliary_forward_passes": self.auxiliary[0],
            "auxiliary_backward_passes": self.auxiliary[1],
            "compile_seconds": self.compile_seconds,
        }
        for clock, prefix in (("seconds", ""), ("cpu_seconds", "cpu_")):
            mine, others = np.array(self.steps[clock]), np.array(base.steps[clock])
            low, median, high = np.quantile(mine / others, (0.25, 0.5, 0.75))
            row |= {
                f"{prefix}seconds_per_step": float(np.median(mine)),
                f"{prefix}seconds_per_epoch": float(mine.mean() * steps_per_epoch),
                f"{prefix}ratio": float(mine.sum() / others.sum()),
                f"{prefix}ratio_median": float(median),
                f"{prefix}ratio_low": float(low),
                f"{prefix}ratio_high": float(high),
            }
        return row | {"steps": self.steps}


def _settings_of(methods: Sequence[str] | None, given: dict[str, Any]) -> dict[str, TrainSettings]:
    """Returns the settings of every method, fine-tuning first; what `SHARED` names is the same for all."""
    for name in given:
        if name not in TIMED_SETTINGS:
            near = nearest(name, TIMED_SETTINGS)
            raise UserError(f"the timing takes no {name}{near}; it takes {', '.join(TIMED_SETTINGS)}")
    names = method_names() if methods is None else tuple(methods)
    if not names:
        raise UserError("there is no method to time; give some, such as --methods flooding pgd")
    given, steps = dict(given), given.get("adversarial_steps")
    given.pop("adversarial_steps", None)
    with_steps = NEEDED_BY["adversarial_steps"]
    if steps is not None and not set(names) & set(with_steps):
        raise UserError(f"adversarial_steps is of {', '.join(with_steps)}, and none of them is timed; leave it out")
    shared = resolve(given | {"method": BASE})
    given |= {name: getattr(shared, name) for name in SHARED}
    chosen = {BASE: shared}
    for method in names:
        more = {"adversarial_steps": steps} if steps is not None and method in with_steps else {}
        chosen[method] = resolve(given | more | {"method": method})
    return chosen


def _counted(batches: int | str, warm_up: int, steps_per_epoch: int) -> int:
    """Returns how many batches are timed."""
    left = steps_per_epoch - warm_up
    if left < 1 or (batches != "all" and int(batches) > left):
        wanted = "none is left to time" if left < 1 else f"{batches} cannot be timed"
        raise UserError(
            f"the epoch has {steps_per_epoch} batches, and after {warm_up} to warm up {wanted}; "
            "give smaller --batches, --warm-up or --batch-size, or more examples"
        )
    return left if batches == "all" else int(batches)


def _example_inputs(timed: Iterable[_Method], examples: int, seed: int) -> dict[str, np.ndarray]:
    """Returns a made-up 0 or 1 for every example, under all names that methods want; their values cost nothing."""
    values = np.random.default_rng(seed).integers(0, 2, examples).astype(np.float32)
    return {name: values for each in timed for name in each.example_inputs}


def _take_turns(timed: list[_Method], stream: Iterable[Batch], warm_up: int, bar: tqdm) -> None:
    """Lets every method take a step on each batch; the first one of a batch is the second of the batch before."""
    for number, batch in enumerate(stream):
        first = number % len(timed)
        for turn, each in enumerate((*timed[first:], *timed[:first])):
            bar.set_description(f"warm-up, {each.name}" if number < warm_up else each.name, refresh=False)
            measured = each.take(batch)
            if number >= warm_up:
                shown = {"turn": turn, "examples": len(batch["labels"]), "tokens": int(batch["attention_mask"].sum())}
                for name, value in (shown | measured).items():
                    each.steps[name].append(value)
            bar.update(each.forward + each.backward)


def _command() -> str:
    """The command, without the place of the data."""
    words = [Path(sys.argv[0]).name]
    for before, word in itertools.pairwise(sys.argv):
        given = before == "--data-dir"
        words.append("DATA" if given else "--data-dir=DATA" if word.startswith("--data-dir=") else word)
    return " ".join(words)


def _write(folder: Path, result: dict[str, Any]) -> None:
    rows, told = result["rows"], conditions(result)
    with replacing(folder / "timing.csv") as temporary:
        pd.DataFrame(rows)[list(COLUMNS)].to_csv(temporary, index=False)
    load = " to ".join(f"{result['load_average'][when][0]:.1f}" for when in ("start", "end"))
    write_text(folder / "timing.md", f"{told}; load average {load}.\n\n{timing_table(rows)}\n")
    targets = [folder / "plots" / f"timing.{suffix}" for suffix in ("svg", "png", "pdf")]
    bars = [(row["label"], row["seconds_per_epoch"], row["ratio"]) for row in rows]
    plot_timing(bars, targets, told.replace("; ", "\n"))
    write_json(folder / "timing.json", result)  # last: what lies beside it is not older
