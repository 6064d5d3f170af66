"""Opened as people open it: a row notebook in JupyterLab and the report, in a real browser."""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time

import nbformat
import pytest
from axe_core_python.selenium import Axe
from selenium import webdriver

import run_one
from odnlib import experiment
from odnlib.files import ROOT
from odnlib.paper import TABLE_1
from studies import comparison, report
from tests.conftest import missing, tiny, tiny_recipe, wait_for

pytestmark = pytest.mark.slow
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SCREENSHOTS = ROOT / "tests" / "screenshots"

SLOW = """\
import pathlib, time
from odnlib import progress
show_at_once = globals().get("show_at_once", progress.ProgressBar.update)  # the cell is run twice
def show_slowly(self, *told):
    show_at_once(self, *told)
    time.sleep(1 if pathlib.Path("hold").exists() else 0)
progress.ProgressBar.update = show_slowly
"""


@pytest.fixture
def browser(request):
    """Chromium; what it shows in the end is kept as screenshots/NAME-OF-THE-TEST.png."""
    if not (CHROMIUM and DRIVER):
        missing("a browser (Debian: apt install chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--window-size=1400,2200", "--disable-gpu", "--disable-background-networking"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium refuses to start as root with it
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER)) as driver:
        yield driver
        SCREENSHOTS.mkdir(exist_ok=True)
        driver.save_screenshot(str(SCREENSHOTS / f"{request.node.name}.png"))


@pytest.fixture
def jupyterlab(request, tmp_path):
    """Address of a JupyterLab on loopback with a token, serving a copy of a row notebook with a tiny recipe.

    A number as the fixture's parameter: epochs at each depth, instead of one, each of them a second long while a file
    named `hold` lies beside the notebook: however slow the browser, it is seen to train.
    """
    notebook = nbformat.read(ROOT / "notebooks" / "01_mnist_resnet18.ipynb", 4)
    settings = {"width": 8, "train_images": 64, "last_depth": 2}
    settings |= dict.fromkeys(("warmup_epochs", "depth_epochs", "finetune_epochs", "full_epochs"), 1)
    settings |= {"depth_epochs": getattr(request, "param", 1), "patience": 1000}
    parameters = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    parameters.source += f"\noverrides = {json.dumps(settings)}\nresults_dir = {str(tmp_path / 'results')!r}"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(SLOW))
    (tmp_path / "studies").symlink_to(ROOT / "notebooks" / "studies")
    nbformat.write(notebook, tmp_path / "row.ipynb")
    token, log = secrets.token_hex(16), tmp_path / "jupyter.log"
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port=0", "--allow-root"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={tmp_path}", "--expose-app-in-browser"]
    with open(log, "w") as file:
        server = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=tmp_path)
    try:
        address = wait_for(lambda: re.search(r"http://127\.0\.0\.1:\d+/lab", log.read_text()), 90, log.read_text)
        yield f"{address.group()}/tree/row.ipynb?token={token}"
    finally:
        server.terminate()
        server.wait(timeout=30)


def outputs(driver):
    """What the open notebook's cells have put out so far, as text."""
    script = "const n = window.jupyterapp?.shell.currentWidget?.content?.model; return n ? n.toJSON() : null"
    notebook = driver.execute_script(script)
    return json.dumps([cell.get("outputs", []) for cell in notebook["cells"]]) if notebook else ""


def run_all_cells(driver, address, known=("idle", "busy")):
    """Open the notebook, as in a new tab, and run all of its cells as soon as the kernel's state is `known`."""
    driver.get(address)
    ready = "return window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status"
    wait_for(lambda: driver.execute_script(ready) in known, 120, lambda: driver.page_source[:2000])
    driver.execute_script("window.jupyterapp.commands.execute('notebook:run-all-cells')")


def shows(driver, text, seconds=120):
    """Wait until the notebook has put out a text."""
    wait_for(lambda: text in outputs(driver), seconds, lambda: outputs(driver)[-3000:])


def test_row_notebook_in_jupyterlab(jupyterlab, browser):
    run_all_cells(browser, jupyterlab)
    shows(browser, "size reduction (%)")
    assert '"output_type": "error"' not in outputs(browser)
    assert outputs(browser).count(" 100 %|") == 4  # warm-up, depth 1, fine-tuning of depth 2; the whole network
    browser.execute_script("window.jupyterapp.commands.execute('notebook:move-cursor-down')")
    time.sleep(1)  # for the screenshot


@pytest.mark.parametrize("jupyterlab", [120], indirect=True)
def test_interrupted_closed_and_run_again_in_jupyterlab(jupyterlab, browser, tmp_path):
    (tmp_path / "hold").touch()
    run_all_cells(browser, jupyterlab)
    shows(browser, " if it takes all 2 depths")  # it tells the time left, and where its log is
    assert re.search(r"log: [^\"]+/log.txt", outputs(browser))
    wait_for(lambda: list(tmp_path.glob("results/smoke/runs/*/checkpoint.pt")), 120)  # something to go on from
    browser.execute_script("window.jupyterapp.commands.execute('notebook:interrupt-kernel')")
    shows(browser, "Interrupted: what was trained is kept in ")
    assert "- run this cell again to go on." in outputs(browser)
    assert "Traceback" not in outputs(browser)
    time.sleep(1)
    SCREENSHOTS.mkdir(exist_ok=True)
    browser.save_screenshot(str(SCREENSHOTS / "interrupted_in_jupyterlab.png"))
    (tmp_path / "hold").unlink()
    run_all_cells(browser, jupyterlab)
    shows(browser, " 100 %|")  # the warm-up's line, replayed, and the first depth's goes on
    browser.get("about:blank")  # the tab is closed while it trains
    run_all_cells(browser, jupyterlab, ("idle", "busy", "unknown"))  # a busy kernel does not say that it is
    shows(browser, "size reduction (%)", 400)
    log, *_ = tmp_path.glob("results/smoke/runs/mnist-odn*/log.txt")
    assert log.read_text().count("goes on after") == 1  # the closed tab did not stop it


@pytest.fixture(scope="module")
def executed_comparison(tmp_path_factory):
    """The smoke profile's folder after notebook 07 has been executed on a tiny search and whole network."""
    results_dir = tmp_path_factory.mktemp("results")
    for variant in ("odn", "full"):
        experiment.run(tiny_recipe(variant), tiny, results_dir)
    executed = results_dir / "smoke" / "notebooks" / "07.ipynb"
    executed.parent.mkdir()
    parameters = {"profile": "smoke", "results_dir": str(results_dir)}
    notebook = str(ROOT / "notebooks" / "07_compare_with_paper.ipynb")
    assert run_one.execute_notebook(notebook, str(executed), parameters) == 0
    return results_dir / "smoke"


def test_report_stands_alone_and_is_a_function_of_the_run_folders(executed_comparison):
    names = ("table1.csv", "comparison.csv", "claims.csv", "comparison.md")
    first = {name: (executed_comparison / name).read_text() for name in names}
    rewritten = report.write_report(executed_comparison.parent, "smoke")
    assert {name: (executed_comparison / name).read_text() for name in names} == first
    page = (executed_comparison / "report.html").read_text()
    assert "no reproduction" in page
    assert "data:image/png;base64," in page
    assert "import pandas" not in page
    assert not re.search(r"(src=|href=|from |import\()[\"']?https?:", page)
    assert first["comparison.csv"].splitlines()[0] == ",".join(comparison.COMPARISON_COLUMNS)
    for printed in TABLE_1.values():
        assert f"| {printed.title} | odn | size_mb | {printed.odn.size_mb:.2f} |" in first["comparison.md"]
    assert any("not comparable yet" in line for line in rewritten.summarise())


@pytest.mark.parametrize("width", [1280, 390], ids=["screen", "phone"])
def test_report_from_disk(browser, executed_comparison, width):
    device = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
    browser.get((executed_comparison / "report.html").as_uri())
    text = browser.find_element("tag name", "body").text
    assert "Does the paper hold?" in text
    assert "paper's slip" in text
    images = browser.execute_script("return [...document.images].map(image => image.naturalWidth)")
    assert images
    assert min(images) > 100
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width, "it scrolls sideways"
    contents = browser.find_elements("css selector", "nav a")
    assert len(contents) > 5
    for link in contents:
        link.click()
        (heading,) = browser.find_elements("id", link.get_attribute("href").partition("#")[2])
        assert heading.text == link.text
        assert -1 <= browser.execute_script("return arguments[0].getBoundingClientRect().top", heading) < 900
        assert contents[0].is_displayed()


def test_report_can_be_read_by_everybody(browser, executed_comparison):
    """Contrast, headings, labels: what axe-core finds in the whole page, what is folded away included."""
    browser.get((executed_comparison / "report.html").as_uri())
    browser.execute_script("for (const part of document.querySelectorAll('details')) part.open = true")
    found = Axe().run(browser, options={"resultTypes": ["violations"]})
    assert found["passes"], "nothing was checked"
    told = {rule["id"]: [node["html"][:200] for node in rule["nodes"]] for rule in found["violations"]}
    assert not told, json.dumps(told, indent=1)
