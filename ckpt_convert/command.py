"""The command `python -m ckpt_convert`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mindspore_floodx.errors import UserError

from .convert import FORMATS, to_mindspore, to_pytorch
from .onnx_file import to_onnx


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and prints the report.

    Raises:
        UserError: as `to_pytorch`, `to_mindspore` and `to_onnx` do, or the file of --verify-text cannot be read.
    """
    arguments = _parser().parse_args(argv)
    common: dict[str, Any] = {
        "config": arguments.config,
        "verify": arguments.verify or arguments.verify_text is not None,
        "texts": None if arguments.verify_text is None else _read_texts(arguments.verify_text),
    }
    if arguments.direction == "to-onnx":
        difference = to_onnx(arguments.source, arguments.target, **common)
        print(f"{arguments.source} -> {arguments.target}: {arguments.target.stat().st_size / 1e6:.1f} MB")
        if difference is not None:
            print(f"largest logit difference: {difference:.2e}")
        return 0
    common["tokenizer"] = arguments.tokenizer
    if arguments.direction == "to-pytorch":
        report = to_pytorch(arguments.source, arguments.target, **common)
    else:
        report = to_mindspore(
            arguments.source,
            arguments.target,
            num_labels=arguments.num_labels,
            seed=arguments.seed,
            file_format=arguments.format,
            **common,
        )
    print(report)
    if arguments.all_names:
        names = report.renamed | report.legacy
        width = max(map(len, names), default=0)
        print(*(f"{old:{width}} -> {new}" for old, new in names.items()), sep="\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    reading = argparse.ArgumentParser(add_help=False)
    reading.add_argument("--config", type=Path, metavar="FILE", help="config.json, if it is not beside the weights")
    reading.add_argument("--verify", action="store_true", help="run both models on text and compare their logits")
    reading.add_argument(
        "--verify-text", type=Path, metavar="FILE", help="text for --verify: a sentence a line, pairs with a tab"
    )
    common = argparse.ArgumentParser(add_help=False, parents=[reading])
    common.add_argument(
        "--tokenizer", metavar="MODEL", help="model folder, hub id or 'minilm' whose tokenizer files are copied"
    )
    common.add_argument("--all-names", action="store_true", help="print every renamed tensor, not only the first ones")
    parser = argparse.ArgumentParser(
        prog="python -m ckpt_convert",
        description="Converts BERT between MindSpore and PyTorch, bit for bit, and to ONNX.",
    )
    directions = parser.add_subparsers(dest="direction", required=True, metavar="{to-pytorch,to-mindspore,to-onnx}")
    pytorch = directions.add_parser("to-pytorch", parents=[common], help="MindSpore to a Hugging Face folder")
    pytorch.add_argument("source", metavar="SOURCE", help="run folder, model folder, .ckpt or .safetensors file")
    mindspore = directions.add_parser("to-mindspore", parents=[common], help="Hugging Face to a MindSpore folder")
    mindspore.add_argument("source", metavar="SOURCE", help="Hugging Face folder, hub id, 'minilm' or weight file")
    mindspore.add_argument("--num-labels", type=_positive, metavar="N", help="classes, for a model without classifier")
    mindspore.add_argument("--seed", type=int, default=0, help="of newly initialised tensors (default: 0)")
    mindspore.add_argument("--format", choices=sorted(FORMATS), default="safetensors", help="default: safetensors")
    for direction in (pytorch, mindspore):
        direction.add_argument("target", metavar="TARGET", help="folder to write")
    onnx = directions.add_parser("to-onnx", parents=[reading], help="either to an ONNX file; needs the extra `onnx`")
    onnx.add_argument("source", metavar="SOURCE", help="run folder, model folder or weight file")
    onnx.add_argument("target", type=Path, metavar="TARGET", help="file to write, ending in .onnx")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of classes")
    return int(text)


def _read_texts(path: Path) -> list[str | tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"cannot read {path} given with --verify-text: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} given with --verify-text is not UTF-8 text") from None
    texts: list[str | tuple[str, str]] = []
    for line in lines:
        first, tab, second = line.partition("\t")
        if line.strip():
            texts.append((first, second) if tab else line)
    if not texts:
        raise UserError(f"{path} given with --verify-text has no line of text")
    return texts
