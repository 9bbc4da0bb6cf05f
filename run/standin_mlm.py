"""Trains BERT-Attack's stand-in language model: `python run/standin_mlm.py --output-dir DIR --dataset sst2 mrpc`."""

from mindspore_floodx.cli.standin_mlm import main
from mindspore_floodx.errors import run_command

run_command(main)
