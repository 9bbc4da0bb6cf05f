"""Prepares a run for TextAttack's own command: `python run/textattack_files.py runs/mrpc-flooding-0`."""

from mindspore_floodx.cli.textattack_files import main
from mindspore_floodx.errors import run_command

run_command(main)
