"""What a search leaves: the exported and registered best model. The last stages call it.

A failure here is only printed, because the results of the search are safe by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xlt_ray.errors import in_one_line
from xlt_ray.files import relative
from xlt_ray.names import LEDGER
from xlt_ray.pipeline.stage import SearchRun
from xlt_ray.search import inputs, leaderboard
from xlt_ray.search.confirmation import confirmed_candidates
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.soup_recipes import read_soups
from xlt_ray.search.trials import TrialStatus
from xlt_ray.storage import filesystem


def export_best_model(run: SearchRun) -> Path | None:
    """Write the best trial's model into the search's folder.

    Returns:
        The model's folder; None if no trial finished or the model could not be written.
    """
    from xlt_ray.inference.export import export_best

    if run.winner is None or run.verdict is None:
        return None
    warned = inputs.warning(run.folder / LEDGER)
    verdict = run.verdict.sentence + (f"\n\nWarning: {warned}." if warned else "")
    try:
        folder = export_best(
            run.winner,
            leaderboard.trained_as(run.winner, run.entries).spec(run.plan.spec),
            run.plan,
            run.folder,
            run.storage,
            verdict,
            run.helper,
        )
    except Exception as error:
        run.tell(f"The best model was not written: {in_one_line(error)}")
        return None
    run.recorder.log_artifact(None, folder / "README.md", folder.name)
    run.tell(f"Model:   {relative(folder)}")
    return folder


def drop_weights(entries: Sequence[Entry], run: SearchRun) -> None:
    """Delete the weights that nothing needs any more; keep the predictions.

    A search of large models would otherwise leave dozens of them. Kept are those of the winner, of
    the best configuration and of plain fine-tuning, which a later assessment loads, and those of
    the candidates of a later confirmation, which hands over the one that wins. Trials that were
    stopped early never go on: of them, the optimiser's state is deleted too.

    Args:
        entries: The ranked trials, and those of the comparison.
        run: The search.
    """
    from pyarrow.fs import FileType

    kept = [
        run.winner,
        leaderboard.best_searched(entries),
        leaderboard.baseline(entries),
        *confirmed_candidates(run.entries, run.plan.spec),
    ]
    files = filesystem(run.storage)
    rest = {
        entry.checkpoint: entry.status
        for entry in entries
        if entry.checkpoint and entry not in kept
    }
    pruned = [
        checkpoint.rpartition("/")[0]
        for checkpoint, status in rest.items()
        if status == TrialStatus.PRUNED
    ]
    # A greedy soup that added nothing to its first trial is no entry.
    alone = [
        one["checkpoint"] for one in read_soups(run.folder).values() if len(one["members"]) < 2
    ]
    weights = [f"{checkpoint}/model.safetensors" for checkpoint in [*rest, *alone]]
    try:
        for found in files.get_file_info(weights):
            if found.type == FileType.File:
                files.delete_file(found.path)
        for found in files.get_file_info(pruned):
            if found.type == FileType.Directory:
                files.delete_dir(found.path)
    except OSError as error:
        run.tell(f"The other trials' weights were not deleted: {in_one_line(error)}")


def register_best_model(winner: Entry, model: Path, run: SearchRun) -> None:
    """Register the exported model in MLflow's model registry.

    Args:
        winner: The best trial.
        model: The folder of its model.
        run: The search, whose run MLflow has.
    """
    from xlt_ray.inference.registry import CHAMPION, register_model

    spec, run_id = run.plan.spec, run.recorder.run_id(None)
    assert run_id is not None and winner.objective is not None
    try:
        own = run.helper.submit(
            register_model,
            model,
            run.settings.tracking_uri,
            run_id,
            spec.name,
            spec.search.objective,
            winner.objective,
        ).result()
    except Exception as error:
        run.tell(f"The best model was not registered in MLflow: {in_one_line(error)}")
        return
    known = f"{own.name}@{CHAMPION}" if own.champion else f"{own.name}/{own.version}"
    rank = "the champion" if own.champion else f"not the {CHAMPION}"
    run.tell(f"Serve:   models:/{known} is version {own.version}, {rank}: {own.reason}")
