"""Trains a classifier: `python run/train.py --dataset mrpc --device GPU`."""

from mindspore_floodx.cli.train import main
from mindspore_floodx.errors import run_command

run_command(main)
