"""The command behind run/attack.py: attacks one trained model and prints rows of the paper's Table 2."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from typing import Any

from ..attack_calibration import calibration_line
from ..attack_catalogue import NAMES
from ..attack_metrics import table
from ..attack_recipes import BERT_ATTACK_CANDIDATES, AttackSettings, check_settings
from ..attack_savings import NAMES as SAVINGS
from ..attack_victims import check_victim
from ..attack_workers import open_workers
from ..attacks import attack
from ..errors import run_command, sigterm_raises
from .options import number_or


def parser() -> argparse.ArgumentParser:
    """Returns the command's options."""
    options = argparse.ArgumentParser(
        prog="attack.py",
        description="Attack a trained model: prints Clean%%, Aua%%, Suc%% and #Query, keeps every example's result.",
    )
    add = options.add_argument
    add("run_or_export", metavar="RUN_OR_EXPORT", help="a run folder, or a model folder")
    add("--attack", nargs="+", default=["textfooler"], metavar="NAME", help=f"one or more of: {', '.join(NAMES)}")
    add("--num-examples", type=number_or("all"), default=100, metavar="N|all", help="random examples (default 100)")
    add("--seed", type=int, default=0, help="of the sample and of random attacks (default 0)")
    add("--resources", default="official", metavar="official|standin", help="default: official")
    add("--neighbours", metavar="FILE", help="stand-in for word vectors: JSON, word -> list of near words")
    add("--masked-lm", metavar="FOLDER", help="masked language model of bertattack and bae")
    add("--max-candidates", type=int, default=BERT_ATTACK_CANDIDATES, metavar="K", help="of bertattack (default 48)")
    add("--attack-column", metavar="COLUMN", help="of a pair: first, second, both or a column's name (default both)")
    add("--dataset", help="evaluation data; by default what the run was trained with")
    add("--data-dir", help="folder with the data sets in their official layouts")
    add("--eval-file", help="one's own CSV, TSV or JSONL file instead of a data set")
    add("--text-column", help="of --eval-file")
    add("--text-pair-column", help="of --eval-file")
    add("--label-column", help="of --eval-file")
    add("--max-length", type=int, help="longest input in tokens (default: as trained)")
    add(
        "--victim",
        default="pytorch",
        metavar="pytorch|mindspore",
        help="the export, or the checkpoint (default: export)",
    )
    add("--calibrate", action="store_true", help="attack logits / T as well, T fitted on held-out data")
    add("--calibration-file", metavar="FILE", help="labelled text for --calibrate (default: half the evaluation set)")
    add("--threads", type=int, default=1, help="CPU threads of each process (default 1)")
    add("--workers", type=number_or("auto"), metavar="N|auto", help="processes; auto: cores (default 1; --ray: auto)")
    add("--ray", metavar="ADDRESS", help="attack on the nodes of a Ray cluster: auto or host:port")
    add("--device", default="CPU", metavar="CPU|GPU", help="where the attacked model runs (default CPU)")
    add("--without", nargs="+", default=[], metavar="NAME", help=f"switch off savings of work: {', '.join(SAVINGS)}")
    add("--output-dir", help="gets attacks/<attack>/ (default: RUN_OR_EXPORT)")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the attacks one after the other and prints a table for each: its row, and that of the calibrated attack."""
    options = vars(parser().parse_args(argv))
    folder, names = options.pop("run_or_export"), options.pop("attack")
    for name in names:  # all of them before the first is run
        kept = ("resources", "neighbours", "max_candidates", "masked_lm")
        check_settings(AttackSettings(name, **{option: options[option] for option in kept}))
    calibrate, file = options.pop("calibrate"), options.pop("calibration_file")
    check_victim(options["victim"], options["device"].upper(), options["threads"])
    workers = open_workers(options.pop("workers"), options["threads"], options["device"], options.pop("ray"))
    try:
        with sigterm_raises(), workers or contextlib.nullcontext():  # which are kept from one attack to the next
            options["workers"] = workers
            for name in names:
                summaries = []
                if calibrate or file is not None:  # first, since only it can turn out to be impossible
                    summaries.append(attack(folder, name, **options, calibrate=calibrate, calibration_file=file))
                summaries.insert(0, attack(folder, name, **options))
                _report(summaries)
    except KeyboardInterrupt as stop:
        raise type(stop)("finished examples are kept and the same command goes on") from None
    return 0


def _report(summaries: list[dict[str, Any]]) -> None:
    """Prints the table of an attack: its row and, if there is one, that of the calibrated attack."""
    summary = summaries[0]
    pairs = summary["attack_column"]
    print(
        f"{summary['dataset']}: {summary['num_examples']} of {summary['evaluation_examples']} examples, seed "
        f"{summary['seed']}" + (f", {pairs} of the two texts changed" if pairs else "") + ", 95% intervals"
    )
    print(table(summaries))
    if len(summaries) > 1:
        print(calibration_line(summaries[1]["calibration"]))
    sys.stdout.flush()


def console() -> None:
    """The installed command `floodx-attack`."""
    run_command(main)
