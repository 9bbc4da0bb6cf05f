"""Runs in MLflow: what its own client reads back, what a server that is away costs, and that nothing is sent twice."""

import importlib.metadata
import json
import os
import threading
import types
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from run_files import write_attack, write_run_files

from mindspore_floodx import mlflow_tracking
from mindspore_floodx.cli.track import main
from mindspore_floodx.errors import UserError
from mindspore_floodx.mlflow_tracking import IDENTITY, MlflowMirror, send_run
from mindspore_floodx.runs import RunFolder
from mindspore_floodx.settings import TrainSettings

pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
pytest.importorskip("alembic", reason="the extra mlflow is not installed")
LOG = "step,epoch,loss,flooded,learning_rate,tokens_per_second\n"


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """MLflow's own default, a SQLite file; its tables take seconds, so the tests share it."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture(autouse=True)
def server(database, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # artefacts go to ./mlruns
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, os.environ.get(name, {"MLFLOW_DISABLE_TELEMETRY": "true"}.get(name, "1")))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", tmp_path.name)


@pytest.fixture
def run(tmp_path):
    folder = write_run_files(tmp_path / "sst2-flooding-0", 0.1)
    steps = [f"{step},{(step + 1) // 2},{1 / step:.7g},0,2e-05,1000\n" for step in range(1, 5)]
    (folder / "log.csv").write_text(LOG + "".join(steps))
    (folder / "plots").mkdir()
    (folder / "plots" / "training.png").write_bytes(b"a picture")
    return folder


def client_and_id(run):
    from mlflow import MlflowClient

    return MlflowClient(), json.loads((run / IDENTITY).read_text())["run_id"]


def history(run, name):
    client, run_id = client_and_id(run)
    return [(metric.step, pytest.approx(metric.value)) for metric in client.get_metric_history(run_id, name)]


def artefacts(run, folder=None):
    client, run_id = client_and_id(run)
    return {each.path for each in client.list_artifacts(run_id, folder)}


class TestWhatIsSent:
    def test_settings_metrics_with_steps_and_small_files(self, run):
        write_attack(run, "deepwordbug", ["failed", "failed", "succeeded", "skipped"])
        send_run(run, "FINISHED")
        client, run_id = client_and_id(run)
        told = client.get_run(run_id)
        assert told.info.status == "FINISHED" and told.info.run_name == "sst2-flooding-0"
        assert told.data.params["flood_level"] == "0.1" and told.data.params["method"] == "flooding"
        assert told.data.tags["mindspore"] == "2.10.0" and told.data.tags["data.train.sha256"] == "aa" * 32
        assert history(run, "train/loss") == [(1, 1.0), (2, 0.5), (3, 0.3333333), (4, 0.25)]
        assert history(run, "eval/accuracy") == [(2, 0.875), (4, 0.8125)]  # at the last step of each epoch
        assert history(run, "attack/deepwordbug/accuracy_under_attack") == [(4, 0.5)]
        assert artefacts(run) >= {"config.yaml", "log.csv", "epochs.csv", "environment.json", "plots", "attacks"}
        assert artefacts(run, "plots") == {"plots/training.png"}
        with open(run / "log.csv", "a") as file:
            file.write("5,3,0.2,0,2e-05,1000\n")
        send_run(run, "FINISHED")  # as after another attack
        assert [step for step, _ in history(run, "train/loss")] == [1, 2, 3, 4, 5]
        assert len(history(run, "attack/deepwordbug/accuracy_under_attack")) == 1

    def test_nothing_is_sent_twice_also_after_a_stop(self, run):
        whole = (run / "log.csv").read_text()
        send_run(run)
        (run / "log.csv").write_text(LOG + whole.splitlines()[1] + "\n")  # cut to the state that it goes on from
        send_run(run)
        (run / "log.csv").write_text(whole + "5,3,0.2,0,2e-05,1000\n6,3,0.1")  # and a row that is half written
        send_run(run)
        assert [step for step, _ in history(run, "train/loss")] == [1, 2, 3, 4, 5]
        assert len(history(run, "eval/loss")) == 2

    def test_more_steps_than_a_request_takes(self, run):
        steps = "".join(f"{step},1,0.5,0,2e-05,1000\n" for step in range(1, 702))
        (run / "log.csv").write_text(LOG + steps)
        send_run(run)
        assert [step for step, _ in history(run, "train/learning_rate")] == list(range(1, 702))

    def test_a_run_that_mlflow_has_lost_is_made_anew(self, run):
        send_run(run)
        _, first = client_and_id(run)
        place = json.loads((run / IDENTITY).read_text())
        (run / IDENTITY).write_text(json.dumps(place | {"run_id": "0" * 32}))
        send_run(run)
        assert client_and_id(run)[1] not in (first, "0" * 32)
        assert len(history(run, "train/loss")) == 4


class _Refusing(BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response(500)
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *args):
        pass


class TestAServerThatIsAway:
    def test_it_is_said_once_and_the_rest_is_sent_when_it_is_back(self, run, monkeypatch, database):
        there = HTTPServer(("127.0.0.1", 0), _Refusing)
        threading.Thread(target=there.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{there.server_port}")
        said, seen = [], threading.Event()
        mirror = MlflowMirror(run, lambda line: (said.append(line), seen.set()), seconds=0.01)
        mirror.start()
        assert seen.wait(60)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
        mirror.end("FINISHED", 60)
        there.shutdown()
        assert len(said) == 1 and "the training goes on" in said[0]
        assert len(history(run, "train/loss")) == 4

    def test_what_is_missing_at_the_end_can_be_sent_later(self, run, monkeypatch, database, capsys):
        monkeypatch.setattr(mlflow_tracking, "_client", lambda: (_ for _ in ()).throw(ConnectionError("refused")))
        said = []
        MlflowMirror(run, said.append).end("KILLED", 60)
        assert said[-1].endswith(f"send it with: python run/track.py {run}")
        with pytest.raises(UserError, match=r"MLflow did not take .* \(refused\); check MLFLOW_TRACKING_URI"):
            main([str(run)])
        monkeypatch.undo()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
        monkeypatch.chdir(run.parent)
        assert main([str(run)]) == 0
        assert database in capsys.readouterr().out
        assert len(history(run, "train/loss")) == 4

    def test_a_call_that_never_returns_holds_nobody_up(self, run, monkeypatch):
        for_ever = threading.Event()
        monkeypatch.setattr(mlflow_tracking, "send_run", lambda *given: for_ever.wait(60))
        said = []
        MlflowMirror(run, said.append).end("FINISHED", 0.05)
        for_ever.set()
        assert "lacks a part" in said[0]

    def test_without_the_package_the_remedy_is_named(self, run, monkeypatch):
        def missing(name):
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(importlib.metadata, "version", missing)
        with pytest.raises(UserError, match=r"pip install 'mindspore-floodx\[mlflow\]'"):
            send_run(run)

    def test_a_password_in_the_address_is_not_written(self):
        assert mlflow_tracking._without_password("https://me:secret@host/x") == "https://host/x"
        assert mlflow_tracking._without_password("sqlite:////a/b.db") == "sqlite:////a/b.db"


class TestTheOption:
    ROW = types.MappingProxyType(dict(step=1, epoch=1, loss=0.5, flooded=0, learning_rate=2e-5, tokens_per_second=1.0))

    @pytest.mark.parametrize("track, folders", [("none", set()), ("mlflow", {"mlflow"}), ("both", {"mlflow", "board"})])
    def test_it_says_where_a_step_goes(self, track, folders, tmp_path, monkeypatch):
        sent = []
        monkeypatch.setattr(mlflow_tracking, "send_run", lambda run, status: sent.append(status))
        folder = RunFolder(TrainSettings(track=track, output_dir=str(tmp_path / "run")))
        folder.log_step(dict(self.ROW))
        folder.close()
        folder.end_tracking("FINISHED")
        assert ("mlflow" in folders) == (sent == ["FINISHED"])
        assert ("board" in folders) == (tmp_path / "run" / "tensorboard").is_dir()

    def test_it_does_not_decide_what_a_run_is(self):
        assert TrainSettings(track="both").that_matter() == TrainSettings().that_matter()
