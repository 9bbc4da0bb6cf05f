"""Every Python block that the README and docs/ show is run, here or in the test that takes it from its page.

What takes minutes is compiled, its imports are imported, and its calls of this project are held against the signatures;
`pytest -m slow` runs it. A block that fits no rule is held against the signatures too.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from doc_blocks import ROOT, Documented, fenced, pages
from documented_world import make_world

from mindspore_floodx.settings import TrainSettings

BLOCKS = [block for path in pages() for language, block in fenced(path) if language == "python"]
OURS = ("mindspore_floodx", "ckpt_convert")
SETTINGS = ("train", "measure_accordance", "measure_timing")  # take settings by name

# page and a line of the block -> the test that runs it
ELSEWHERE = {
    ("docs/ecosystems.md", "class Network(nn.Cell):"): "test_callbacks.py",
    ("docs/ecosystems.md", "accordance = AccordanceCallback(CellAccordance(loss, num_classes=4), sub_epochs=2)"): (
        "test_callbacks.py"
    ),
    ("docs/ecosystems.md", "wrapper = MindSporeModelWrapper("): "test_textattack_files.py",
    ("docs/methods.md", "class Focal(WeightedDefence):"): "test_methods.py",
}
RUN = {
    ("docs/data.md", "load_dataset("),
    ("docs/accordance.md", "choose_flood_level("),
    ("docs/conversion.md", "to_pytorch("),
    ("docs/getting-started.md", "pipeline("),
    ("docs/how-to/own-data.md", "pipeline("),
    ("docs/how-to/own-defence.md", "def expected("),
    ("docs/how-to/own-defence.md", "class Trimmed("),
}
SLOW = {("README.md", "train(dataset="), ("docs/how-to/own-network.md", "load_breast_cancer")}
AFTER = {("docs/how-to/own-network.md", "measure = CellAccordance("): "load_breast_cancer"}  # goes on from that block


def fits(block: Documented, marks: Any) -> bool:
    return any(block.page == page and words in block.text for page, words in marks)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    return folder


def hold_against_signatures(text: str) -> int:
    """Imports what the block imports, binds the arguments of each call of ours, and returns how many there were."""
    tree = ast.parse(text)
    names: dict[str, Any] = {}
    kinds: dict[str, type] = {}  # of variables
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            if node.module.split(".")[0] in OURS:
                names |= {each.asname or each.name: getattr(module, each.name) for each in node.names}
            else:
                assert all(hasattr(module, each.name) for each in node.names), ast.unparse(node)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            made = ast.unparse(node.value.func).split(".")
            kind = names.get(made[0])
            target = node.targets[0]
            if inspect.isclass(kind) and made[1:] in ([], ["from_pretrained"]) and isinstance(target, ast.Name):
                kinds[target.id] = kind
    bound = 0
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        first, *rest = ast.unparse(node.func).split(".")
        called, before = (names.get(first), []) if first in names else (kinds.get(first), [None])
        if called is None or (first in kinds and len(rest) != 1):
            continue
        for each in rest:
            called = getattr(called, each)
        arguments = [*before, *(None for _ in node.args)]
        options = {each.arg: None for each in node.keywords if each.arg}
        inspect.signature(called).bind(*arguments, **options)
        if first in SETTINGS:
            given = set(options) - set(inspect.signature(called).parameters)
            assert given <= set(TrainSettings.__dataclass_fields__), ast.unparse(node)
        bound += 1
    return bound


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page}:{block.line}")
def test_documented(block, world, monkeypatch, capsys):
    monkeypatch.chdir(world)
    text = block.text
    if "import mindnlp" in text and importlib.util.find_spec("mindnlp") is None:
        pytest.skip("mindnlp has an environment of its own; tests/with_mindnlp runs this block there")
    for (page, words), first in AFTER.items():
        if fits(block, {(page, words)}):
            text = next(each.text for each in BLOCKS if each.page == page and first in each.text) + text
    bound = hold_against_signatures(text)
    if fits(block, RUN):
        text = text.replace("verify=True", "verify=False")  # which would compile a graph
        exec(compile(text, f"{block.page}:{block.line}", "exec"), {})
    else:
        assert bound or fits(block, ELSEWHERE), "nothing in this block is checked"


def test_what_is_run_elsewhere_is_run_there():
    for (page, words), test in ELSEWHERE.items():
        assert any(block.page == page and words in block.text for block in BLOCKS), (page, words)
        assert Path(page).name in (ROOT / "tests" / test).read_text(encoding="utf-8")
    for page, words in (*RUN, *SLOW):
        assert any(block.page == page and words in block.text for block in BLOCKS), (page, words)


def test_the_decision_that_the_page_shows_is_the_one_that_is_made():
    (block,) = [each for each in BLOCKS if fits(each, {("docs/accordance.md", "choose_flood_level(")})]
    from mindspore_floodx import choose_flood_level

    call = re.search(r"^choose_flood_level\(.*?\)$", block.text, re.MULTILINE | re.DOTALL)[0]
    shown = re.search(r"^# (.*)\.\.\.'\)$", block.text, re.MULTILINE)[1]
    made = eval(call, {"choose_flood_level": choose_flood_level})
    assert repr(made).startswith(shown)


@pytest.mark.parametrize(
    "wrong",
    [
        "from mindspore_floodx import attacks_of\n",
        "from mindspore_floodx import train\ntrain(dataset='demo', epoch=1)\n",
        "from mindspore_floodx import attack\nattack('run', 'synonym', 20, examples=3)\n",
        "from mindspore_floodx import GradientAccordance\nm = GradientAccordance(1)\nm.add()\n",
        "from mindspore_floodx import BertForSequenceClassification as B\nB.from_pretrain('run')\n",
    ],
)
def test_a_mistake_in_a_block_is_noticed(wrong):
    with pytest.raises((AssertionError, AttributeError, ImportError, TypeError)):
        hold_against_signatures(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("block", [each for each in BLOCKS if fits(each, SLOW)], ids=lambda block: block.page)
def test_long_blocks_to_their_end(block, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    after = [page_and_words for page_and_words, first in AFTER.items() if first in block.text]
    text = block.text + "".join(each.text for each in BLOCKS if fits(each, after))
    names: dict[str, Any] = {}
    exec(compile(text, block.page, "exec"), names)
    printed = capsys.readouterr().out
    if block.page == "README.md":
        assert "exported" in printed
    else:
        assert 0.08 < float(re.search(r"last epoch: ([\d.]+)", printed)[1]) < 0.2  # the level is 0.1
        assert len(names["accordance"]) == 20 and names["train_loss"][-1] < names["train_loss"][0]
