"""The command behind run/standin_mlm.py: trains the masked language model of BERT-Attack with stand-in resources."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from tabulate import tabulate

from ..standin_settings import MaskedLMSettings

EXAMPLES = """\
examples:
  # text of three data sets in equal shares, a few minutes on two cores
  %(prog)s --output-dir standin-mlm --dataset sst2 mrpc imdb --data-dir DATA

  # one's own text: .txt with one text a line, or a column of .csv, .tsv or .jsonl
  %(prog)s --output-dir standin-mlm --text-file notes.txt reviews.csv --text-column review

Then: python run/attack.py RUN --attack bertattack --resources standin --masked-lm standin-mlm

The labels are not used, and evaluation text of the data sets is not read. Some of the text is held out to measure how
many hidden words are guessed, before and after the training; standin_mlm.json in the folder keeps the figures.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Trains the model, prints how well it guesses held-out words, and says how to use it."""
    options = vars(_parser().parse_args(argv))
    settings = MaskedLMSettings(**{field.name: options.pop(field.name) for field in fields(MaskedLMSettings)})
    from ..standin_mlm import train_standin_mlm  # late: --help should not wait for PyTorch

    record = train_standin_mlm(settings=settings, **options)
    print("hidden held-out words guessed, before -> after")
    print(tabulate(_rows(record), headers="keys", tablefmt="simple", stralign="right"))
    folder = options["output_dir"]
    print(
        f"\n{record['seconds_training']:.0f} s of training on {record['threads']} thread(s)\n"
        f"masked language model: {folder}\nuse it with: python run/attack.py RUN --attack bertattack "
        f"--resources standin --masked-lm {folder}"
    )
    return 0


def _rows(record: dict[str, Any]) -> list[dict[str, str]]:
    """Returns a row for each source and one for all."""
    return [
        {
            "text": name,
            "tokens": f"{after['masked_tokens']:,}",
            "first guess (%)": f"{100 * before['top1']:.1f} -> {100 * after['top1']:.1f}",
            "first five (%)": f"{100 * before['top5']:.1f} -> {100 * after['top5']:.1f}",
            "perplexity": f"{before['perplexity']:,.0f} -> {after['perplexity']:,.0f}",
        }
        for name, after in record["after"].items()
        for before in (record["before"][name],)
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="standin_mlm",
        description="Train a masked language model on top of the MiniLM encoder, for BERT-Attack without a network.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--output-dir", required=True, metavar="DIR", help="a new folder for the model")
    add(
        "--dataset",
        dest="datasets",
        nargs="+",
        default=[],
        metavar="NAME",
        help="data sets whose training text is read",
    )
    add("--data-dir", metavar="DIR", help="folder with the data sets in their official layouts")
    add("--text-file", dest="files", nargs="+", default=[], metavar="FILE", help="one's own .txt, .csv, .tsv or .jsonl")
    add("--text-column", default="text", metavar="NAME", help="of .csv, .tsv and .jsonl files (default text)")
    add("--encoder", default="minilm", metavar="FOLDER", help="a BERT to build on (default minilm)")
    add("--threads", type=int, metavar="N", help="CPU threads; by default all cores")
    default = MaskedLMSettings()
    training = parser.add_argument_group("training")

    def setting(name: str, kind: type, metavar: str, text: str) -> None:
        value = getattr(default, name)
        option = "--" + name.replace("_", "-")
        training.add_argument(option, type=kind, default=value, metavar=metavar, help=f"{text} (default {value})")

    setting("tokens", int, "N", "tokens of text read in training; sets the time")
    setting("batch_tokens", int, "N", "most tokens of a batch")
    setting("max_length", int, "N", "longest piece of text, in tokens")
    setting("learning_rate", float, "X", "the encoder's highest")
    setting("weight_decay", float, "X", "of weight matrices")
    setting("chosen_share", float, "X", "share of the words to be guessed")
    setting("masked_share", float, "X", "share of those that become [MASK]")
    setting("random_share", float, "X", "share of those that become random tokens")
    setting("held_out_words", int, "N", "words of each source kept for measuring")
    setting("seed", int, "N", "of everything that is drawn")
    training.add_argument("--bfloat16", action="store_true", help="faster on processors that multiply in bfloat16")
    return parser
