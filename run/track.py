"""Sends a run to MLflow: `python run/track.py runs/mrpc-flooding-0`."""

from mindspore_floodx.cli.track import main
from mindspore_floodx.errors import run_command

run_command(main)
