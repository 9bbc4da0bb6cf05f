"""Attacks a trained model: `python run/attack.py RUN --attack textfooler --num-examples 100`."""

from mindspore_floodx.cli.attack import main
from mindspore_floodx.errors import run_command

if __name__ == "__main__":  # worker processes import this file
    run_command(main)
