"""Attacks over several machines, on a real Ray cluster: two nodes that run on this machine."""

from __future__ import annotations

import builtins
import contextlib
import http.server
import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from light_jobs import EXAMPLES, LightJob

ray = pytest.importorskip("ray", reason="the package ray is not installed: pip install 'mindspore-floodx[ray]'")

from test_attack_kill import Command, lines, wait_for_lines  # noqa: E402
from tiny_victim import LABELS, NEIGHBOURS, SENTENCES, export_tiny  # noqa: E402

from mindspore_floodx import attack_ray, ray_cluster  # noqa: E402
from mindspore_floodx.attack_journal import Journal, read_records  # noqa: E402
from mindspore_floodx.attack_loop import attack_examples  # noqa: E402
from mindspore_floodx.attack_pool import ExampleError  # noqa: E402
from mindspore_floodx.attack_ray import RayWorkers  # noqa: E402
from mindspore_floodx.attack_workers import open_workers  # noqa: E402
from mindspore_floodx.attacks import attack  # noqa: E402
from mindspore_floodx.errors import UserError  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent


# light_jobs by its name, which the nodes know, not as `__main__`
LIGHT = "from light_jobs import main; from mindspore_floodx.errors import run_command; run_command(main)"


@contextlib.contextmanager
def two_nodes():
    """A head and another node, with a CPU each."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_enable_worker_prestart", "0")
        patch.setenv("RAY_raylet_start_wait_time_s", "300")
        small = {"object_store_memory": 80 << 20, "include_dashboard": False, "num_cpus": 1}
        cluster = Cluster(initialize_head=True, head_node_args=small)
        cluster.add_one = lambda: cluster.add_node(**small)
        cluster.other = cluster.add_one()
        yield cluster
        cluster.shutdown()


@pytest.fixture(scope="module")
def cluster():
    with two_nodes() as cluster:
        yield cluster


@pytest.fixture
def short_waits(monkeypatch):
    monkeypatch.setattr(attack_ray, "POLL_SECONDS", 0.2)


def test_every_example_once_though_a_worker_and_a_node_are_killed(cluster, short_waits, capfd):
    handler = signal.getsignal(signal.SIGTERM)
    with RayWorkers(cluster.address) as workers:
        assert workers.count == 2
        assert signal.getsignal(signal.SIGTERM) is handler  # not Ray's
        workers.start(LightJob(seconds=0.05), wait_for=2)
        records = []
        for record in workers.run(EXAMPLES):
            records.append(record)
            if len(records) == 6:
                os.kill(record["seconds"]["pid"], signal.SIGKILL)
            if len(records) == 20:
                cluster.remove_node(cluster.other, allow_graceful=False)
                cluster.other = cluster.add_one()
        assert [record["id"] for record in sorted(records, key=lambda record: record["id"])] == list(range(60))
        assert len({record["seconds"]["pid"] for record in records}) >= 3
        assert sum(workers.examples_by_node.values()) == 60 and len(workers.examples_by_node) >= 2
        # another job for the same processes
        workers.start(LightJob(name="second"))
        again = list(workers.run(EXAMPLES[:4]))
        assert [record["seconds"]["kept"]["second"] for record in again] == [1] * 4
    out, err = capfd.readouterr()
    assert out == ""
    notes = [line for line in err.splitlines() if line]
    assert len(notes) in (1, 2, 3)  # the node may have gone between two examples of its worker
    assert all(line.startswith("note: a worker on the node ") and " has ended (" in line for line in notes)
    assert not ray.is_initialized()


def test_an_example_that_ends_every_worker(cluster, short_waits):
    with RayWorkers(cluster.address, 1) as workers:
        assert workers.count == 1
        with pytest.raises(UserError, match="^no GPU here$"):
            workers.start(LightJob(refuses="no GPU here"))
        workers.start(LightJob(ends_on=2))
        records = []
        with pytest.raises(ExampleError, match=r"^example 2 .* has ended its worker process 3 times \(.+\)$"):
            for record in workers.run(EXAMPLES[:5]):
                records.append(record["id"])
        assert records == [0, 1]


def test_a_killed_command_goes_on_from_its_journal(cluster, tmp_path):
    folder, log = tmp_path / "a", tmp_path / "log"
    words = ["-c", LIGHT, folder, cluster.address, 0.05]
    command = Command(*words)
    assert wait_for_lines(command, folder / "examples.jsonl", 8), command.end()[1]
    command.process.kill()
    command.end()
    done, begun = read_records(folder / "examples.jsonl").keys(), lines(log)
    assert 8 <= len(done) < len(EXAMPLES)
    assert Command(*words).end() == (0, "")
    ids = [int(id) for id in log.read_text().split()]
    assert not set(ids[begun + 2 :]) & done  # two may have been begun by workers that had not heard of the kill
    assert max(Counter(ids).values()) <= 2
    journal = Journal(tmp_path / "whole", {}, "ff", [example.id for example in EXAMPLES])
    attack_examples(LightJob().prepare({}), EXAMPLES, journal, progress=False)
    journal.finish()
    assert (folder / "examples.jsonl").read_bytes() == (tmp_path / "whole" / "examples.jsonl").read_bytes()


def test_a_real_attack_has_the_results_of_one_process(cluster, tmp_path):
    run = tmp_path / "run"
    export_tiny(run / "export")
    rows = [f'"{text}",{LABELS[i % 2]}' for i, text in enumerate(SENTENCES) if text]
    (run / "test.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    (run / "lists.json").write_text(json.dumps(NEIGHBOURS))
    options = dict(
        num_examples="all",
        neighbours=run / "lists.json",
        eval_file=run / "test.csv",
        text_column="text",
        label_column="label",
        progress=False,
    )
    alone = attack(run, "synonym", **options, output_dir=tmp_path / "alone")
    far = attack(run, "synonym", **options, output_dir=tmp_path / "far", ray=cluster.address, workers=1)
    path = Path("attacks") / "synonym" / "examples.jsonl"
    assert (tmp_path / "far" / path).read_bytes() == (tmp_path / "alone" / path).read_bytes()
    assert sum(far.pop("examples_by_node").values()) == far["num_examples"] == len(rows)
    for summary in (alone, far):
        for name in [name for name in summary if name.startswith("seconds_")]:
            summary.pop(name)
    assert alone == far


def test_no_place_for_a_worker(cluster):
    with pytest.raises(UserError, match=r"^no node of the Ray cluster at .* has 3 CPU\(s\) for a worker; add one"):
        RayWorkers(cluster.address, threads=3).__enter__()
    with pytest.raises(UserError, match=r"has 1 CPU\(s\) and a GPU for a worker"):
        RayWorkers(cluster.address, device="gpu").__enter__()
    assert not ray.is_initialized()


def test_other_versions(cluster, monkeypatch):
    monkeypatch.setattr(ray, "__version__", "1.0.0")
    with pytest.raises(UserError, match=r"^Version mismatch: .* Ray: 1.0.0; .*install the same Ray and Python"):
        ray_cluster.connect(cluster.address)


def test_this_machine_is_no_node_or_one_of_several(cluster, monkeypatch):
    assert cluster.address in ray_cluster._clusters_here()
    port = cluster.address.rpartition(":")[2]
    ray_cluster._demand_node(f"localhost:{port}")
    with pytest.raises(
        UserError, match=f"^this machine is no node of the Ray cluster at 192.0.2.1:{port}; make it one"
    ):
        ray_cluster._demand_node(f"192.0.2.1:{port}")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_cluster, "_clusters_here", lambda: set())
    with pytest.raises(
        UserError, match="^this machine is no node of the Ray cluster at .*ray start --address=.*num-cpus=0"
    ):
        ray_cluster.connect(cluster.address)
    with pytest.raises(
        UserError, match="^this machine is no node of a Ray cluster; make it one with `ray start`, or leave"
    ):
        ray_cluster.connect("auto")
    monkeypatch.setattr(ray_cluster, "_clusters_here", lambda: {"a:1", "b:2"})
    with pytest.raises(UserError, match="^this machine is a node of 2 Ray clusters; give .* with --ray: a:1, b:2$"):
        ray_cluster.connect("auto")
    assert not ray.is_initialized()


@pytest.mark.parametrize("address", ["nonsense", "ray://here:10001", "host:", ":6379", "host:99999", "host:x"])
def test_what_is_no_address(address):
    with pytest.raises(UserError, match=f"^the Ray address must be auto or host:port, not '{address}'"):
        open_workers(None, ray=address)


def test_wrong_addresses():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(UserError, match=f"^no Ray cluster answers at 127.0.0.1:{port} .Connection refused.; start one"):
        ray_cluster.connect(f"127.0.0.1:{port}")
    with pytest.raises(UserError, match="^there is no host 'no.such.invalid'; give"):
        ray_cluster.connect("no.such.invalid:6379")
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as other:
        threading.Thread(target=other.handle_request, daemon=True).start()
        with pytest.raises(UserError, match="is no Ray cluster; give the address that `ray start --head` printed"):
            ray_cluster.connect(f"127.0.0.1:{other.server_address[1]}")


def test_without_ray(monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name == "ray":
            raise ModuleNotFoundError("No module named 'ray'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(UserError, match="^attacks over several machines need the package ray .*mindspore-floodx.ray"):
        RayWorkers("auto").__enter__()


def test_a_head_that_goes_ends_the_run_with_a_sentence(monkeypatch):
    workers = RayWorkers("auto")
    with socket.create_server(("127.0.0.1", 0)) as server:
        workers._head = f"127.0.0.1:{server.getsockname()[1]}"
    began = time.monotonic()
    with pytest.raises(UserError, match="^the head of the Ray cluster at .* has gone; what is finished is kept"):
        workers._look()
    assert time.monotonic() - began < 1


@pytest.mark.slow
@pytest.mark.parametrize("number, status, said", [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")])
def test_a_command_that_is_told_to_stop(cluster, tmp_path, number, status, said):
    command = Command("-c", LIGHT, tmp_path / "a", cluster.address, 0.5)
    assert wait_for_lines(command, tmp_path / "a" / "examples.jsonl", 3), command.end()[1]
    command.signal_all(number) if number == signal.SIGINT else command.process.send_signal(number)
    assert command.end() == (status, f"stopped by {said}\n")


@pytest.mark.slow
def test_a_head_that_is_killed(tmp_path):
    """The head is killed in the midst; the same results go on without it."""
    path = tmp_path / "a" / "examples.jsonl"
    with two_nodes() as cluster:
        command = Command("-c", LIGHT, tmp_path / "a", cluster.address, 0.5)
        assert wait_for_lines(command, path, 3), command.end()[1]
        cluster.head_node.kill_gcs_server()
        began = time.monotonic()
        status, err = command.end()
        print(err)
        assert time.monotonic() - began < 30
        assert status == 2 and "has gone; what is finished is kept" in err and "Traceback" not in err
    done = len(read_records(path))
    assert 3 <= done < len(EXAMPLES)
    journal = Journal(tmp_path / "a", {}, "ff", [example.id for example in EXAMPLES])
    assert len(journal.done) == done
    attack_examples(LightJob().prepare({}), EXAMPLES, journal, progress=False)
    assert len(journal.done) == len(EXAMPLES)
