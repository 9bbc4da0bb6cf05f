"""The documentation site: its pictures, its map of the code, its reference, its links, and that it needs no network.

The site itself is built by `make docs`, strictly, in CI; `pytest -m slow` builds it here and searches it in a browser.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
from types import ModuleType

import matplotlib
import pytest
from doc_blocks import ROOT

import mindspore_floodx

DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_site_{name}", ROOT / "docs" / "site" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pictures_and_their_captions_are_those_of_the_results(tmp_path):
    pictures = load("pictures")
    captions = pictures.draw(tmp_path)
    page = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    assert pictures.captioned(page, captions) == page, "run python docs/site/pictures.py"
    if f"matplotlib=={matplotlib.__version__}\n" not in (ROOT / "constraints.txt").read_text(encoding="utf-8"):
        pytest.skip("another matplotlib than the one in constraints.txt draws other lines")
    for name in captions:
        kept = (ROOT / "docs" / "pictures" / f"{name}.svg").read_bytes()
        assert (tmp_path / f"{name}.svg").read_bytes() == kept, f"{name}: run python docs/site/pictures.py"


def test_a_changed_result_changes_picture_and_caption(tmp_path, monkeypatch):
    pictures = load("pictures")
    _, before = pictures.run()
    for name in ("sst2-finetune-0", "sst2-floodingx-0"):
        (tmp_path / name).mkdir()
        text = (pictures.CELLS / name / "result.json").read_text(encoding="utf-8")
        (tmp_path / name / "result.json").write_text(re.sub(r'("eval_loss": )[\d.]+', r"\g<1>0.123", text))
    monkeypatch.setattr(pictures, "CELLS", tmp_path)
    figure, after = pictures.run()
    assert "evaluation loss 0.123" in after and "evaluation loss 0.123" not in before
    assert {value for line in figure.axes[1].lines for value in line.get_ydata()} == {0.123}
    matplotlib.pyplot.close("all")


def test_the_map_of_the_code_is_that_of_today(tmp_path, monkeypatch):
    code_map = load("code_map")
    assert code_map.mapped(DESIGN) == DESIGN, "run python docs/site/code_map.py"
    (tmp_path / "mindspore_floodx").mkdir()
    (tmp_path / "ckpt_convert").mkdir()
    new = tmp_path / "mindspore_floodx" / "newest.py"
    new.write_text('"""What is new\nhere."""\n')
    monkeypatch.setattr(code_map, "ROOT", tmp_path)
    assert "### Others" in code_map.code_map()
    assert "| `mindspore_floodx/newest.py` | What is new here. |" in code_map.code_map()
    new.write_text("VALUE = 1\n")
    with pytest.raises(ValueError, match=r"newest\.py has no docstring"):
        code_map.code_map()


def test_functions_that_the_design_names_exist():
    named = re.findall(r"`(\w+/[\w/]+\.py)::(\w+)`", DESIGN)
    assert len(named) > 30
    for file, name in named:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert name in {each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.ClassDef)}, (
            file,
            name,
        )
    for file in re.findall(r"`((?:mindspore_floodx|ckpt_convert|benchmarks|docs)/[\w/]+\.py)`", DESIGN):
        assert (ROOT / file).is_file(), file
    picture = re.search(r"```text\n(.*?)```", DESIGN, re.DOTALL)[1]
    for name in re.findall(r"[\w/]+\.py", picture):
        assert (ROOT / "mindspore_floodx" / name).is_file(), name


def test_every_public_name_is_in_the_reference():
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "reference").glob("*.md"))
    listed = re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)
    assert len(listed) == len(set(listed))
    public = {f"mindspore_floodx.{home}.{name}" for name, home in mindspore_floodx._HOMES.items()}
    for node in ast.parse((ROOT / "ckpt_convert" / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            public |= {f"ckpt_convert.{node.module}.{each.name}" for each in node.names}
    assert public - set(listed) == set(), "missing in docs/reference"


class TestHooks:
    @pytest.fixture(scope="class")
    def hooks(self):
        pytest.importorskip("mkdocs", reason="MkDocs is not installed: pip install -e .[docs]")
        return load("hooks")

    def test_links_are_resolved_where_they_were_written(self, hooks):
        text = "[a](../results/x.md#y) ![b](pictures/p.svg) [c](https://x.org/a) `[d](../e.md)` [f](data.md) [g](#here)"
        assert hooks.relinked(text, "docs/page.md", "page.md") == (
            "[a](results/x.md#y) ![b](pictures/p.svg) [c](https://x.org/a) `[d](../e.md)` [f](data.md) [g](#here)"
        )
        assert hooks.relinked("[a](docs/gpu.md) [b](LICENSE)", "README.md", "readme.md") == "[a](gpu.md) [b](LICENSE)"
        assert hooks.relinked("[a](../../README.md#x)", "docs/how-to/p.md", "how-to/p.md") == "[a](../readme.md#x)"
        assert hooks.targets(text, "docs/page.md") == {"results/x.md", "docs/pictures/p.svg", "docs/data.md"}

    def test_a_new_page_is_in_the_navigation(self, hooks, tmp_path, monkeypatch):
        for name in ("docs/old.md", "docs/new.md", "docs/how-to/new.md", "results/new.md"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("# New\n")
        monkeypatch.setattr(hooks, "ROOT", tmp_path)
        nav = [{"Home": "index.md"}, {"How to": []}, {"Guides": [{"Old": "old.md"}]}, {"Results": []}]
        expected = [{"Home": "index.md"}, {"How to": ["how-to/new.md"]}, {"Guides": [{"Old": "old.md"}, "new.md"]}]
        assert hooks.completed(nav) == [*expected, {"Results": ["results/new.md"]}]

    def test_every_link_out_of_the_documentation_leads_to_a_file(self, hooks):
        for path in [ROOT / "README.md", *(ROOT / "docs").glob("**/*.md"), *(ROOT / "results").glob("*.md")]:
            place = path.relative_to(ROOT).as_posix()
            for target in hooks.targets(path.read_text(encoding="utf-8"), place):
                assert (ROOT / target).exists(), f"{place}: {target} does not exist"

    def test_the_report_has_every_table_and_figure(self, hooks):
        page = hooks.report()
        folder = ROOT / hooks.REPORT
        for path in (folder / "tables").glob("*.md"):
            row = path.read_text(encoding="utf-8").strip().splitlines()[-1]
            assert row in page, path
        for path in (folder / "figures").glob("*.svg"):
            assert f"(../{hooks.REPORT}/figures/{path.name})" in page

    def test_what_a_page_would_load_is_found(self, hooks):
        for content in (
            '<script async src="https://cdn.org/a.js"></script>',
            "<link rel=stylesheet href=//fonts.org/css>",
            '<img alt="" src="http://x.org/a.png">',
            "@font-face { src: url(https://fonts.org/a.woff2) }",
        ):
            assert len(hooks.loaded(content)) == 1, content
        assert hooks.loaded('<a href="https://x.org">x</a> <img src="a.png"> url(data:image/png)') == []


@pytest.mark.slow
def test_the_site_is_built_and_searched_from_disk(tmp_path):
    pytest.importorskip("mkdocs", reason="MkDocs is not installed: pip install -e .[docs]")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("no chromium and chromedriver")
    from selenium import webdriver
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for each in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900"):
        options.add_argument(each)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        browser.get((site / "index.html").as_uri())
        field = browser.find_element(By.CSS_SELECTOR, "input.md-search__input")
        field.click()
        field.send_keys("counter-fitted")
        found = WebDriverWait(browser, 30).until(
            lambda page: page.find_elements(By.CSS_SELECTOR, ".md-search-result__item a")
        )
        assert any(each.get_attribute("href").startswith((site / "attacks.html").as_uri()) for each in found)
        assert [each for each in browser.get_log("browser") if each["level"] == "SEVERE"] == []
        asked = re.findall(r'"url":"(\w+):', "".join(each["message"] for each in browser.get_log("performance")))
        assert set(asked) <= {"file", "data", "about", "blob"}
    finally:
        browser.quit()
