"""Every command that the README and docs/ show is executed, or gone through as far as time allows.

A command that fits none of `RULES` is a failure, so a new one cannot slip through. What each rule does:

- RUN: the command itself, letter by letter, in a folder that has what it names (documented_world.py); on tiny models.
- CHECKED: the command itself up to the first computation: options, settings, data, models and run folders are real.
  With `pytest -m slow` these are run to their end on small settings.
- PARSED: the command's own parser accepts it. For what needs a network or hours.
- ELSEWHERE: another test executes just this command, taken from the same page.
- SHELL: make targets, installations and the like: what they name exists.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from doc_blocks import LANGUAGES, ROOT, Documented, commands, fenced, pages
from documented_world import RUNS, make_world

from mindspore_floodx.data import DATASETS
from mindspore_floodx.errors import UserError
from mindspore_floodx.methods import method_names

COMMANDS = commands()
SMALL = ["--model", "models/sst2", "--max-length", "32", "--epochs", "1", "--max-train-examples", "32"]
SMALL += ["--batch-size", "8", "--device", "CPU", "--threads", "1"]
OTHERS = ("torch", "atheris", "pip-audit", "mlflow")  # packages that the documentation installs beside this one


class Accepted(Exception):
    """The command came as far as it is taken here."""


def stop(*args: object, **options: object) -> None:
    raise Accepted


def words_of(command: str) -> list[str]:
    """The words of a command, without its comment and what goes before its program."""
    words = shlex.split(command, comments=True)
    while re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    return [words[0].removeprefix(".venv/bin/"), *words[1:]]


def main_of(words: list[str]) -> tuple[Callable[[list[str]], int], list[str]]:
    """The `main` behind a command of this project, and the command's options."""
    if words[:3] == ["python", "-m", "ckpt_convert"] or words[0] == "floodx-convert":
        return importlib.import_module("ckpt_convert.command").main, words[3 if words[0] == "python" else 1 :]
    script = words[1] if words[0] == "python" else f"run/{words[0].removeprefix('floodx-').replace('-', '_')}.py"
    assert (ROOT / script).is_file(), f"{script} does not exist"
    module = importlib.import_module(f"mindspore_floodx.cli.{Path(script).stem}")
    return module.main, words[2 if words[0] == "python" else 1 :]


# ---- what is done with a command


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    main, options = main_of(words)
    assert main(options) == 0


def show_help(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="^0$"):
        run(words, monkeypatch)


def run_attack(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run([*words, "--num-examples", "5"], monkeypatch)  # the last one counts


def run_grid(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run([*words, "--dry-run"], monkeypatch)


def run_conversion(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check of both models' logits, which compiles a graph."""
    assert words.count("--verify") == 1
    target = next(word for word in words[5:] if not word.startswith("-"))
    shutil.rmtree(target, ignore_errors=True)
    run([word for word in words if word != "--verify"], monkeypatch)
    assert (Path(target) / "config.json").is_file()


def check_training(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from mindspore_floodx import trainer

    here = {"--data-dir", "--train", "demo"} & set(words)
    local = [] if here else ["--data-dir", "DATA", "--model", "minilm"]  # instead of the hub
    monkeypatch.setattr(trainer, "use_device", stop)  # after settings, data and the model's files were read
    with pytest.raises(Accepted):
        run(
            [*words, *local, "--output-dir", "out/checked"], monkeypatch
        )  # the documented one may be a run of the world


def check_several(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`msrun`: MindSpore's own parser takes its options, and the training that it starts is checked in one process."""
    from mindspore.parallel.cluster.run import get_args

    monkeypatch.setattr(sys, "argv", words)
    launched = get_args()
    assert launched.join == "True" or launched.join is True
    check_training(["python", launched.task_script, *launched.task_script_args], monkeypatch)


def check_ray(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own parser takes its options; nothing is started."""
    scripts = pytest.importorskip("ray.scripts.scripts", reason="Ray is not installed: pip install -e .[ray]")
    scripts.cli.commands[words[1]].make_context(words[1], words[2:])


def check_measurement(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module = {"smoothness": "smoothness", "timing": "timing", "accordance": "accordance_of_run"}[Path(words[1]).stem]
    monkeypatch.setattr(importlib.import_module(f"mindspore_floodx.{module}"), "use_device", stop)
    batches = ["--batches", "1", "--warm-up", "0"] if module == "timing" else []  # the world's data has few
    with pytest.raises(Accepted):
        run([*words, *batches], monkeypatch)


def check_sweep(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from mindspore_floodx.cli import sweep

    def train(options: list[str], level: float, folder: Path) -> None:
        chosen = ["--method", "flooding", "--flood-level", str(level)]
        check_training(["python", "run/train.py", *options, *chosen], monkeypatch)
        raise Accepted

    monkeypatch.setattr(sweep, "_train", train)
    with pytest.raises(Accepted):
        run(words, monkeypatch)


def check_attack(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the published attacks' resources taken for present, which CI does not have."""
    from mindspore_floodx import attack_recipes, attacks

    monkeypatch.setattr(attack_recipes.needs, "list_missing", lambda required: [])
    monkeypatch.setattr(attacks, "_attack", stop)
    given = words[words.index("--resources") + 1] if "--resources" in words else "official"
    near = ["--neighbours", "FILE"] if given == "standin" and "--neighbours" not in words else []
    if "--ray" in words:  # there is no cluster here; the option itself is parsed
        importlib.import_module("mindspore_floodx.cli.attack").parser().parse_args(words[2:])
        place = words.index("--ray")
        words = words[:place] + words[place + 2 :]
    with pytest.raises(Accepted):
        run([*words, *near, "--workers", "1"], monkeypatch)


def check_doctor(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from mindspore_floodx.cli import doctor

    monkeypatch.setattr(doctor, "examine", stop)
    with pytest.raises(Accepted):
        run(words, monkeypatch)


def check_masked_lm(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from mindspore_floodx import standin_mlm

    monkeypatch.setattr(standin_mlm, "train_standin_mlm", stop)
    with pytest.raises(Accepted):
        run(words, monkeypatch)


def parse(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the command until its parser has accepted the options; a wrong one ends in SystemExit."""
    real = argparse.ArgumentParser.parse_args

    def parse_args(self: argparse.ArgumentParser, args: list[str] | None = None, namespace: object = None) -> None:
        real(self, args, namespace)
        raise Accepted

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    if words[1].startswith("benchmarks/"):
        spec = importlib.util.spec_from_file_location(f"documented_{Path(words[1]).stem}", ROOT / words[1])
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setattr(sys, "argv", words[1:])
        monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
        monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look there
        spec.loader.exec_module(module)
        call = module.main
    else:
        main, options = main_of(words)
        call = lambda: main(options)  # noqa: E731
    with pytest.raises(Accepted):
        call()


def elsewhere(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`ELSEWHERE` names the test; that it is there is checked below."""


def no_rule(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    raise AssertionError("no test executes this: add a rule, or name the block's language if it is no command")


def named(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that a sentence names without its options."""
    main_of(words)


def make(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in (word for word in words[1:] if "=" not in word):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"the Makefile has no target {target}"


def install(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    for word in words[2:]:
        if word in ("-c", "-e", "-d", "wheels", "--no-index", "--find-links", "setuptools", "wheel"):
            continue
        package, _, extra = word.removesuffix("]").partition("[")
        assert package in (".", "mindspore-floodx", *OTHERS) or (ROOT / package).is_file(), word
        for each in filter(None, extra.split(",")):
            assert f'"{each}": ' in setup, f"setup.py has no extra {each}"


def environment(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`source .venv/bin/activate`: the folder is the Makefile's."""
    assert "VENV ?= .venv\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


def pytest_runs(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert all((ROOT / word).exists() for word in words if word.startswith("tests/"))


def notebook(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert (ROOT / words[2]).is_file()


def script(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of the documentation itself, which test_site.py runs."""
    text = (ROOT / "tests" / "test_site.py").read_text(encoding="utf-8")
    assert (ROOT / words[1]).is_file() and Path(words[1]).stem in text


@dataclass(frozen=True)
class Rule:
    pattern: str  # of the whole command, from its beginning
    level: str
    check: Callable[[list[str], pytest.MonkeyPatch], None]
    page: str = ""  # only of this one


ELSEWHERE = {  # page and program -> the test that executes it
    ("docs/ecosystems.md", "textattack"): "test_textattack_files.py",
    ("docs/ecosystems.md", "run/textattack_files.py"): "test_textattack_files.py",
    ("docs/ecosystems.md", "run/model_card.py"): "test_model_card.py",
    ("docs/ecosystems.md", "ckpt_convert"): "test_onnx.py",
}
PYTHON = r"(\.venv/bin/)?python "
RULES = [  # the first that fits
    Rule(r"textattack attack( |$)", "ELSEWHERE", elsewhere, "docs/ecosystems.md"),
    Rule(PYTHON + r"run/(textattack_files|model_card)\.py ", "ELSEWHERE", elsewhere, "docs/ecosystems.md"),
    Rule(PYTHON + r"-m ckpt_convert to-onnx ", "ELSEWHERE", elsewhere, "docs/ecosystems.md"),
    Rule(PYTHON + r"run/\w+\.py --help", "RUN", show_help),
    Rule(PYTHON + r"run/(data|compare|model_card)\.py ", "RUN", run),
    Rule(PYTHON + r"run/resources\.py list", "RUN", run),
    Rule(PYTHON + r"run/resources\.py (fetch|pack|import) ", "PARSED", parse),
    Rule(PYTHON + r"run/reproduce\.py ", "RUN", run_grid),
    Rule(PYTHON + r"run/attack\.py .*--attack (deepwordbug|synonym)\b", "RUN", run_attack),
    Rule(PYTHON + r"run/attack\.py ", "CHECKED", check_attack),
    Rule(PYTHON + r"run/train\.py ", "CHECKED", check_training),
    Rule(PYTHON + r"run/sweep\.py ", "CHECKED", check_sweep),
    Rule(PYTHON + r"run/(smoothness|timing|accordance)\.py ", "CHECKED", check_measurement),
    Rule(PYTHON + r"run/doctor\.py", "CHECKED", check_doctor),
    Rule(PYTHON + r"run/standin_mlm\.py ", "CHECKED", check_masked_lm),
    Rule(PYTHON + r"run/(playground|track)\.py ", "PARSED", parse),  # both have tests of their own
    Rule(PYTHON + r"run/demo\.py", "PARSED", parse),  # .ci/run runs its short form
    Rule(PYTHON + r"-m ckpt_convert +to-(pytorch|mindspore) ", "RUN", run_conversion),
    Rule(PYTHON + r"-m ckpt_convert +to-onnx ", "PARSED", parse),  # test_onnx.py runs that of docs/ecosystems.md
    Rule(PYTHON + r"benchmarks/\w+\.py", "PARSED", parse),
    Rule(PYTHON + r"docs/site/\w+\.py", "ELSEWHERE", script),
    Rule(PYTHON + r"(run/\w+\.py|-m ckpt_convert)$", "SHELL", named),
    Rule(r"msrun ", "CHECKED", check_several),
    Rule(r"ray (start|stop)", "PARSED", check_ray),
    Rule(r"make( |$)", "SHELL", make),
    Rule(r"pip (install|download)( |$)", "SHELL", install),
    Rule(r"source \.venv/bin/activate", "SHELL", environment),
    Rule(r"pytest ", "SHELL", pytest_runs),
    Rule(r"jupyter lab ", "SHELL", notebook),  # test_tour.py executes it
]


def rule_for(command: Documented) -> Rule:
    text = re.sub(r"^([A-Z_]+=\S+ )+", "", command.text)
    for each in RULES:
        if each.page in ("", command.page) and re.match(each.pattern, text):
            return each
    return Rule("", "NONE", no_rule)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    return folder


def test_commands_are_found():
    found = {(each.page, each.text) for each in COMMANDS}
    assert len(found) > 60
    assert ("README.md", "python run/train.py --dataset mrpc --device GPU") in found
    assert any(page == "docs/gpu.md" and text.startswith("pip install") for page, text in found)
    assert any(page == "README.md" and text.startswith("python benchmarks/") for page, text in found)  # within a text


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_documented(command, world, monkeypatch, capsys):
    monkeypatch.chdir(world)
    rule_for(command).check(words_of(command.text), monkeypatch)


def test_what_is_executed_elsewhere_is_executed_there():
    for (page, program), test in ELSEWHERE.items():
        assert any(each.page == page and program in each.text for each in COMMANDS), (page, program)
        text = (ROOT / "tests" / test).read_text(encoding="utf-8")
        assert f'"{Path(page).name}"' in text and '"bash"' in text, test
    for command in COMMANDS:
        if rule_for(command).check is elsewhere:
            assert any(command.page == page and program in command.text for page, program in ELSEWHERE), str(command)


def test_run_folders_have_the_names_that_runs_give_them():
    names = {name for each in COMMANDS for name in re.findall(r"\bruns/\w+-\w+-\d+\b", each.text)}
    assert names >= {name for name in RUNS if re.fullmatch(r"runs/\w+-\w+-\d+", name)}
    for name in names:
        dataset, method, _ = name.removeprefix("runs/").split("-")
        assert dataset in DATASETS and method in method_names(), name


@pytest.mark.parametrize(
    "wrong",
    [
        "python run/train.py --dataset mrcp --data-dir DATA --model minilm",
        "python run/train.py --dataset mrpc --data-dir DATA --model minilm --methode freelb",
        "python run/train.py --dataset mrpc --data-dir DATA --model minilm --method frelb",
        "python run/data.py --dataset mrpc --data-dir DAT --show 3",
        "python run/attack.py runs/mrpc-floding-0 --attack textfooler",
        "python run/smoothness.py runs/mrpc-finetune-0 --draw 0",
        "python run/sweep.py --levels 0.1 0.01 0.01 --dataset sst2 --data-dir DATA --model minilm",
        "python run/reproduce.py --preset gpu",
        "python run/resources.py get textfooler",
        "python benchmarks/fuzz.py --hours 1",
        "python -m ckpt_convert to-torch runs/mrpc-flooding-0 exported",
        "make demos",
        "pip install -e .[gpus]",
        "python run/trains.py --dataset mrpc",
        "python run/foo",
    ],
)
def test_a_mistake_in_a_command_is_noticed(wrong, world, monkeypatch, capsys):
    monkeypatch.chdir(world)
    with pytest.raises((AssertionError, UserError, SystemExit)):
        command = Documented("README.md", 1, wrong)
        rule_for(command).check(words_of(wrong), monkeypatch)


def test_blocks_name_their_language():
    known = (*LANGUAGES, "python", "yaml", "toml", "text", "bibtex")
    for path in pages():
        for language, block in fenced(path):
            assert language in known, f"{block.page}:{block.line}: a block of {language!r}"


EXPENSIVE = [each for each in COMMANDS if rule_for(each).check in (check_training, check_measurement, run_conversion)]


@pytest.mark.slow
@pytest.mark.parametrize("command", EXPENSIVE, ids=str)
def test_expensive_commands_to_their_end(command, world, monkeypatch, capsys):
    """With small settings behind the documented ones; the last ones count."""
    monkeypatch.chdir(world)
    words, check = words_of(command.text), rule_for(command).check
    if check is run_conversion:
        run(words, monkeypatch)  # with --verify
        return
    if check is check_training:
        own = [] if {"--train", "demo"} & set(words) else ["--data-dir", "DATA"]
        more = [*SMALL, *own, "--output-dir", f"out/slow-{COMMANDS.index(command)}", "--overwrite"]
    else:
        more = {
            "run/timing.py": ["--model", "models/sst2", "--max-length", "32", "--batch-size", "4", "--batches", "2"],
            "run/smoothness.py": ["--draws", "1", "--num-examples", "8", "--deviations", "0", "0.1"],
            "run/accordance.py": ["--batches", "2"],
        }[words[1]]
    run([*words, *more], monkeypatch)
