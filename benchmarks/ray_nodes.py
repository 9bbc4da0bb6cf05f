"""Do attacks over several machines give one process's results, also when a machine vanishes or the command is killed?

    python benchmarks/ray_nodes.py RUN --data-dir DATA --neighbours LISTS.json --output results/ray_nodes.json

Needs root, Linux and the package ray. The machines are three network namespaces of this one, joined by a bridge: a
head on which the command runs and which does no work, and two nodes with a CPU each. Each has its own host name,
/tmp/ray and /dev/shm, and on the nodes the folder of the run is hidden, so that the model can only come through Ray.
The same command runs four times: in one process, beside it over both nodes, then killed in the midst and given again,
and with the link of a node cut in the midst. Compared are the files of results, byte for byte.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate
from train_step import write_results

from mindspore_floodx.files import write_text

ROOT = Path(__file__).resolve().parent.parent
NET = "10.213.77"
HEAD, NODES = "floodx-head", ("floodx-node1", "floodx-node2")
ADDRESS = f"{NET}.1:6379"


def sh(*words: str | Path, check: bool = True) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if check and done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Host:
    """A network namespace with a mount and a host name of its own, held by a process that sleeps."""

    def __init__(self, name: str, number: int, hidden: Sequence[Path]) -> None:
        self.name, self.link = name, f"fxv{number}"
        sh("ip", "netns", "add", name)
        sh("ip", "link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", name)
        sh("ip", "link", "set", self.link, "master", "fxbridge", "up")
        for words in (["lo", "up"], ["eth0", "up"]):
            sh("ip", "-n", name, "link", "set", *words)
        sh("ip", "-n", name, "address", "add", f"{NET}.{number}/24", "dev", "eth0")
        sh("ip", "-n", name, "route", "add", "default", "via", f"{NET}.254")  # nobody: Ray finds its own address by it
        mounts = "; ".join(f"mkdir -p '{path}'; mount -t tmpfs tmpfs '{path}'" for path in hidden)
        script = f"hostname {name}; {mounts}; echo ready; exec sleep infinity"
        self.holder = subprocess.Popen(
            ["ip", "netns", "exec", name, "unshare", "--mount", "--uts", "sh", "-c", script],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.holder.stdout is not None and self.holder.stdout.readline() == "ready\n"

    def words(self, *words: str | Path) -> list[str]:
        inside = ["nsenter", "-t", str(self.holder.pid), "--mount", "--uts", "--net", "--"]
        return inside + [str(word) for word in words]

    def ray(self, *words: str) -> None:
        sh(*self.words(sys.executable, "-m", "ray.scripts.scripts", *words))

    def processes(self) -> list[int]:
        return [int(pid) for pid in sh("ip", "netns", "pids", self.name, check=False).split()]

    def remove(self) -> None:
        for _ in range(20):
            pids = self.processes()
            if not pids:
                break
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.2)
        self.holder.wait()
        sh("ip", "netns", "delete", self.name, check=False)


@contextlib.contextmanager
def cluster(run: Path) -> Iterator[tuple[Host, list[Host]]]:
    """Three hosts with Ray on them; nothing of it is left afterwards."""
    hosts: list[Host] = []
    own = [Path("/tmp/ray"), Path("/dev/shm")]  # noqa: S108
    try:
        sh("ip", "link", "add", "fxbridge", "type", "bridge")
        sh("ip", "link", "set", "fxbridge", "up")
        for number, name in enumerate((HEAD, *NODES), start=1):
            hosts.append(Host(name, number, own if name == HEAD else [*own, run]))
        memory = "--object-store-memory=300000000"
        head, *nodes = hosts
        usage = "--disable-usage-stats"
        options = ["--head", "--port=6379", "--num-cpus=0", "--include-dashboard=false", usage]
        head.ray("start", *options, f"--node-ip-address={NET}.1", memory)
        for number, node in enumerate(nodes, start=2):
            node.ray("start", f"--address={ADDRESS}", "--num-cpus=1", f"--node-ip-address={NET}.{number}", memory)
        yield head, nodes
    finally:
        for host in hosts:
            host.remove()
        sh("ip", "link", "delete", "fxbridge", check=False)


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


class Runs:
    """The command, with a folder of results for each way in which it is run."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.arguments, self.folder = arguments, folder

    def path(self, name: str) -> Path:
        return self.folder / name / "attacks" / self.arguments.attack / "examples.jsonl"

    def start(self, name: str, host: Host | None = None) -> subprocess.Popen[str]:
        given = self.arguments
        words = [sys.executable, ROOT / "run" / "attack.py", given.run, "--attack", given.attack]
        words += ["--resources", "standin", "--num-examples", given.examples, "--output-dir", self.folder / name]
        for option in ("data_dir", "neighbours", "masked_lm"):
            if getattr(given, option) is not None:
                words += [f"--{option.replace('_', '-')}", getattr(given, option)]
        words = [str(word) for word in words]
        words = words if host is None else host.words(*words, "--ray", ADDRESS)
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def end(self, process: subprocess.Popen[str]) -> str:
        _, err = process.communicate()
        if process.returncode:
            raise SystemExit(f"the command ended with status {process.returncode}: {err[-2000:]}")
        return err

    def wait_for(self, process: subprocess.Popen[str], name: str, count: int) -> int:
        while lines(self.path(name)) < count:
            if process.poll() is not None:
                raise SystemExit(f"the command ended too early: {process.communicate()[1][-2000:]}")
            time.sleep(0.05)
        return lines(self.path(name))

    def row(self, name: str, began: float, **more: Any) -> dict[str, Any]:
        content = self.path(name).read_bytes()
        summary = json.loads(self.path(name).with_name("summary.json").read_text(encoding="utf-8"))
        sha256 = hashlib.sha256(content).hexdigest()
        print(f"{name}: {lines(self.path(name))} results, {sha256}", flush=True)
        return {
            "run": name,
            "sha256": sha256,
            "examples": summary["num_examples"],
            "accuracy_under_attack": summary["accuracy_under_attack"],
            "avg_queries": summary["avg_queries"],
            "examples_by_node": summary.get("examples_by_node"),
            "seconds": round(time.monotonic() - began, 1),
            **more,
        }


def measure(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    runs, rows = Runs(arguments, folder), []
    for name in ("one process", "two nodes", "killed", "a node vanishes"):
        (folder / name / "attacks").mkdir(parents=True)
        for file in (arguments.run / "attacks").glob("clean*"):  # is measured anew where it does not fit
            shutil.copy(file, folder / name / "attacks")
    with cluster(arguments.run.resolve()) as (head, nodes):
        began = time.monotonic()
        alone, both = runs.start("one process"), runs.start("two nodes", head)
        for name, command in (("one process", alone), ("two nodes", both)):
            runs.end(command)
            rows.append(runs.row(name, began))
        total = rows[0]["examples"]

        began = time.monotonic()
        command = runs.start("killed", head)
        kept = runs.wait_for(command, "killed", total // 3)
        command.kill()
        command.communicate()
        kept = max(kept, lines(runs.path("killed")))
        runs.end(runs.start("killed", head))
        rows.append(runs.row("killed", began, killed_after=kept))

        began = time.monotonic()
        command = runs.start("a node vanishes", head)
        finished = runs.wait_for(command, "a node vanishes", total // 3)
        sh("ip", "link", "set", nodes[1].link, "down")
        err = runs.end(command)
        notes = [
            line.strip() for line in err.replace("\r", "\n").splitlines() if line.strip().startswith("note: a worker")
        ]
        rows.append(runs.row("a node vanishes", began, link_cut_after=finished, notes=notes))
    return rows


def report(arguments: argparse.Namespace, rows: list[dict[str, Any]]) -> str:
    cells = []
    for row in rows:
        nodes = row["examples_by_node"] or {}
        cells.append(
            (
                row["run"],
                row["examples"],
                f"{100 * row['accuracy_under_attack']:.1f}",
                f"{row['avg_queries']:.2f}",
                ", ".join(f"{count} on {node.partition(' ')[0]}" for node, count in nodes.items()) or "-",
                f"{row['seconds']:.0f}",
                "yes" if row["sha256"] == rows[0]["sha256"] else "NO",
            )
        )
    heads = ("", "examples", "Aua%", "#Query", "examples of the last call", "seconds", "same file")
    killed = next(row for row in rows if row["run"] == "killed")
    cut = next(row for row in rows if row["run"] == "a node vanishes")
    return (
        f"# Attacks over several machines\n\n{arguments.attack} (stand-in resources) on {arguments.run.name}, three "
        "network namespaces of one machine joined by a bridge: a head that does no work, and two nodes with a CPU, "
        "on which the model's folder cannot be seen.\n\n"
        + tabulate(cells, heads, tablefmt="github", disable_numparse=True)
        + f"\n\n- *killed*: the command got SIGKILL after {killed['killed_after']} examples and was given again.\n"
        f"- *a node vanishes*: its link was cut after {cut['link_cut_after']} examples. The command said: "
        + " / ".join(f"`{note}`" for note in cut["notes"])
        + "\n- *same file*: `examples.jsonl` has the bytes of the one of one process.\n"
        f"- {os.cpu_count()} cores for everything, busy with other work: the seconds say nothing about speed.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--data-dir", type=Path, help="where the run's data set lies now")
    parser.add_argument("--attack", default="textbugger")
    parser.add_argument("--neighbours", type=Path)
    parser.add_argument("--masked-lm", type=Path)
    parser.add_argument("--examples", type=int, default=60)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    arguments.threads, load = 1, os.getloadavg()[0]
    os.environ.update(OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT), TQDM_MININTERVAL="20", RAY_USAGE_STATS_ENABLED="0")
    os.environ["RAY_raylet_start_wait_time_s"] = "600"  # a busy machine
    os.environ["RAY_memory_monitor_refresh_ms"] = "0"  # what others take of this machine's memory is not the nodes'
    os.environ["RAY_AUTH_MODE"] = "disabled"  # nobody else reaches the namespaces
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(arguments, Path(folder))
    text = report(arguments, rows)
    print(text)
    if arguments.output:
        words = [Path(word).name if os.path.isabs(word) else word for word in sys.argv[1:]]
        command = " ".join(["python benchmarks/ray_nodes.py", *words])
        write_results(arguments, rows, command=command, load_average_before=load)
        write_text(arguments.output.with_suffix(".md"), text)
    if any(row["sha256"] != rows[0]["sha256"] for row in rows):
        raise SystemExit("the results are NOT the same")


if __name__ == "__main__":
    main()
