"""The best model: exported, registered, other weights dropped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xlt_ray.errors import in_one_line
from xlt_ray.files import relative
from xlt_ray.pipeline.settings import RunSettings
from xlt_ray.pipeline.stage import SearchRun
from xlt_ray.search import leaderboard
from xlt_ray.search.leaderboard import Entry
from xlt_ray.storage import filesystem


def export_winner(winner: Entry | None, run: SearchRun) -> Path | None:
    """Write the best trial's model; whatever hinders it is told and costs nothing else."""
    from xlt_ray.inference.export import export_best

    if winner is None:
        return None
    try:
        folder = export_best(winner, run.plan, run.folder, run.storage)
    except Exception as error:
        run.tell(f"The best model was not written: {in_one_line(error)}")
        return None
    run.recorder.log_artifact(None, folder / "README.md", folder.name)
    run.tell(f"Model:   {relative(folder)}")
    return folder


def drop_weights(entries: Sequence[Entry], run: SearchRun) -> None:
    """Delete the weights that nothing will ask for: a search of large models leaves dozens of them.
    What the trials predicted stays."""
    from pyarrow.fs import FileType

    kept = [leaderboard.best(entries), leaderboard.baseline(entries)]
    files = filesystem(run.storage)
    weights = [
        f"{entry.checkpoint}/model.safetensors"
        for entry in entries
        if entry.checkpoint and entry not in kept
    ]
    try:
        for found in files.get_file_info(weights):
            if found.type == FileType.File:
                files.delete_file(found.path)
    except OSError as error:
        run.tell(f"The other trials' weights were not deleted: {in_one_line(error)}")


def register_winner(winner: Entry, model: Path, run: SearchRun, settings: RunSettings) -> None:
    """Give the best model to MLflow's registry; as with writing it."""
    from xlt_ray.inference.registry import CHAMPION, register_model

    spec, run_id = run.plan.spec, run.recorder.run_id(None)
    assert run_id is not None and winner.objective is not None
    try:
        own = register_model(
            model,
            settings.tracking_uri,
            run_id,
            spec.name,
            spec.search.objective,
            winner.objective,
        )
    except Exception as error:
        run.tell(f"The best model was not registered in MLflow: {in_one_line(error)}")
        return
    known = f"{own.name}@{CHAMPION}" if own.champion else f"{own.name}/{own.version}"
    rank = "the champion" if own.champion else f"not the {CHAMPION}"
    run.tell(f"Serve:   models:/{known} is version {own.version}, {rank}: {own.reason}")
