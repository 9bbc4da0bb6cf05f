"""Which training methods there are, which settings are whose, and where each is found. Imports no framework."""

from __future__ import annotations

import importlib
import importlib.metadata
from functools import cache
from typing import TYPE_CHECKING, Any

from .errors import UserError, nearest

if TYPE_CHECKING:
    from .defences import Defence

GROUP = "mindspore_floodx.defences"  # entry points of this group are methods of other packages
OWN = {
    "finetune": "flooding:Flooding",  # without a level
    "flooding": "flooding:Flooding",
    "floodingx": "flooding:Flooding",  # with the level that the monitor finds
    "pgd": "pgd:PGD",
    "freelb": "freelb:FreeLB",
    "tavat": "tavat:TAVAT",
    "infobert": "infobert:InfoBERT",
    "iflood": "iflood:IFlood",
    "adaflood": "adaflood:AdaFlood",
    "softad": "softad:SoftAD",
    "selective": "selective:Selective",
}
FLOODING = ("flooding", "iflood", "softad", "selective")  # those that are given a level
ADVERSARIAL = ("pgd", "freelb", "tavat", "infobert")

# the methods that need a setting; every other one of ours refuses it
NEEDED_BY: dict[str, tuple[str, ...]] = {
    "flood_level": FLOODING,
    "adversarial_steps": (*ADVERSARIAL, "selective"),
    "adversarial_step_size": (*ADVERSARIAL, "selective"),
    "adversarial_init": (*ADVERSARIAL, "selective"),
    "adversarial_bound": (*ADVERSARIAL, "selective"),
    "freelb_shared_dropout": ("freelb",),
    "tavat_mean_gradient": ("tavat",),
    "infobert_alpha": ("infobert",),
    "infobert_beta": ("infobert",),
    "infobert_low": ("infobert",),
    "infobert_high": ("infobert",),
    "infobert_learning_rate": ("infobert",),
    "adaflood_folds": ("adaflood",),
    "adaflood_epochs": ("adaflood",),
    "adaflood_gamma": ("adaflood",),
    "adaflood_scale": ("adaflood",),
    "adaflood_shift": ("adaflood",),
    "selective_share": ("selective",),
    "selective_beta": ("selective",),
    "selective_epochs": ("selective",),
}


@cache
def _of_others() -> dict[str, importlib.metadata.EntryPoint]:
    return {each.name: each for each in importlib.metadata.entry_points(group=GROUP) if each.name not in OWN}


def method_names() -> tuple[str, ...]:
    """Returns the names of all methods, those of installed packages last."""
    return (*OWN, *sorted(_of_others()))


def find_defence(method: str) -> type[Defence]:
    """Returns the class of a method.

    Raises:
        UserError: there is no such method, or the package that brings it cannot be imported.
    """
    if method in OWN:
        module, _, name = OWN[method].partition(":")
        found: Any = getattr(importlib.import_module(f".defences.{module}", __package__), name)
        return found
    if method not in _of_others():
        names = method_names()
        raise UserError(f"there is no method {method!r}{nearest(method, names)}; choose one of {', '.join(names)}")
    entry = _of_others()[method]
    try:
        found = entry.load()
    except Exception as error:  # whatever another package does when it is imported
        package = entry.dist.name if entry.dist else entry.value
        raise UserError(f"method {method} of the package {package} cannot be loaded: {error}") from error
    return found


def demand_right_settings(method: str, values: dict[str, Any]) -> None:
    """Checks that a method of ours has the settings it needs, in range, and none of another method's.

    Raises:
        UserError: the first setting that is missing, out of place or out of range.
    """
    for name, methods in NEEDED_BY.items():
        if method not in OWN:
            break  # what another package's method needs is its own affair
        option = "--" + name.replace("_", "-")
        if values[name] is not None and method not in methods:
            rather = f"; it belongs to {', '.join(methods)}"
            raise UserError(f"method {method} has no {name}: leave {option} out{rather}")
        if values[name] is None and method in methods:
            raise UserError(f"method {method} needs a {name}; give {option}")
    for name in ("flood_level", "adversarial_init", "adversarial_bound", "infobert_alpha", "infobert_beta"):
        if values[name] is not None and values[name] < 0:
            raise UserError(f"{name} is {values[name]}; it must be 0 or more")
    for name in ("adversarial_steps", "adaflood_epochs", "selective_epochs"):
        if values[name] is not None and values[name] < 1:
            raise UserError(f"{name} is {values[name]}; it must be at least 1")
    if values["adaflood_folds"] is not None and values["adaflood_folds"] < 2:
        raise UserError(f"adaflood_folds is {values['adaflood_folds']}; it must be at least 2")
    for name in ("adversarial_step_size", "infobert_learning_rate", "adaflood_scale"):
        if values[name] is not None and not values[name] > 0:
            raise UserError(f"{name} is {values[name]}; it must be above 0")
    for name in ("adaflood_gamma", "selective_share", "infobert_low", "infobert_high"):
        if values[name] is not None and not 0 <= values[name] <= 1:
            raise UserError(f"{name} is {values[name]}; it must lie between 0 and 1")
    if method == "infobert" and not values["infobert_low"] < values["infobert_high"]:
        raise UserError(
            f"infobert_low is {values['infobert_low']} and infobert_high {values['infobert_high']}; "
            "the first must be below the second"
        )
