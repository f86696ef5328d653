"""Check on a GPU what runs only there, then measure it for docs/performance.md.

python -m benchmarks.gpu --figures FOLDER

The checks train a few steps of the demo with the product's own trainer: on the GPU as on the CPU,
in bf16, in smaller micro-batches, with too little memory, and without waiting for the GPU between
two evaluations. Then the other benchmarks run at XLM-R's sizes, and two trials share the GPU.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from torch import nn

from scripts.tiny_search import ROOT, launch, write_search
from xlt_ray.config.loading import load_spec
from xlt_ray.distributed import Workers
from xlt_ray.method.noise_view import uniform_in_ball
from xlt_ray.names import HALVINGS
from xlt_ray.training.build import build
from xlt_ray.training.trainer import Trainer, Work

SHORT: dict[str, Any] = {
    "training.max_steps": 6,
    "training.evaluations_per_epoch": 1,
    "training.precision": "fp32",
    "data.dev_limit": 16,
    "data.test_limit": 16,
    "target_languages": ["de", "ar"],
}
"""A training of seconds."""
LOSS = "train/loss/total"
Checks = dict[str, Callable[[torch.device], str]]


def main(
    figures: Annotated[
        Path | None, typer.Option(help="Folder for the figures as JSON; none: checks only.")
    ] = None,
) -> None:
    """Check, and if all holds, measure."""
    if not torch.cuda.is_available():
        print("error: torch finds no GPU on this machine", file=sys.stderr)
        raise typer.Exit(2)
    console, failed = Console(), 0
    for name, check in CHECKS.items():
        try:
            told = check(torch.device("cuda"))
        except Exception as error:
            failed += 1
            told = f"FAILED {type(error).__name__}: {error}"
        console.print(f"{name}: {told}", highlight=False, soft_wrap=True)
    if failed:
        raise typer.Exit(1)
    if figures is not None:
        measure(figures.resolve())


def measure(figures: Path) -> None:
    """Run the other benchmarks on the GPU.

    Args:
        figures: Folder for their JSON, absolute: they run in the project's folder.
    """
    for module, *arguments in (
        ("training_step", "xlm-roberta-base"),
        ("training_step", "xlm-roberta-large"),
        ("evaluation", "xlm-roberta-base"),
    ):
        file = figures / f"gpu-{module}-{arguments[0]}.json"
        command = [sys.executable, "-m", f"benchmarks.{module}", *arguments, "--json", str(file)]
        subprocess.run(command, cwd=ROOT, check=True)


def trained(
    device: torch.device, changes: dict[str, Any], without_waiting: bool = False
) -> dict[str, float]:
    """Train the demo for a few steps without dropout; return the metrics of all reports.

    Args:
        device: Where.
        changes: Values of spec keys.
        without_waiting: Fail if a step waits for the GPU, from the third on.
    """
    spec = load_spec("demo", SHORT | changes)
    parts = build(spec, device)
    for module in parts.objective.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    metrics: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        kind = Unwaiting if without_waiting else Trainer
        kind(
            parts,
            spec.training,
            selection=spec.search.objective,
            workers=Workers(device=device, bf16=spec.training.precision == "bf16"),
            folder=Path(folder),
            report=lambda reported, checkpoint: metrics.update(reported),
        ).train()
    return metrics


class Unwaiting(Trainer):
    """A trainer whose steps must not wait for the GPU."""

    def step(self, work: Work) -> None:
        """Take a step; the first two may wait, as libraries set themselves up."""
        torch.cuda.set_sync_debug_mode("error" if work.number > 1 else "default")
        try:
            super().step(work)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def near(found: float, expected: float, tolerance: float) -> str:
    """Compare two losses; return how far they are apart.

    Raises:
        AssertionError: If that is more than the tolerance, relative to the expected one.
    """
    apart = abs(found - expected) / abs(expected)
    assert apart <= tolerance, f"{found} instead of {expected}"
    return f"losses differ by {apart:.1e}"


def as_on_the_cpu(device: torch.device) -> str:
    """Six steps of EAR in float32, synonym views and all three terms."""
    expected = trained(torch.device("cpu"), {})[LOSS]
    return near(trained(device, {})[LOSS], expected, 1e-3)


def in_bf16(device: torch.device) -> str:
    """The same in bf16 (autocast)."""
    bf16 = trained(device, {"training.precision": "bf16"})[LOSS]
    return near(bf16, trained(device, {})[LOSS], 0.05)


def in_micro_batches(device: torch.device) -> str:
    """Gradients of many small micro-batches add up to the batch's."""
    small = trained(device, {"training.micro_batch_tokens": 100})[LOSS]
    return near(small, trained(device, {})[LOSS], 1e-3)


def noise_in_the_ball(device: torch.device) -> str:
    """Noise drawn on the device, without waiting for it."""
    words, seeds = torch.ones(8, 12, dtype=torch.bool), torch.arange(8)
    words[:, 9:] = False
    uniform_in_ball(words, 64, seeds, 0.5, device)
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        noise = uniform_in_ball(words, 64, seeds, 0.5, device)
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    norms = noise.norm(dim=-1).cpu()
    assert norms.max() <= 0.5 + 1e-5 and (norms[:, 9:] == 0).all() and (norms[:, :9] > 0).all()
    return f"radii up to {norms.max():.3f} of 0.5"


def without_waiting(device: torch.device) -> str:
    """No step waits for the GPU, with each kind of view."""
    for method in ("plain", "ear", "rs-rp"):
        trained(device, {"method.name": method}, without_waiting=True)
    return "no step of plain, ear and rs-rp waits"


def short_of_memory(device: torch.device) -> str:
    """A real shortage halves the micro-batches, and the training stays the same."""
    # One micro-batch of 512 texts and their views, and memory for a part of it.
    changes = {"training.batch_size": 512, "training.max_steps": 2}
    torch.cuda.reset_peak_memory_stats(device)
    expected = trained(device, changes)
    assert HALVINGS not in expected, "there was a shortage before"
    most = torch.cuda.max_memory_allocated(device)
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(0.8 * most / whole, device)
    try:
        found = trained(device, changes)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    assert found.get(HALVINGS, 0) >= 1, "no shortage"
    return f"{found[HALVINGS]:.0f} halvings, {near(found[LOSS], expected[LOSS], 1e-3)}"


def by_nccl(device: torch.device) -> str:
    """NCCL starts and reduces."""
    with tempfile.NamedTemporaryFile() as file:
        torch.distributed.init_process_group(
            "nccl", init_method=f"file://{file.name}", rank=0, world_size=1
        )
        try:
            value = torch.ones(4, device=device)
            torch.distributed.all_reduce(value)
            assert value.sum().item() == 4
        finally:
            torch.distributed.destroy_process_group()
    return "one process"


def two_trials_on_one_gpu(device: torch.device) -> str:
    """A tiny search whose trials take half a GPU each."""
    with tempfile.TemporaryDirectory() as folder:
        resources = {"cpus_per_worker": 1, "gpus_per_worker": 0.5}
        search = write_search(Path(folder), resources=resources)
        run = launch("--search", str(search), folder=Path(folder))
        assert run.code == 0, run.output + run.errors
        assert "2 side by side" in run.output, run.output
    return "2 side by side"


CHECKS: Checks = {
    "float32 against the CPU": as_on_the_cpu,
    "bf16 against float32": in_bf16,
    "small micro-batches": in_micro_batches,
    "noise on the GPU": noise_in_the_ball,
    "steps without waiting": without_waiting,
    "a shortage of memory": short_of_memory,
    "NCCL": by_nccl,
    "half a GPU a trial": two_trials_on_one_gpu,
}


if __name__ == "__main__":
    typer.run(main)
