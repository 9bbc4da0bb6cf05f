"""Settings: the paper's defaults, what wins over what, and what is refused."""

import dataclasses

import pytest
import yaml

from mindspore_floodx.errors import UserError
from mindspore_floodx.settings import TrainSettings, config_folder, read_settings_file, resolve

# section 4 of the paper
PAPER = {
    "model": "bert-base-uncased",
    "epochs": 10,
    "learning_rate": 2e-5,
    "adam_epsilon": 1e-8,
    "weight_decay": 0.01,
    "warmup_ratio": 0.1,
    "max_length": 512,
    "max_grad_norm": None,
}
BATCH_SIZES = {"sst2": 32, "mrpc": 16, "qnli": 16, "imdb": 16, "ag_news": 16}
# the authors' scripts: a level for three data sets, and a default
FLOOD_LEVELS = {"sst2": 0.1, "mrpc": 0.025, "qnli": 0.036, "imdb": 0.02, "ag_news": 0.025}


def refused(call, *arguments, **options):
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


class TestThePapers:
    def test_defaults_of_the_dataclass(self):
        settings = TrainSettings()
        assert {name: getattr(settings, name) for name in PAPER} == PAPER
        assert (settings.dataset, settings.method, settings.flood_level, settings.batch_size) == (
            "mrpc",
            "finetune",
            None,
            16,
        )
        assert settings.output_dir == "runs/mrpc-finetune-0"

    @pytest.mark.parametrize("dataset", BATCH_SIZES)
    def test_every_data_set_with_both_methods(self, dataset):
        finetune, flooding = (resolve({"dataset": dataset, "method": method}) for method in ("finetune", "flooding"))
        for settings in (finetune, flooding):
            assert {name: getattr(settings, name) for name in PAPER} == PAPER
            assert settings.batch_size == BATCH_SIZES[dataset]
        assert finetune.flood_level is None and flooding.flood_level == FLOOD_LEVELS[dataset]
        assert flooding.output_dir == f"runs/{dataset}-flooding-0"

    def test_every_shipped_file_loads(self):
        paths = sorted(path for path in config_folder().rglob("*.yaml") if path.parent.name != "grids")
        assert {path.stem for path in paths} >= {*BATCH_SIZES, "demo", "finetune", "flooding"}
        for path in paths:
            content = read_settings_file(path)
            assert content, path
            if path.parent.name == "originals":
                assert path.stem.startswith(resolve({}, path).method)
            else:
                resolve({path.parent.name.removesuffix("s"): path.stem})


class TestLayers:
    @pytest.fixture
    def configs(self, tmp_path, monkeypatch):
        """configs/ of our own, where every layer sets a value that the layers above it may change."""
        for kind in ("methods", "datasets"):
            (tmp_path / kind).mkdir()
        written(tmp_path / "methods" / "flooding.yaml", "flood_level: 1\nepochs: 1\nbatch_size: 1\nseed: 1\nthreads: 1")
        written(
            tmp_path / "datasets" / "demo.yaml",
            "epochs: 2\nbatch_size: 2\nseed: 2\nthreads: 2\nmethods:\n  flooding:\n    batch_size: 3\n    seed: 3\n"
            "    threads: 3\n  finetune:\n    seed: 9",
        )
        monkeypatch.setattr("mindspore_floodx.settings.config_folder", lambda: tmp_path)
        return tmp_path

    def test_each_wins_over_the_one_before(self, configs):
        users = written(configs / "mine.yaml", "dataset: demo\nmethod: flooding\nseed: 4\nthreads: 4")
        settings = resolve({"threads": 5}, users)
        assert (settings.dataset, settings.method) == ("demo", "flooding")
        assert settings.max_length == 512  # the dataclass
        assert settings.flood_level == 1.0  # configs/methods
        assert settings.epochs == 2  # configs/datasets
        assert settings.batch_size == 3  # its section for the method
        assert settings.seed == 4  # the user's file
        assert settings.threads == 5  # the command line

    def test_a_method_takes_only_its_own_section(self, configs):
        assert resolve({"dataset": "demo"}).seed == 9
        users = written(configs / "mine.yaml", "methods:\n  flooding:\n    seed: 7\nseed: 6")
        assert resolve({"dataset": "demo", "method": "flooding"}, users).seed == 7
        assert resolve({"dataset": "demo"}, users).seed == 6

    def test_the_command_line_chooses_the_layers(self, configs):
        users = written(configs / "mine.yaml", "dataset: mrpc\nmethod: finetune")
        settings = resolve({"dataset": "demo", "method": "flooding"}, users)
        assert (settings.dataset, settings.method, settings.batch_size) == ("demo", "flooding", 3)

    def test_own_files_are_not_the_default_data_set(self):
        own = {"train_file": "a.csv", "text_column": "t", "label_column": "l"}
        assert resolve(own).dataset == "custom" and resolve(own).output_dir == "runs/custom-finetune-0"
        assert resolve(own | {"dataset": "reviews"}).dataset == "reviews"


class TestRefused:
    def test_unknown_keys_with_the_nearest_one(self, tmp_path):
        assert refused(resolve, {"flod_level": 1}) == (
            "settings: 'flod_level' is not a setting (did you mean 'flood_level'?)"
        )
        path = written(tmp_path / "my.yaml", "learning_rat: 1e-5")
        assert refused(resolve, {}, path) == f"{path}: 'learning_rat' is not a setting (did you mean 'learning_rate'?)"
        path = written(tmp_path / "my.yaml", "methods:\n  floodin:\n    epochs: 1")
        assert "'floodin' is not a method (did you mean 'flooding'?)" in refused(resolve, {}, path)
        path = written(tmp_path / "my.yaml", "methods:\n  finetune:\n    epoch: 1")
        assert "methods: finetune: 'epoch' is not a setting (did you mean 'epochs'?)" in refused(resolve, {}, path)

    @pytest.mark.parametrize(
        "text, said",
        [
            ("just words", "holds no `setting: value` lines"),
            ("- epochs", "holds no `setting: value` lines"),
            ("epochs: [", "is not valid YAML"),
            ("x: !!python/object/apply:os.system ['true']", "is not valid YAML"),
            ("methods: 3", "methods holds 3"),
            ("methods:\n  flooding:", "flooding holds no `setting: value` lines"),
            ("methods:\n  flooding: [1]", "flooding holds no `setting: value` lines"),
            ("3: 4", "'3' is not a setting"),
        ],
    )
    def test_files_that_are_no_settings(self, tmp_path, text, said):
        path = written(tmp_path / "my.yaml", text)
        message = refused(resolve, {}, path)
        assert said.replace("'3'", "3") in message and str(path) in message

    def test_files_that_cannot_be_read(self, tmp_path):
        assert "No such file" in refused(resolve, {}, tmp_path / "none.yaml")
        assert "Is a directory" in refused(resolve, {}, tmp_path)
        (tmp_path / "my.yaml").write_bytes(b"epochs: \xff")
        assert "not UTF-8" in refused(resolve, {}, tmp_path / "my.yaml")

    @pytest.mark.parametrize(
        "given, said",
        [
            ({"epochs": 0}, "epochs is 0; it must be at least 1"),
            ({"epochs": 2.0}, "epochs is 2.0; expected a whole number"),
            ({"epochs": "3"}, "epochs is '3'; expected a whole number"),
            ({"epochs": True}, "epochs is True; expected a whole number"),
            ({"epochs": None}, "epochs is None; expected a whole number"),
            ({"batch_size": -1}, "batch_size is -1"),
            ({"threads": 0}, "threads is 0"),
            ({"max_train_examples": 0}, "max_train_examples is 0"),
            ({"learning_rate": "fast"}, "learning_rate is 'fast'; expected a number"),
            ({"learning_rate": True}, "learning_rate is True; expected a number"),
            ({"learning_rate": 0}, "learning_rate is 0.0; it must be above 0"),
            ({"learning_rate": float("nan")}, "learning_rate is nan; expected a finite number"),
            ({"learning_rate": "inf"}, "learning_rate is inf; expected a finite number"),
            ({"max_grad_norm": 0}, "max_grad_norm is 0.0; it must be above 0"),
            ({"warmup_ratio": 1.1}, "warmup_ratio is 1.1; it must lie between 0 and 1"),
            ({"weight_decay": -0.1}, "weight_decay must not be negative"),
            ({"seed": -1}, "seed must lie between 0 and 2147483647"),
            ({"seed": 2**31}, "seed must lie between 0 and 2147483647"),
            ({"dataset": 5}, "dataset is 5; expected text"),
            ({"overwrite": "yes"}, "overwrite is 'yes'; expected true or false"),
            (
                {"method": "floding"},
                r"method is 'floding' (did you mean 'flooding'?); choose one of finetune, flooding",
            ),
            ({"device": "gpu "}, "device is 'gpu '"),
            ({"method": "finetune", "flood_level": 0.1}, "finetune has no flood_level: leave --flood-level out"),
            ({"method": "flooding", "flood_level": -0.1}, "flood_level is -0.1; it must be 0 or more"),
            ({"method": "flooding", "flood_level": None}, "method flooding needs a flood_level; give --flood-level"),
            ({"method": "freelb", "adversarial_steps": 0}, "adversarial_steps is 0; it must be at least 1"),
            ({"method": "pgd", "adversarial_step_size": 0}, "adversarial_step_size is 0.0; it must be above 0"),
            ({"method": "tavat", "adversarial_bound": -1}, "adversarial_bound is -1.0; it must be 0 or more"),
            ({"method": "tavat", "infobert_alpha": 0.1}, "method tavat has no infobert_alpha"),
            ({"method": "pgd", "flood_level": 0.1}, "it belongs to flooding, iflood, softad, selective"),
            ({"method": "infobert", "infobert_low": 0.95}, "the first must be below the second"),
            ({"method": "adaflood", "adaflood_folds": 1}, "adaflood_folds is 1; it must be at least 2"),
            ({"method": "adaflood", "adaflood_gamma": 1.5}, "adaflood_gamma is 1.5; it must lie between 0 and 1"),
            ({"method": "pgd", "accordance": "online"}, "with method pgd use --accordance snapshot"),
            ({"warmup_steps": 0}, "warmup_steps is 0; it must be at least 1"),
        ],
    )
    def test_types_and_ranges(self, given, said):
        assert said in refused(resolve, given)


def test_yaml_numbers_without_a_point_are_numbers(tmp_path):
    path = written(tmp_path / "my.yaml", "learning_rate: 2e-5\nadam_epsilon: 1e-6\nweight_decay: 0\nmax_grad_norm: 1")
    assert isinstance(yaml.safe_load(path.read_text())["learning_rate"], str)  # what YAML makes of it
    settings = resolve({}, path)
    assert (settings.learning_rate, settings.adam_epsilon, settings.weight_decay) == (2e-5, 1e-6, 0.0)
    assert all(isinstance(value, float) for value in (settings.learning_rate, settings.max_grad_norm))


def test_saved_settings_make_the_same_run(tmp_path):
    settings = resolve({"dataset": "sst2", "method": "flooding", "seed": 3, "learning_rate": 3e-5, "threads": 2})
    path = written(tmp_path / "config.yaml", yaml.safe_dump(settings.to_dict()))
    assert resolve({}, path) == settings


def test_every_setting_explains_itself():
    for each in dataclasses.fields(TrainSettings):
        assert each.metadata["help"].split(), each.name


def test_warm_up_by_steps_is_for_runs_that_are_long_enough():
    settings = resolve({"method": "pgd"})
    assert settings.warmup_steps == 500
    assert settings.warmup_share(2000) == 0.25
    assert settings.warmup_share(999) == settings.warmup_ratio == 0.1
    assert resolve({}).warmup_share(2000) == 0.1
