"""The grid of a reproduction: a YAML file that says which runs there are and what is measured on each."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..attack_catalogue import NAMES
from ..errors import UserError, nearest
from ..settings import METHODS, TrainSettings, config_folder, resolve
from ..untrusted import read_yaml, shown

PLAN = {  # what may be said for the whole grid or for one data set; and the kinds of value it takes
    "attacks": (list,),
    "num_examples": (int, str),
    "attack_seed": (int,),
    "resources": (str,),
    "max_candidates": (int,),
    "calibrate": (bool, list),
    "smoothness": (dict, type(None)),
    "by_epoch": (dict, type(None)),
    "timing": (dict, type(None)),
}
_TOP = ("name", "settings", "keep_texts", "methods", "datasets", *PLAN)
_DATASET = ("settings", "methods", "experiments", *PLAN)
_METHOD = ("seeds", "levels", "settings")
_EXPERIMENT = ("method", *_METHOD)
_SMOOTHNESS = ("deviations", "draws", "num_examples", "batch_size")
_BY_EPOCH = ("methods", "attack", "num_examples")
_TIMING = ("methods", "batches", "warm_up", "adversarial_steps")


@dataclass(frozen=True)
class Plan:
    """What is done with every run of a data set. The defaults are the paper's three attacks on all examples."""

    attacks: tuple[str, ...] = ("textfooler", "bertattack", "textbugger")
    num_examples: int | str = "all"
    attack_seed: int = 0  # of the sample: the same examples for every run
    resources: str = "official"
    max_candidates: int | None = None  # of bertattack; None: its default
    calibrate: bool | Sequence[str] = True  # also the temperature-calibrated model: by all attacks, or by these
    smoothness: Mapping[str, Any] | None = None  # Figure 1: options of `measure_smoothness`
    by_epoch: Mapping[str, Any] | None = None  # Figure 4: methods, attack, num_examples
    timing: Mapping[str, Any] | None = None  # Table 3: options of `measure_timing`

    @property
    def calibrated(self) -> tuple[str, ...]:
        """The attacks that are repeated on the temperature-calibrated model."""
        if isinstance(self.calibrate, bool):
            return self.attacks if self.calibrate else ()
        return tuple(self.calibrate)


@dataclass(frozen=True)
class Cell:
    """One training run and all that is measured on it."""

    id: str
    dataset: str
    method: str
    seed: int
    settings: Mapping[str, Any]  # for `settings.resolve`
    plan: Plan
    variant: str | None = None  # flooding: `b0.1` of a sweep, or `best`: the sweep's best level with another seed
    tag: str | None = None  # the name of a further experiment

    def train_settings(self, level: float | None = None, **given: Any) -> TrainSettings:
        """Returns the run's settings.

        Args:
            level: the flood level of a cell that takes the sweep's best.
            given: what this machine adds: output_dir, data_dir, device.

        Raises:
            UserError: a setting that does not exist or is out of range; the cell is named.
        """
        own = dict(self.settings) | ({} if level is None else {"flood_level": level})
        try:
            return resolve(own | {name: value for name, value in given.items() if value is not None})
        except UserError as error:
            raise UserError(f"cell {self.id}: {error}") from None

    @property
    def by_epoch(self) -> Mapping[str, Any] | None:
        """What is measured after every epoch of this run, if anything is."""
        wanted = self.plan.by_epoch
        chosen = wanted and self.seed == 0 and self.tag is None and self.method in wanted["methods"]
        return wanted if chosen else None


@dataclass(frozen=True)
class Grid:
    """All cells, in the order in which they are run, and the data sets whose methods are timed."""

    name: str
    keep_texts: bool
    cells: tuple[Cell, ...]
    timing: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # data set: options of `measure_timing`
    timing_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # data set: settings of the runs

    def choose(self, patterns: Sequence[str]) -> Grid:
        """Returns the grid of the cells whose id fits one of the patterns (`*` and `?` as in a shell).

        The timing of a data set has the id `<data set>-timing`.

        Raises:
            UserError: a pattern that fits none.
        """
        names = [*(cell.id for cell in self.cells), *(f"{dataset}-timing" for dataset in self.timing)]
        for pattern in patterns:
            if not fnmatch.filter(names, pattern):
                raise UserError(f"no cell fits --only {pattern}{nearest(pattern, names)}; --dry-run lists them")

        def fits(name: str) -> bool:
            return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

        return dataclasses.replace(
            self,
            cells=tuple(cell for cell in self.cells if fits(cell.id)),
            timing={dataset: options for dataset, options in self.timing.items() if fits(f"{dataset}-timing")},
        )


def presets() -> list[str]:
    """Returns the names of the grids that come with the package."""
    return sorted(path.stem for path in (config_folder() / "grids").glob("*.yaml"))


def find_grid(preset: str) -> Path:
    """Returns the file of a preset, or of a path to a grid of one's own.

    Raises:
        UserError: there is neither.
    """
    shipped = config_folder() / "grids" / f"{preset}.yaml"
    if shipped.exists():
        return shipped
    if Path(preset).suffix in (".yaml", ".yml"):
        return Path(preset)
    raise UserError(
        f"there is no preset {preset!r}{nearest(preset, presets())}; choose one of {', '.join(presets())}, "
        "or give a grid of your own: --preset FILE.yaml"
    )


def read_grid(path: str | Path) -> Grid:
    """Reads a grid; every cell's settings are checked.

    Raises:
        UserError: no such file, not YAML, an unknown word (the nearest valid one is named), or a wrong value.
    """
    path = Path(path)
    top = _mapping(read_yaml(path), str(path), _TOP)
    datasets = _mapping(top.get("datasets"), f"{path}: datasets", None)
    if not datasets:
        raise UserError(f"{path}: datasets is empty; name at least one data set with its methods")
    cells: list[Cell] = []
    timing, timing_settings = {}, {}
    for dataset, values in datasets.items():
        where = f"{path}: datasets: {dataset}"
        own = {"methods": top.get("methods"), **_mapping(values or {}, where, _DATASET)}
        settings = {
            "dataset": dataset,
            **_mapping(top.get("settings") or {}, f"{path}: settings", None),
            **_mapping(own.get("settings") or {}, f"{where}: settings", None),
        }
        plan = _plan(top, own, where)
        cells += _cells(dataset, own, settings, plan, where)
        if plan.timing is not None:
            timing[dataset], timing_settings[dataset] = plan.timing, settings
    twice = {cell.id for cell in cells if sum(other.id == cell.id for other in cells) > 1}
    if twice:
        raise UserError(f"{path}: the cell {sorted(twice)[0]} is there twice; a seed or a level is given twice")
    for cell in cells:
        cell.train_settings(level=0.1 if cell.variant == "best" else None)
    name, keep_texts = top.get("name", path.stem), top.get("keep_texts", True)
    return Grid(str(name), bool(keep_texts), tuple(cells), timing, timing_settings)


def _plan(top: Mapping[str, Any], own: Mapping[str, Any], where: str) -> Plan:
    values = {name: own.get(name, top.get(name)) for name in PLAN if name in own or name in top}
    for name, value in values.items():
        kinds = PLAN[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise UserError(f"{where}: {name} is {shown(value)}; see configs/grids for how it is written")
    if not values.get("attacks", True):
        raise UserError(f"{where}: attacks is empty; name at least one attack")
    for attack in (*values.get("attacks", ()), *_words(values.get("by_epoch"), "attack")):
        if attack not in NAMES:
            raise UserError(f"{where}: attacks: there is no attack {shown(attack)}{nearest(str(attack), NAMES)}")
    if values.get("resources", "official") not in ("official", "standin"):
        raise UserError(f"{where}: resources is {shown(values['resources'])}; it is official or standin")
    for name, known in (("smoothness", _SMOOTHNESS), ("by_epoch", _BY_EPOCH), ("timing", _TIMING)):
        if values.get(name) is not None:
            _mapping(values[name], f"{where}: {name}", known)
    if values.get("by_epoch") is not None and set(values["by_epoch"]) != set(_BY_EPOCH):
        raise UserError(f"{where}: by_epoch needs {', '.join(_BY_EPOCH)}")
    if "attacks" in values:
        values["attacks"] = tuple(values["attacks"])
    plan = Plan(**values)
    for attack in plan.calibrated:
        if attack not in plan.attacks:
            raise UserError(
                f"{where}: calibrate: {shown(attack)} is not one of the attacks{nearest(str(attack), plan.attacks)}"
            )
    return plan


def _words(options: Mapping[str, Any] | None, name: str) -> list[Any]:
    return [options[name]] if isinstance(options, Mapping) and name in options else []


def _cells(dataset: str, own: Mapping[str, Any], settings: Mapping[str, Any], plan: Plan, where: str) -> Iterator[Cell]:
    methods = _mapping(own.get("methods") or {}, f"{where}: methods", None)
    experiments = _mapping(own.get("experiments") or {}, f"{where}: experiments", None)
    if not methods and not experiments:
        raise UserError(f"{where}: methods is empty; name at least one")
    for method, values in methods.items():
        place = f"{where}: methods: {method}"
        yield from _runs(dataset, method, _mapping(values or {}, place, _METHOD), settings, plan, place)
    for tag, values in experiments.items():
        place = f"{where}: experiments: {tag}"
        options = dict(_mapping(values, place, _EXPERIMENT))
        if "method" not in options:
            raise UserError(f"{place} needs a method")
        yield from _runs(dataset, options.pop("method"), options, settings, plan, place, str(tag))


def _runs(
    dataset: str,
    method: str,
    options: Mapping[str, Any],
    settings: Mapping[str, Any],
    plan: Plan,
    where: str,
    tag: str | None = None,
) -> Iterator[Cell]:
    """Yields a method's cells: a seed each; with levels, all of them with the first seed and the best with the rest."""
    if method not in METHODS:
        raise UserError(f"{where}: there is no method {shown(method)}{nearest(str(method), METHODS)}")
    seeds, levels = _numbers(options.get("seeds", [0]), f"{where}: seeds"), options.get("levels")
    if levels is not None and method != "flooding":
        raise UserError(f"{where}: levels are searched for flooding only; give flood_level under settings")
    own = {**settings, **_mapping(options.get("settings") or {}, f"{where}: settings", None), "method": method}
    end = f"-{tag}" if tag else ""
    if levels is None:
        for seed in seeds:
            yield Cell(f"{dataset}-{method}{end}-{seed}", dataset, method, seed, own | {"seed": seed}, plan, tag=tag)
        return
    for level in _numbers(levels, f"{where}: levels"):
        variant, swept = f"b{level:g}", own | {"seed": seeds[0], "flood_level": level}
        name = f"{dataset}-{method}-{variant}{end}-{seeds[0]}"
        yield Cell(name, dataset, method, seeds[0], swept, plan, variant, tag)
    for seed in seeds[1:]:
        name = f"{dataset}-{method}-best{end}-{seed}"
        yield Cell(name, dataset, method, seed, own | {"seed": seed}, plan, "best", tag)


def _numbers(values: Any, where: str) -> list[Any]:
    numbers = isinstance(values, list) and values and all(type(value) in (int, float) for value in values)
    if not numbers:
        raise UserError(f"{where} is {shown(values)}; write a list of numbers, such as [0, 1, 2]")
    return list(values)


def _mapping(content: Any, where: str, known: Sequence[str] | None) -> Mapping[str, Any]:
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{where} holds no `name: value` lines")
    for key in content:
        if known is not None and key not in known:
            raise UserError(
                f"{where}: {shown(key)} is not known here{nearest(key, known)}; known are {', '.join(known)}"
            )
    return content
