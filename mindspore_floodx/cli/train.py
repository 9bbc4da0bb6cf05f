"""Command line of training: every setting is an option, configs/ gives the values that are not named."""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing
from collections.abc import Collection, Sequence
from typing import Any

from ..settings import TrainSettings, resolve
from .options import refuse_unknown

EXAMPLES = """\
examples:
  python run/train.py --dataset mrpc --device GPU
      BERT-base on MRPC from the hub, fine-tuning with the paper's settings
  python run/train.py --dataset mrpc --data-dir glue_data --model minilm --method flooding --flood-level 0.1
      a small encoder that is installed with the package, data from a folder, with the flooded loss
  python run/train.py --dataset sst2 --data-dir glue_data --model minilm --method freelb
      a rival, with the paper's settings; any method is one word
  python run/train.py --train my.csv --eval-file test.csv --text-column text --label-column label --model minilm
      your own data

A run that was stopped (Ctrl-C, SIGTERM, SIGKILL, a crash) goes on with the same command and ends as it would have
without the stop; --overwrite begins it anew. A loss that is not finite ends the run without a checkpoint of it.

Settings that are not given come from configs/methods/<method>.yaml and configs/datasets/<dataset>.yaml. The run folder
keeps the resolved settings, logs, plots, the MindSpore checkpoint and its Hugging Face form.
"""


# the setting that begins a group of options, and the group's title
GROUPS = {
    "model": "model and method",
    "accordance": "gradient accordance and Flooding-X",
    "adversarial_steps": "adversarial training (their values are in configs/methods; see docs/methods.md)",
    "adaflood_folds": "AdaFlood and selective flooding (likewise)",
    "epochs": "training",
    "seed": "the run",
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    arguments, unknown = parser.parse_known_args(argv)
    refuse_unknown(parser, unknown)
    given = vars(arguments)
    settings_file = given.pop("config", None)
    from ..trainer import train  # late: --help should not wait for MindSpore

    run = train(resolve(given, settings_file))
    from .. import distributed  # here, since it imports NumPy

    if distributed.is_main():
        print(f"\nrun folder: {run}\nattack it with: python run/attack.py {run} --attack textfooler --num-examples 100")
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="train",
        usage="train [--dataset NAME | --train FILE ...] [--method METHOD] [options]",
        description="Trains a BERT classifier in MindSpore, with or without flooding, and exports it to PyTorch.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file of settings, over configs/ and under the options")
    add_settings(parser)
    return parser


def add_settings(parser: argparse._ActionsContainer, names: Collection[str] | None = None) -> None:
    """Adds an option for every setting, or for those with these names; one that is not given leaves nothing behind."""
    hints = typing.get_type_hints(TrainSettings)
    group = parser.add_argument_group("data") if names is None else parser
    for each in dataclasses.fields(TrainSettings):
        if names is not None and each.name not in names:
            continue
        if names is None and each.name in GROUPS:
            group = parser.add_argument_group(GROUPS[each.name])
        hint = hints[each.name]
        kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        kind = next(kind for kind in kinds if kind is not type(None))
        if kind is dict:
            continue
        text = each.metadata["help"] + ("" if each.default is None else f" (default {each.default})")
        option = each.metadata.get("option", "--" + each.name.replace("_", "-"))
        unset: dict[str, Any] = {"default": argparse.SUPPRESS}
        if kind is bool:
            group.add_argument(option, dest=each.name, action=argparse.BooleanOptionalAction, help=text, **unset)
        else:
            choices = each.metadata.get("choices")
            metavar = "|".join(choices) if choices else {int: "N", float: "X", str: "TEXT"}[kind]
            read = _whole if kind is int else kind
            group.add_argument(option, dest=each.name, type=read, metavar=metavar, help=text, **unset)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
