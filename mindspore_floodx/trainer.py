"""The one training loop: settings in, a run folder with a trained, converted and verified model out."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from . import distributed, run_state
from .data import TextDataset
from .device import held_signals, stoppable, use_device
from .encoding import encode, load_tokenizer
from .errors import Terminated, UserError
from .files import replacing
from .flood_level import FloodLevel, choose_flood_level
from .lock import locked
from .mlflow_tracking import demand_mlflow
from .model_card import card_or_reason
from .monitor import AccordanceMonitor, sub_epoch_ends, write_decision
from .parts import division_of
from .plots import plot_accordance, plot_training
from .prefetch import prefetched
from .pretrained import check_model_files, find_model
from .runs import RunFolder, belonging, demand_free, is_finished, state_of
from .settings import TrainSettings, resolve
from .training_inputs import build_model, epoch_batches, examples_in_order, fingerprints, load_data


def train(settings: TrainSettings | None = None, **given: Any) -> Path:
    """Trains a classifier and returns its run folder.

    Args:
        settings: all settings at once (`settings.resolve` makes them), or
        given: single ones by name, as on the command line: `train(dataset="mrpc", model="minilm", epochs=3)`.

    A run that was stopped, in whatever way, goes on from its last state when it is called again in the same way, and
    ends with the weights and the logs that it would have ended with, to the last bit; only times differ.

    Under `msrun` every process calls this, and they train one model together (docs/several_devices.md).

    Returns:
        the run folder: config.yaml, environment.json, log.csv, epochs.csv, checkpoint/ (MindSpore), export/ (Hugging
        Face), plots/ and tensorboard/.

    Raises:
        UserError: a wrong setting, unreadable data or model, a loss that is not finite, a conversion whose check
            failed, MLflow wanted and not installed, a folder that another process trains in, that holds an unfinished
            run of other settings or that cannot be written.
        KeyboardInterrupt: Ctrl-C, or `errors.Terminated` after SIGTERM, once the state was written.
    """
    if settings is None:
        settings = resolve(given)
    elif given:
        raise UserError("give settings as one object or by name, not both")
    if distributed.launched():  # first, since msrun's scheduler is a process of this program too
        distributed.prepare()
        with held_signals():
            use_device(settings.device, settings.threads)
            distributed.join(settings.device)
    with _folder_of_worker(settings) as own:
        demand_free(own)  # before minutes go into the data
        if own.track in ("mlflow", "both"):
            demand_mlflow()
        dataset = load_data(own)
        model_folder = find_model(own.model)
        check_model_files(model_folder)  # before a folder is made
        with held_signals():  # MindSpore's threads are started here
            use_device(own.device, own.threads)
        _demand_divisible(own)
        with locked(own.run_folder):
            if own.method == "floodingx" and own.floodingx_runs == 2:
                _measure_then_train(own, dataset, model_folder)
            else:
                _Training(own, dataset, model_folder).run()
    return settings.run_folder


@contextlib.contextmanager
def _folder_of_worker(settings: TrainSettings) -> Iterator[TrainSettings]:
    """The settings of this process: of several workers only rank 0 writes to the run folder, the others to nowhere."""
    if distributed.is_main():
        yield settings
        return
    with tempfile.TemporaryDirectory(prefix="floodx-worker-") as folder:
        yield dataclasses.replace(settings, output_dir=str(Path(folder) / "run"))


def _demand_divisible(settings: TrainSettings) -> None:
    from .methods import find_defence

    division = division_of(settings)
    if division.is_whole or getattr(find_defence(settings.method), "divides", False):
        return
    what = "gradient_accumulation_steps above 1" if division.workers == 1 else "several workers"
    raise UserError(
        f"method {settings.method} looks at a batch as a whole and cannot train with {what}; train it on one device "
        "without --gradient-accumulation-steps, or choose another --method"
    )


def _measure_then_train(settings: TrainSettings, dataset: TextDataset, model_folder: Path) -> Path:
    """Flooding-X in two runs: fine-tuning with the accordance measured, then training from scratch with the level.

    The first run has a folder of its own, <run folder>-measurement, and is taken from there if it is finished.
    """
    measuring = dataclasses.replace(settings, method="finetune", output_dir=f"{settings.run_folder}-measurement")
    if not distributed.json_from_main(lambda: is_finished(measuring, fingerprints(dataset))):
        demand_free(measuring)
        with locked(measuring.run_folder):
            _Training(measuring, dataset, model_folder).run()
    accordance, train_loss = distributed.json_from_main(lambda: _measured_in(measuring.run_folder))
    decision = choose_flood_level(accordance, train_loss, **settings.flood_rule_options(), fallback="steepest")
    if decision.level is None:
        raise UserError(f"{decision.reason}; train longer, or give a level with --method flooding --flood-level")
    run = _Training(settings, dataset, model_folder)
    for folder in (measuring.run_folder, run.folder.path):
        write_decision(folder, decision, settings, accordance, train_loss)
    if distributed.is_main():
        plot_accordance(measuring.run_folder)  # again, with the turn marked
    run.flood_at(decision)
    return run.run()


def _measured_in(run: Path) -> list[list[float]]:
    series = pd.read_csv(run / "accordance.csv")
    return [series["accordance"].tolist(), series["train_loss"].tolist()]


@dataclasses.dataclass
class _Place:
    """Where a run is: between two steps, or behind a step whose sub-epoch or epoch has still to be evaluated.

    Attributes:
        epoch: epochs that are finished.
        within: steps of the next one that are done.
        losses, examples: the sum of the losses of its examples so far, and their number.
        seconds: time spent on it.
        sub_epoch_due: the sub-epoch that ends with the last step has not been evaluated and written yet.
    """

    epoch: int = 0
    within: int = 0
    losses: float = 0.0
    examples: int = 0
    seconds: float = 0.0
    sub_epoch_due: bool = False


class _Training:
    def __init__(self, settings: TrainSettings, dataset: TextDataset, model_folder: Path):
        self.settings, self.dataset = settings, dataset
        tokenizer = load_tokenizer(model_folder)
        self.train_set = encode(dataset.train, tokenizer, settings.max_length)
        self.eval_set = encode(dataset.evaluation, tokenizer, settings.max_length)
        found = run_state.from_main(state_of(settings, fingerprints(dataset)))
        # only rank 0's logs go on
        kept = found.progress["sizes"] if found is not None and distributed.is_main() else None
        self.folder = RunFolder(settings, kept)
        self.folder.write_environment(settings, fingerprints(dataset))
        self.steps_per_epoch = -(-len(self.train_set) // settings.batch_size)
        self.total_steps = self.steps_per_epoch * settings.epochs
        self.sub_epoch_ends = sub_epoch_ends(self.steps_per_epoch, settings.sub_epochs)
        self.place, self.going_on_from = _Place(), ""
        self.saved_step, self.saved_at = 0, time.monotonic()
        self.is_between_steps, self.ends_together = True, False
        self.demand_none: Callable[[], None] = lambda: None  # ends the run if that was asked for
        with held_signals() as self.demand_none:
            self._build(model_folder, kept or {})
        if found is not None:
            self._restore(found)
        self._demand_equal_workers()

    def _demand_equal_workers(self) -> None:
        """Of several workers: checks that all of them begin with the same model, data and settings."""
        if distributed.size() == 1:
            return
        paths = ("data_dir", "train_file", "eval_file", "model", "threads")  # may differ from machine to machine
        content = {f"the setting {name}": of for name, of in self.settings.that_matter().items() if name not in paths}
        content["the data"] = [each["sha256"] for each in fingerprints(self.dataset).values()]
        content["the model"] = self._digest()
        distributed.demand_same(content, "start every machine with the same command, files and versions")

    def _digest(self) -> str:
        return run_state.digest(self.model.state())

    def _build(self, model_folder: Path, kept: Mapping[str, int]) -> None:
        from .defences.preparation import Preparation
        from .evaluation import Evaluator
        from .layers import part_dropout_masks
        from .methods import find_defence

        settings = self.settings
        kind = find_defence(settings.method)
        preparation = Preparation(
            settings, self.train_set, tuple(self.dataset.label_names), model_folder, self.demand_none
        )
        self.example_inputs = kind.prepare(preparation)
        self.model, self.optimizer, self.rates = build_model(
            settings, list(self.dataset.label_names), model_folder, self.total_steps
        )
        part_dropout_masks(self.model, distributed.rank())
        self.defence = kind(self.model, self.optimizer, settings)
        self.evaluator = Evaluator(self.model)
        self.monitor: AccordanceMonitor | None = None
        if settings.accordance != "none":
            self.monitor = AccordanceMonitor(settings, self.folder.path, self.model, self.optimizer, kept)
        self.seeks_level = settings.method == "floodingx"  # until there is one
        self.level: float | None = None  # that was found
        self.compile_seconds = 0.0

    def flood_at(self, decision: FloodLevel) -> None:
        """Floods from now on at the level that was found."""
        assert decision.level is not None
        self._flood_at(decision.level)
        self._say(f"flooding at {decision.level:.4f}: {decision.reason}")

    def _flood_at(self, level: float) -> None:
        from .defences.flooding import Flooding

        assert isinstance(self.defence, Flooding)
        self.seeks_level, self.level = False, level
        self.defence.set_flood_level(level)
        if self.monitor is not None:
            self.monitor.stop_training()

    def run(self) -> Path:
        """Trains, or goes on training, and returns the run folder."""
        try:
            path = self._run()
        except BaseException as error:
            self.folder.end_tracking("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise
        self.folder.end_tracking("FINISHED")
        return path

    def _run(self) -> Path:
        self._say(self._describe())
        try:
            with distributed.explained(self._last_good), held_signals() as self.demand_none:
                self._compile()
                while self.place.epoch < self.settings.epochs:
                    self._epoch()
                self._checkpoint()  # so that nothing is trained twice if the conversion fails
        except KeyboardInterrupt as stop:
            said = "the same command goes on"
            if self.is_between_steps:
                self._checkpoint()
                if distributed.is_main():
                    self._save(self.folder.path / "checkpoint")
                said = f"after step {self.step:,} of {self.total_steps:,}; {said}"
                if distributed.is_main():
                    said += f", and the model as it is now is in {self.folder.path / 'checkpoint'}"
            if self.ends_together:
                distributed.wait_for_all()  # msrun kills all workers as soon as one has ended
            raise type(stop)(said) from None
        except BrokenPipeError:  # the reader of what is printed went away
            raise
        except OSError as error:  # a log that cannot be written
            raise UserError(
                f"cannot write {self.folder.path}: {error.strerror or error}; make room there and give the same "
                f"command again ({run_state.last_good(self.folder.path)})"
            ) from error
        finally:
            self.folder.close()
            if self.monitor is not None:
                self.monitor.close()
        with stoppable():
            return self._finish()

    def _say(self, text: str) -> None:
        if distributed.is_main():
            tqdm.write(text)

    def _last_good(self) -> str:
        return run_state.last_good(self.folder.path)

    @property
    def step(self) -> int:
        """Training steps done."""
        return self.place.epoch * self.steps_per_epoch + self.place.within

    def _checkpoint(self) -> None:
        """Writes the state of the run, unless that of this step is there."""
        from .layers import dropout_clocks

        if self.step in (0, self.saved_step) or not distributed.is_main():
            return
        arrays = {f"model/{name}": array for name, array in self.model.state().items()}
        arrays |= {f"optimizer/{name}": array for name, array in run_state.values(self._of_optimizer()).items()}
        arrays |= {f"defence/{name}": array for name, array in self.defence.training_state().items()}
        arrays["dropout_clocks"] = dropout_clocks(self.model)
        sizes = self.folder.sizes()
        if self.monitor is not None:
            arrays |= {f"accordance/{name}": array for name, array in self.monitor.state().items()}
            sizes |= self.monitor.sizes()
        progress = belonging(self.settings, fingerprints(self.dataset)) | {
            "place": dataclasses.asdict(self.place),
            "sizes": sizes,
            "flood_level": self.level,
        }
        run_state.save(self.folder.path, self.step, progress, arrays)
        self.saved_step, self.saved_at = self.step, time.monotonic()

    def _restore(self, found: run_state.RunState) -> None:
        from .layers import set_dropout_clocks

        self.place = _Place(**found.progress["place"])
        self.saved_step, self.going_on_from = self.step, str(found.path)
        self.model.load_state(run_state.part(found.arrays, "model"))
        run_state.set_values(self._of_optimizer(), run_state.part(found.arrays, "optimizer"))
        self.defence.load_training_state(run_state.part(found.arrays, "defence"))
        set_dropout_clocks(self.model, found.arrays["dropout_clocks"])
        if found.progress["flood_level"] is not None and self.seeks_level:
            self._flood_at(found.progress["flood_level"])
        if self.monitor is not None:
            last = self.place.within
            if self.place.sub_epoch_due or last == self.steps_per_epoch:
                last -= 1  # the sub-epoch is still open
            begun = max(end for end in (0, *self.sub_epoch_ends) if end <= max(last, 0))
            seen = itertools.islice(self._batches(self.place.epoch, begun), self.place.within - begun)
            self.monitor.load_state(run_state.part(found.arrays, "accordance"), seen)

    def _of_optimizer(self) -> list[Any]:
        """The parameters of the optimizer that are not the model's: moments, powers, its step."""
        weights = {id(each) for each in self.model.get_parameters()}
        return list({id(each): each for each in self.optimizer.get_parameters() if id(each) not in weights}.values())

    def _pause(self) -> None:
        """Between two steps: ends the run if that was asked for, and writes its state if it is time."""
        self._end_if_asked()
        steps, minutes = self.settings.checkpoint_every_steps, self.settings.checkpoint_every_minutes
        in_time = minutes and time.monotonic() - self.saved_at >= 60 * minutes
        if in_time or (steps and self.step % steps == 0):
            self._checkpoint()

    def _end_if_asked(self) -> None:
        """Ends the run if that was asked for; several workers end together, whichever of them was asked."""
        if distributed.size() == 1:
            self.demand_none()
            return
        asked = None
        try:
            self.demand_none()
        except KeyboardInterrupt as stop:
            asked = type(stop)
        interrupted, terminated = distributed.total([asked is KeyboardInterrupt, asked is Terminated])
        if interrupted or terminated:
            self.ends_together = True
            raise Terminated if terminated else KeyboardInterrupt

    def _describe(self) -> str:
        settings, data = self.settings, self.dataset
        level = "" if settings.flood_level is None else f" at level {settings.flood_level:g}"
        lines = [
            f"{data.name}: {len(data.train):,} training and {len(data.evaluation):,} evaluation examples, "
            f"{data.num_labels} classes",
            f"{settings.method}{level}, {settings.model}, {settings.epochs} epochs of {self.steps_per_epoch} steps, "
            f"batch {settings.batch_size}, on {self._devices()}",
        ]
        if settings.precision == "float16":
            slow = "; a CPU takes longer for them than for float32" if settings.device == "CPU" else ""
            lines.append(f"the encoder's matrix products in training are float16, the rest is float32{slow}")
        if self.going_on_from:
            lines.append(f"going on at step {self.step:,} of {self.total_steps:,} from {self.going_on_from}")
        lines += [
            f"note: {split.source} is only a part of the official {split.name} data"
            for split in (data.train, data.evaluation)
            if split.partial
        ]
        return "\n".join(lines)

    def _devices(self) -> str:
        device, parts, workers = self.settings.device, self.settings.gradient_accumulation_steps, distributed.size()
        where = device if workers == 1 else f"{workers} workers ({device})"
        return where if parts == 1 else f"{where} in {parts} micro-batches"

    def _compile(self) -> None:
        """Compiles all graphs once, for batches of any size and length, and says how long that took."""
        started = time.perf_counter()
        online = self.monitor is not None and self.monitor.online is not None
        if not online or self.settings.accordance_every > 1 or self.settings.method == "floodingx":
            self.defence.compile()
        if self.monitor is not None:
            self.monitor.compile()
        self.evaluator.compile()
        self.compile_seconds = time.perf_counter() - started
        self._say(f"compiled in {self.compile_seconds:.1f} s, for every batch size and length")

    def _batches(self, epoch: int, skipped: int) -> Iterator[dict[str, np.ndarray]]:
        return epoch_batches(self.train_set, self.example_inputs, self.settings, epoch, skipped)

    def _train_on(self, batch: dict[str, np.ndarray], step: int) -> float:
        """The step of this number; returns the mean loss of the batch before it."""
        if self.monitor is not None and self.monitor.online is not None and self.monitor.measures(step):
            return self.monitor.online.add(batch)
        return self.defence.train_step(batch)

    def _epoch(self) -> None:
        """The next epoch, or what is left of it."""
        place, epoch = self.place, self.place.epoch
        started = time.perf_counter() - place.seconds
        if place.sub_epoch_due:
            self._end_sub_epoch_within()
        # made by a thread while the step before runs; however the loop is left, the thread ends with it
        with contextlib.closing(prefetched(self._batches(epoch, place.within))) as batches:
            self._steps(batches, started)
        scores = self._evaluate(f"the evaluation after epoch {epoch + 1}")
        self.is_between_steps = False
        if self.monitor is not None:
            self._end_sub_epoch(self.step, epoch, scores)
        seconds = time.perf_counter() - started
        row = {"epoch": epoch + 1, "train_loss": place.losses / place.examples, **scores, "seconds": seconds}
        self.folder.log_epoch(row, self.step)
        self.place = _Place(epoch + 1)
        self.is_between_steps = True
        self._say(
            "  ".join(
                f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items()
            )
        )
        if distributed.size() > 1:
            content = {f"the model after epoch {epoch + 1}": self._digest()}
            distributed.demand_same(content, f"begin again from an earlier state ({self._last_good()})")
        if self.settings.save_every_epoch and distributed.is_main():
            self._save(self.folder.path / "checkpoints" / f"epoch-{epoch + 1}")
        self._pause()

    def _steps(self, batches: Iterator[dict[str, np.ndarray]], started: float) -> None:
        """The steps on what is left of an epoch that began at that time."""
        place = self.place
        bar = tqdm(
            batches,
            f"epoch {place.epoch + 1}/{self.settings.epochs}",
            self.steps_per_epoch,
            initial=place.within,
            unit="step",
            mininterval=1.0,
            dynamic_ncols=True,
            disable=not distributed.is_main(),
        )
        for batch in bar:
            self._step(batch)
            place.seconds = time.perf_counter() - started
            bar.set_postfix(loss=f"{place.losses / place.examples:.4f}", refresh=False)
            if place.sub_epoch_due:
                self._end_sub_epoch_within()
            self._pause()

    def _step(self, batch: dict[str, np.ndarray]) -> None:
        place, step = self.place, self.step + 1
        self.is_between_steps = False
        began = time.perf_counter()
        loss = self._train_on(batch, step)
        seconds = time.perf_counter() - began
        rate = self.rates[step - 1 - self._skipped()]
        if not np.isfinite(loss):
            order = examples_in_order(self.train_set, self.settings, place.epoch)
            examples = order[place.within * self.settings.batch_size :][: self.settings.batch_size]
            raise self._not_finite(
                loss,
                f"step {step} (epoch {place.epoch + 1}, learning rate {rate:.2g}, examples "
                f"{', '.join(map(str, examples))} of the training data, from 0)",
            )
        row = {
            "step": step,
            "epoch": place.epoch + 1,
            "loss": loss,
            "flooded": self.defence.flooded,
            "learning_rate": rate,
            "tokens_per_second": float(batch["attention_mask"].sum() / seconds),
        }
        self.folder.log_step(row | self._end_scaled_step(step))
        place.losses += loss * len(batch["labels"])
        place.examples += len(batch["labels"])
        place.within += 1
        if self.monitor is not None:
            self.monitor.saw(batch, loss)
            place.sub_epoch_due = place.within in self.sub_epoch_ends[:-1]
        self.is_between_steps = True

    def _skipped(self) -> int:
        """Steps that were skipped so far, by which the schedule lags behind."""
        scale = self.optimizer.dynamic_loss_scale
        return 0 if scale is None else int(scale.skipped.asnumpy())

    def _end_scaled_step(self, step: int) -> dict[str, int]:
        """With a loss scale: adapts it after a step, and returns what the log says of it."""
        scale = self.optimizer.dynamic_loss_scale
        if scale is None:
            return {}
        used = int(scale.scale.asnumpy())
        skipped = scale.end_step()
        if skipped:
            self._say(
                f"step {step} was skipped: its gradient is too large for float16 at a loss scale of {used:,}; it is "
                f"{int(scale.scale.asnumpy()):,} now"
            )
        return {"loss_scale": used, "skipped": int(skipped)}

    def _evaluate(self, where: str) -> dict[str, float]:
        """Returns the scores of the evaluation set; may end the run, which then goes on with this evaluation."""
        scores = self.evaluator.evaluate(
            self.eval_set, self.settings.eval_batch_size, f1=self.dataset.name == "mrpc", before_each=self.demand_none
        )
        if not np.isfinite(scores["eval_loss"]):
            raise self._not_finite(scores["eval_loss"], where)
        return scores

    def _not_finite(self, loss: float, where: str) -> UserError:
        good = run_state.last_good(self.folder.path)
        half = ", or --precision float32" if self.settings.precision == "float16" else ""
        return UserError(
            f"the loss is {loss} at {where}; no checkpoint was written of this ({good}); try a smaller "
            f"--learning-rate or --max-grad-norm 1{half}, with --overwrite"
        )

    def _end_sub_epoch_within(self) -> None:
        """The end of a sub-epoch that is none of an epoch."""
        scores = self._evaluate(f"the evaluation after step {self.step}") if self.settings.evaluate_sub_epochs else None
        self.is_between_steps = False
        self._end_sub_epoch(self.step, self.place.epoch, scores)
        self.place.sub_epoch_due = False
        self.is_between_steps = True

    def _end_sub_epoch(self, step: int, epoch: int, scores: dict[str, float] | None) -> None:
        assert self.monitor is not None
        self.monitor.end_sub_epoch(step, epoch + 1, scores)
        if self.seeks_level:
            decision = self.monitor.decide()
            if decision.fired or step == self.total_steps:
                self.monitor.write_decision(decision)
            if decision.fired:
                self.flood_at(decision)
            elif step == self.total_steps:
                self._say(f"flooding was never switched on: {decision.reason}")

    def _save(self, folder: Path) -> None:
        """Writes the model and, beside it, what the method learned."""
        from ckpt_convert.convert import write_safetensors

        self.model.save_pretrained(folder)
        state = self.defence.state()
        if state:
            with replacing(folder / "defence.safetensors") as temporary:
                write_safetensors(temporary, state, framework="ms")

    def _finish(self) -> Path:
        from ckpt_convert import to_pytorch

        if not distributed.is_main():
            return self.folder.path

        checkpoint = self.folder.path / "checkpoint"
        self._save(checkpoint)
        plot_training(self.folder.path)
        if self.monitor is not None and not all(map(math.isnan, self.monitor.accordance)):
            plot_accordance(self.folder.path)
        report = to_pytorch(checkpoint, self.folder.path / "export", verify=True)  # last: it marks a finished run
        run_state.discard(self.folder.path)
        card = card_or_reason(self.folder.path)
        print(
            f"exported to {self.folder.path / 'export'}; "
            f"largest logit difference to PyTorch {report.max_logit_difference:.1e}; {card}"
        )
        return self.folder.path
