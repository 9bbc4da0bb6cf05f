"""The command behind run/track.py: a run that MLflow does not have, or not all of."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..errors import UserError
from ..mlflow_tracking import send_run
from ..run_files import read_run_files

EXAMPLES = """\
examples:
  # what a server that was away has missed, or a run that was trained without --track mlflow
  MLFLOW_TRACKING_URI=http://localhost:5000 %(prog)s runs/mrpc-flooding-0
  # again after attacks: their figures and summaries
  %(prog)s runs/mrpc-flooding-0
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Sends what MLflow lacks of each run and prints where it is.

    Raises:
        UserError: as `mlflow_tracking.send_run`, or MLflow did not take it.
    """
    parser = argparse.ArgumentParser(
        prog="track.py",
        description="Send runs to MLflow: settings, metrics with their steps, plots and result files. What it has "
        "already is not sent again. The server is MLFLOW_TRACKING_URI's, else a file mlflow.db in this folder.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder")
    for run in parser.parse_args(argv).runs:
        status = "FINISHED" if read_run_files(run).finished else "KILLED"
        try:
            print(f"{run}: {send_run(run, status)}")
        except UserError:
            raise
        except Exception as error:  # MLflow's own, the network's or the database's
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"MLflow did not take {run} ({reason}); check MLFLOW_TRACKING_URI and try again") from error
    return 0
