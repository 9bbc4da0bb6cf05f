"""What every process of a job does, and how a job is started: the trainings that a JSON file lists, in their order."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


class Job:
    """Trainings under msrun; what the workers print is in worker_0.log, worker_1.log ... of the folder.

    Args:
        trainings: the settings of each.
        folder: a new one, for logs.
        workers: their number.
        patience: seconds without a sign of life after which the scheduler gives up a worker; on a busy machine a
            process may get no turn for a minute.
    """

    def __init__(self, trainings: list[dict[str, Any]], folder: Path, workers: int = 2, patience: int = 900):
        folder.mkdir(parents=True)
        self.folder, self.workers = folder, workers
        (folder / "trainings.json").write_text(json.dumps(trainings))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        binaries = Path(sys.executable).parent
        environment = os.environ | {
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",  # msrun starts the first python of PATH
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "MS_NODE_TIMEOUT": str(patience),
        }
        command = [str(binaries / "msrun"), f"--worker_num={workers}", f"--local_worker_num={workers}"]
        command += [f"--master_port={port}", f"--log_dir={folder}", "--join=True"]
        with open(folder / "msrun.txt", "w") as output:
            self.process = subprocess.Popen(
                [*command, str(Path(__file__)), str(folder / "trainings.json")],
                cwd=folder,
                env=environment,
                stdout=output,
                stderr=output,
            )

    def end(self) -> int:
        """Waits for the end; returns msrun's exit status."""
        return self.process.wait()

    def worker(self, rank: int) -> int:
        """Returns the process number of a worker."""
        import psutil

        for each in psutil.Process(self.process.pid).children():
            variables = each.environ()
            if variables.get("MS_ROLE") == "MS_WORKER" and variables.get("RANK_ID") == str(rank):
                return each.pid
        raise LookupError(f"worker {rank} is not running")

    def said(self, name: str = "worker_0.log") -> str:
        """Returns what a process printed: worker_0.log, ..., scheduler.log or msrun.txt."""
        path = self.folder / name
        return path.read_text(errors="replace") if path.exists() else ""

    def all_said(self) -> str:
        return "\n".join(f"{path.name}\n{path.read_text(errors='replace')}" for path in self.folder.glob("*.[lt]*"))


if __name__ == "__main__":
    from mindspore_floodx import train
    from mindspore_floodx.errors import run_command

    def main() -> None:
        for given in json.loads(Path(sys.argv[1]).read_text()):
            train(**given)

    run_command(main)
