"""Times every training method beside fine-tuning: `python run/timing.py --dataset sst2 --model minilm`."""

from mindspore_floodx.cli.timing import main
from mindspore_floodx.errors import run_command

run_command(main)
