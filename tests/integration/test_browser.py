"""MLflow's pages of a search and the report, in a real browser."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from scripts.screenshots import BROWSERS, browser_path, dashboard, new_page, opened
from tests.integration.conftest import Finished
from tests.support.searching import LANGUAGES
from tests.support.tracking_server import MlflowServer
from tests.support.waiting import until
from xlt_ray.tracking.results_view import HEADLINE, VIEW
from xlt_ray.tracking.ui import UI_ADDRESS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

EXECUTABLE = browser_path()
if EXECUTABLE is None:
    pytest.skip(f"none of {', '.join(BROWSERS)} is on the PATH", allow_module_level=True)
api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
# MLflow's pages are large, and a busy machine takes its time over them.
api.expect.set_options(timeout=60_000)
expect = api.expect
WORKFLOW = "workflowType=machine_learning"


@pytest.fixture(scope="module")
def folder(finished_search: Finished) -> Path:
    return finished_search.folder


@pytest.fixture(scope="module")
def state(finished_search: Finished) -> Path:
    return finished_search.state


@pytest.fixture(scope="module")
def printed(finished_search: Finished) -> str:
    """What the search printed, whose records are in the folder."""
    return finished_search.run.output


@pytest.fixture(scope="module")
def server(folder: Path, printed: str) -> Iterator[MlflowServer]:
    server = MlflowServer(folder, folder / "mlflow.db")
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def runs(server: MlflowServer) -> dict[str, Run]:
    """The runs of the search by label; its own is `search`."""
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    return {run.data.tags.get("trial", "search"): run for run in found}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert EXECUTABLE is not None
    with opened(EXECUTABLE) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = new_page(browser)
    yield page
    page.context.close()


@pytest.fixture(scope="module")
def home(server: MlflowServer, runs: dict[str, Run]) -> str:
    """The address of the experiment."""
    return f"{server.uri}/#/experiments/{runs['search'].info.experiment_id}"


def shown(run: Run) -> str:
    name: str = run.info.run_name
    return name


def run_names(page: Page, runs: dict[str, Run]) -> list[str]:
    """The names in the table of runs, from above: its elements are in no order."""
    names = "|".join(re.escape(shown(run)) for run in runs.values())
    links = page.get_by_role("grid").get_by_role("link", name=re.compile(names)).all()
    boxes = [(link.bounding_box(), link.inner_text()) for link in links]
    return [name for _, name in sorted((box["y"], name) for box, name in boxes if box)]


def test_the_experiment_shows_its_search_and_then_the_trials_by_objective(
    page: Page, server: MlflowServer, runs: dict[str, Run]
) -> None:
    # Without the workflow MLflow shows a new visitor pages about traces, whatever an experiment is.
    page.goto(f"{server.uri}/#/experiments?{WORKFLOW}")
    page.get_by_role("link", name="tiny", exact=True).first.click()
    page.get_by_role("link", name=re.compile("^(Training r|R)uns$")).first.click()
    # The trials are folded away at first.
    expect(page.get_by_role("link", name=shown(runs["search"]))).to_be_visible()
    assert run_names(page, runs) == [shown(runs["search"])]

    page.get_by_role("button", name=re.compile("^Sort:")).click()
    page.get_by_test_id("sort-select-objective").click()
    for run in runs.values():
        expect(page.get_by_role("link", name=shown(run), exact=True)).to_be_visible()
    expect(page.get_by_role("columnheader", name="objective").first).to_be_visible()
    names = run_names(page, runs)
    scores = {shown(run): run.data.metrics.get("objective", -1.0) for run in runs.values()}
    assert sorted(scores) == sorted(names)
    ordered = [scores[name] for name in names]
    assert ordered == sorted(ordered, reverse=True)


@pytest.mark.parametrize("way", ["printed address", "menu"])
def test_a_view_of_the_runs_has_the_best_trial_first_and_the_columns_that_matter(
    way: str, page: Page, server: MlflowServer, home: str, runs: dict[str, Run], printed: str
) -> None:
    if way == "menu":
        page.goto(f"{home}/runs?{WORKFLOW}")
        page.get_by_test_id("saved-views-trigger").click()
        page.get_by_text(VIEW.capitalize(), exact=True).click()
    else:
        (address,) = re.findall("^Results: (.*)$", printed, re.MULTILINE)
        page.goto(address.replace(UI_ADDRESS, server.uri))
    columns = (
        "objective",
        HEADLINE,
        *(f"test/accuracy/{code}" for code in LANGUAGES),
        "method.pull_weight",
    )
    for column in columns:
        expect(page.get_by_role("columnheader", name=column).first).to_be_attached()
    headers = page.get_by_role("columnheader").all_inner_texts()
    positions = [next(i for i, text in enumerate(headers) if text == name) for name in columns[:3]]
    assert positions == sorted(positions)
    scores = {shown(run): run.data.metrics.get("objective", -1.0) for run in runs.values()}
    best = max(scores.values())
    # The table has its head before its rows, and rows in another order before the view's.
    until(lambda: [scores[name] for name in run_names(page, runs)][:1] == [best])


def test_a_trials_page_has_its_test_accuracy_in_every_language(
    page: Page, home: str, runs: dict[str, Run]
) -> None:
    trial = runs["01"]
    page.goto(f"{home}/runs/{trial.info.run_id}")
    expect(page.get_by_role("heading", name=shown(trial), exact=True)).to_be_visible()
    expect(page.get_by_text("test zero-shot mean")).to_be_visible()
    page.get_by_placeholder("Search metrics").fill("test/accuracy/")
    for name in (*LANGUAGES, "zero_shot_mean"):
        row = page.get_by_role("row").filter(
            has=page.get_by_role("link", name=f"test/accuracy/{name}", exact=True)
        )
        expect(row).to_contain_text(f"{trial.data.metrics[f'test/accuracy/{name}']:.6f}"[:-1])


def test_the_searchs_page_says_what_came_out(page: Page, home: str, runs: dict[str, Run]) -> None:
    page.goto(f"{home}/runs/{runs['search'].info.run_id}")
    expect(page.get_by_text("Chosen on dev data")).to_be_visible()
    expect(page.get_by_text("test scores are never used for selection")).to_be_visible()
    # Markdown became a list and code.
    command = page.get_by_role("code").filter(has_text="--resume")
    expect(command).to_be_visible()
    for label in ("paper", "plain", "01"):
        expect(page.get_by_role("link", name=shown(runs[label]))).to_be_visible()


def test_every_picture_and_the_report_are_drawn_among_the_artifacts(
    page: Page, home: str, server: MlflowServer, runs: dict[str, Run]
) -> None:
    run_id = runs["search"].info.run_id
    client = MlflowClient(server.uri)
    page.goto(f"{home}/runs/{run_id}/artifacts")
    seen = 0
    for folder in ("pictures", "assessment"):
        page.get_by_text(folder, exact=True).click()
        for file in client.list_artifacts(run_id, folder):
            if not file.path.endswith(".png"):
                continue
            page.get_by_text(Path(file.path).name, exact=True).click()
            picture = page.get_by_alt_text(file.path, exact=True)
            expect(picture).to_be_visible()
            expect(picture).not_to_have_js_property("naturalWidth", 0)
            seen += 1
    assert seen >= 5

    page.get_by_text("report.html", exact=True).click()
    report = page.frame_locator("iframe")
    expect(report.get_by_role("heading", name="Results")).to_be_visible()
    expect(report.get_by_role("cell", name="plain", exact=True).first).to_be_visible()
    expect(report.get_by_role("img").first).not_to_have_js_property("naturalWidth", 0)


def test_two_trials_are_compared(page: Page, home: str, runs: dict[str, Run]) -> None:
    page.goto(f"{home}/runs?orderByKey=metrics.%60objective%60&orderByAsc=false")
    for label in ("paper", "01"):
        link = page.get_by_role("link", name=shown(runs[label]), exact=True)
        row = page.get_by_role("row").filter(has=link)
        row.get_by_role("checkbox", name=re.compile("toggle row selection")).check()
    page.get_by_test_id("runs-compare-button").click()
    expect(page.get_by_role("heading", name="Comparing 2 Runs")).to_be_visible()
    expect(page.get_by_role("row", name="method.pull_weight").first).to_be_visible()
    # Of the metrics' table only what is in sight is drawn; it scrolls over its values.
    page.get_by_text("NaN", exact=True).first.hover()
    metric = page.get_by_role("link", name="test/accuracy/ru", exact=True)
    for _ in range(100):
        if metric.count():
            break
        page.mouse.wheel(0, 200)
        page.wait_for_timeout(50)
    expect(metric).to_be_visible()
    for label in ("paper", "01"):
        score = f"{runs[label].data.metrics['test/accuracy/ru']:.3g}"
        expect(page.get_by_text(score, exact=True).first).to_be_visible()


def test_the_registered_model_is_champion_and_has_its_card(
    page: Page, server: MlflowServer
) -> None:
    page.goto(f"{server.uri}/#/models")
    # A new visitor first gets an overview of new features.
    page.get_by_role("button", name="Try it now").click()
    page.get_by_role("link", name="tiny", exact=True).first.click()
    expect(page.get_by_text("champion").first).to_be_visible()
    page.get_by_role("link", name="Version 1").click()
    expect(page.get_by_text("champion").first).to_be_visible()
    expect(page.get_by_role("heading", name="Test scores")).to_be_visible()
    for code in LANGUAGES[1:]:
        expect(page.get_by_role("cell", name=code, exact=True).first).to_be_visible()


def test_optunas_dashboard_shows_the_study(browser: Browser, state: Path) -> None:
    pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    page = new_page(browser)
    with dashboard(state) as address:
        page.goto(address)
        expect(page.get_by_text("tiny (id=0)")).to_be_visible()
        expect(page.get_by_role("heading", name="Hyperparameter Importance")).to_be_visible()
        page.goto(f"{address}/trials")
        # The paper's setting and plain fine-tuning lie outside the space that Optuna searches.
        expect(page.get_by_text("method.pull_weight").first).to_be_visible()
    page.context.close()


def test_the_report_opens_as_a_file_and_asks_for_nothing(
    browser: Browser, folder: Path, tmp_path: Path
) -> None:
    (written,) = folder.glob("runs/tiny-*/report.html")
    # A copy elsewhere cannot load neighbouring files.
    report = Path(shutil.copy(written, tmp_path))
    page = new_page(browser)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    expect(page.get_by_role("heading", name="Results")).to_be_visible()
    tables = page.get_by_role("table")
    expect(tables.first.get_by_role("row")).to_have_count(5)
    for code in LANGUAGES:
        expect(tables.first.get_by_role("columnheader", name=code, exact=True)).to_be_visible()
    pictures = page.get_by_role("img")
    assert pictures.count() >= 3
    for picture in pictures.all():
        expect(picture).not_to_have_js_property("naturalWidth", 0)
    assert {url for url in asked if not url.startswith("data:")} == {report.as_uri()}
    page.context.close()
