"""Take the documentation's pictures of MLflow's and Optuna's pages, with a real browser.

    python -m scripts.screenshots --tracking-uri sqlite:///mlflow.db --experiment demo
    python -m scripts.screenshots --optuna runs/demo-DATE

The first opens the experiment's last search in MLflow and writes `runs.png`, `trial.png`,
`search.png` and `model.png` into docs/images; the second opens a search in Optuna's dashboard and
writes `optuna.png`. Both need Playwright (the extra `test`) and an installed Chromium.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import requests
import typer
from PIL import Image

from xlt_ray.cli.command_line import run_command_line
from xlt_ray.errors import UserError
from xlt_ray.tracking.results_view import VIEW

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT = 1400, 800
COLOURS = 128
LIMIT_MS = 60_000
"""MLflow's pages are large, and a busy machine takes its time over them."""
START_LIMIT_S = 90

# The assistant would open over a third of the page.
_SEEN_BEFORE = """
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
"""


def browser_path() -> str | None:
    """The installed Chromium; None if there is none."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


@contextlib.contextmanager
def opened(executable: str) -> Iterator[Browser]:
    """A browser, for as long as it is needed."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Its sandbox does not work in containers; the pages are our own.
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


def new_page(browser: Browser) -> Page:
    """A page of a new visitor, without MLflow's assistant over it."""
    context = browser.new_context(
        viewport={"width": WIDTH, "height": HEIGHT}, locale="en-GB", timezone_id="UTC"
    )
    context.set_default_timeout(LIMIT_MS)
    context.add_init_script(_SEEN_BEFORE)
    page = context.new_page()
    # MLflow lays a tip over some pages of a new visitor; nothing else can be clicked then.
    tip = page.get_by_role("dialog").get_by_role("button", name="Got it")
    page.add_locator_handler(tip, lambda button: button.click())
    return page


@contextlib.contextmanager
def dashboard(search: Path) -> Iterator[str]:
    """Optuna's dashboard of a search's folder: the address of its study."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    launch = str(Path(__file__).resolve().parent.parent / "launch.py")
    command = [sys.executable, launch, "ui", "--optuna", str(search), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = next((w for w in process.stdout.readline().split() if "://" in w), None)
            if address is None:
                raise UserError(f"Optuna's dashboard of {search} did not start")
            while not _listens(port) and process.poll() is None:
                time.sleep(0.1)
            yield address
        finally:
            process.terminate()


@contextlib.contextmanager
def _served(uri: str) -> Iterator[str]:
    """The address of MLflow's pages over a tracking store."""
    if uri.startswith(("http://", "https://")):
        yield uri.rstrip("/")
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
            *("--host", "127.0.0.1", "--port", str(port), "--backend-store-uri", uri),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # A group of its own, so that its workers end with it.
        start_new_session=True,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
    )
    try:
        limit = time.monotonic() + START_LIMIT_S
        while not _answers(address):
            if process.poll() is not None or time.monotonic() > limit:
                raise UserError(f"MLflow's server did not start over {uri}")
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _answers(address: str) -> bool:
    try:
        return requests.get(f"{address}/health", timeout=1).ok
    except requests.RequestException:
        return False


def _write(page: Page, path: Path) -> None:
    """Take a picture of what is to be seen of a page; few colours keep the file small."""
    taken = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
    # Without dithering, which would speckle the plain backgrounds.
    few = taken.quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    typer.echo(f"{path}: {path.stat().st_size // 1000} kB")


def take(browser: Browser, address: str, experiment: str, folder: Path) -> None:
    """Take all pictures of an experiment's last search.

    Raises:
        UserError: There is no finished search.
    """
    from mlflow import MlflowClient
    from playwright.sync_api import expect

    expect.set_options(timeout=LIMIT_MS)

    client = MlflowClient(address)
    found = client.get_experiment_by_name(experiment)
    runs: list[Any] = client.search_runs([found.experiment_id]) if found else []
    searches = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    versions = client.search_model_versions(f"name = '{experiment}'")
    if found is None or not searches or not versions:
        raise UserError(f"the experiment '{experiment}' has no finished search with its model")
    search = max(searches, key=lambda run: run.info.start_time)
    trials = [
        run
        for run in runs
        if run.data.tags.get("mlflow.parentRunId") == search.info.run_id
        and "test/accuracy/zero_shot_mean" in run.data.metrics
        and run.data.tags.get("stage") == "search"
    ]
    if not trials:
        raise UserError(f"no trial of {search.info.run_name} has finished")
    best = max(trials, key=lambda run: run.data.metrics["objective"])
    prefix = "test/accuracy/"
    languages = [
        name.removeprefix(prefix)
        for name in best.data.metrics
        if name.startswith(prefix) and not name.endswith("mean")
    ]

    page = new_page(browser)
    runs_page = f"{address}/#/experiments/{found.experiment_id}/runs"
    page.goto(f"{runs_page}?viewStateShareKey={VIEW}&workflowType=machine_learning")
    expect(page.get_by_role("link", name=best.info.run_name, exact=True)).to_be_visible()
    expect(page.get_by_role("columnheader", name="objective").first).to_be_visible()
    _write(page, folder / "runs.png")

    page.goto(f"{runs_page}/{best.info.run_id}?workflowType=machine_learning")
    page.get_by_placeholder("Search metrics").fill(prefix)
    expect(page.get_by_role("link", name=f"{prefix}{languages[0]}", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name="train/loss/total")).to_have_count(0)
    expect(page.get_by_role("link", name=search.info.run_name)).to_be_visible()
    _write(page, folder / "trial.png")

    page.goto(f"{runs_page}/{search.info.run_id}/artifacts")
    page.get_by_text("pictures", exact=True).click()
    page.get_by_text("test-accuracy.png", exact=True).click()
    picture = page.get_by_alt_text("pictures/test-accuracy.png")
    expect(picture).to_be_visible()
    page.wait_for_function("image => image.naturalWidth > 0", arg=picture.element_handle())
    _write(page, folder / "search.png")

    version = max(versions, key=lambda known: int(known.version))
    page.goto(f"{address}/#/models/{experiment}/versions/{version.version}")
    expect(page.get_by_text("champion").first).to_be_visible()
    expect(page.get_by_role("heading", name="Test scores")).to_be_visible()
    _write(page, folder / "model.png")


def main(
    tracking_uri: Annotated[str, typer.Option(help="MLflow tracking URI.")] = (
        "sqlite:///mlflow.db"
    ),
    experiment: Annotated[str, typer.Option(help="Name of the search.")] = "demo",
    optuna: Annotated[
        Path | None, typer.Option(help="A search's folder: its picture in Optuna's dashboard.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where the pictures go.")] = IMAGES,
) -> None:
    """Take the documentation's pictures of MLflow's or of Optuna's pages."""
    executable = browser_path()
    if executable is None:
        raise UserError(f"no browser: none of {', '.join(BROWSERS)} is on the PATH")
    folder.mkdir(parents=True, exist_ok=True)
    if optuna is not None:
        with dashboard(optuna) as address, opened(executable) as browser:
            page = new_page(browser)
            page.goto(address)
            page.get_by_role("heading", name="Hyperparameter Importance").wait_for()
            page.locator(".js-plotly-plot .bars").first.wait_for(timeout=LIMIT_MS)
            _write(page, folder / "optuna.png")
        return
    with _served(tracking_uri) as address, opened(executable) as browser:
        take(browser, address, experiment, folder)


if __name__ == "__main__":
    run_command_line(main)
