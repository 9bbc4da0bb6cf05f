"""Writes a run's model card: `python run/model_card.py runs/mrpc-flooding-0`."""

from mindspore_floodx.cli.model_card import main
from mindspore_floodx.errors import run_command

run_command(main)
