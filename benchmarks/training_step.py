"""An EAR step against the obvious implementation, and what each idea buys.

python -m benchmarks.training_step packaged
python -m benchmarks.training_step xlm-roberta-base --data-dir XNLI --synonyms neighbors.json
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks import baseline
from benchmarks.measuring import alternate, device, machine, matmul_rate, show
from benchmarks.workload import PAD, ModelName, Workload, forward_flops, load_model, load_workload
from xlt_ray.config.method import MethodName, MethodSpec
from xlt_ray.config.spec import Precision, TrainingSpec
from xlt_ray.data.batching import BatchSchedule, micro_batches, pad_inputs
from xlt_ray.distributed import Workers, computes_in_bf16
from xlt_ray.method.objective import Objective
from xlt_ray.training.loss_sums import LossSums
from xlt_ray.training.memory import suitable_tokens
from xlt_ray.training.optimizer import make_optimizer
from xlt_ray.training.trainer import accumulate

BATCH = 32


def main(
    model: Annotated[ModelName, typer.Argument(help="Shape of the encoder.")],
    data_dir: Annotated[Path | None, typer.Option(help="XNLI in XTREME's layout.")] = None,
    synonyms: Annotated[str | None, typer.Option(help="As of method.view.synonyms.")] = None,
    turns: Annotated[int, typer.Option(help="Measured steps.")] = 8,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    ideas: Annotated[bool, typer.Option(help="Also measure steps with some of the ideas.")] = True,
    profile: Annotated[bool, typer.Option(help="Break our step down by kind of work.")] = True,
    precision: Annotated[Precision, typer.Option(help="As of training.precision.")] = "auto",
    json_file: Annotated[Path | None, typer.Option("--json", help="Keep the figures.")] = None,
) -> None:
    """Measure examples per second, memory, and distance to the machine's limit."""
    workload = load_workload(data_dir, synonyms)
    bf16 = computes_in_bf16(device(), precision)
    common = (model, workload, bf16)
    some = {
        "one pass, one map": functools.partial(ours, *common, trimmed=False, packed=False),
        "+ trimmed vocabulary": functools.partial(ours, *common, packed=False),
    }
    fast, without = "+ packed tokens: xlt-ray", "xlt-ray without push and pull"
    names = {
        "baseline": functools.partial(obvious, *common),
        **(some if ideas else {}),
        fast: functools.partial(ours, *common),
        without: functools.partial(ours, *common, method="rs-da"),
    }
    measured = alternate(names, turns, threads)
    slow = measured["baseline"]
    config = load_model(model).config
    plan = training_plan(workload)
    lengths = np.array(
        [
            len(rows[i])
            for _, _, batch in list(plan.batches())[1 : turns + 1]
            for i in batch
            for rows in (workload.texts, workload.views)
        ]
    )
    flops = 3 * forward_flops(config, lengths) / turns
    tokens = int(lengths.sum() / turns)
    rate = matmul_rate(tokens, config.hidden_size, config.intermediate_size, bf16, threads)
    floor = flops / rate
    rows = [
        {
            "step": name,
            "seconds": f"{measured[name].median:.3f}",
            "pairs/s": f"{BATCH / measured[name].median:.2f}",
            "× baseline": f"{slow.median / measured[name].median:.2f}",
            "share of the floor": f"{floor / measured[name].median:.0%}",
            "peak memory, GB": f"{measured[name].peak / 1e9:.2f}",
            "of baseline's": f"{measured[name].peak / slow.peak:.0%}",
        }
        for name in names
    ]
    facts: dict[str, Any] = {
        "machine": machine(threads, bf16),
        "text": workload.origin,
        "step": f"{BATCH} pairs and their views, {tokens:,} real tokens on average",
        "floor": f"{floor:.3f} s: {flops / 1e9:,.0f} GFLOP of the real tokens' matrix products "
        f"at {rate / 1e9:,.0f} GFLOP/s, measured on {tokens} × {config.hidden_size} times "
        f"{config.hidden_size} × {config.intermediate_size}",
        "push and pull": "a step with them takes "
        f"{measured[fast].median / measured[without].median:.3f} × one with the views alone",
    }
    if profile:
        facts["breakdown"] = breakdown(functools.partial(ours, *common), threads)
    show(f"Training step, {model}", rows, json_file, facts)


def training_plan(workload: Workload) -> BatchSchedule:
    """The order of the pairs, as in a trial."""
    return BatchSchedule(np.array([len(row) for row in workload.texts]), BATCH, 1, None, seed=0)


def obvious(model: ModelName, workload: Workload, bf16: bool) -> Callable[[int], None]:
    """The baseline's step."""
    classifier = load_model(model).to(device()).train()
    classifier.set_attn_implementation("eager")
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=2e-5, weight_decay=0.0)
    batches = [batch for _, _, batch in training_plan(workload).batches()]
    autocast = torch.autocast(device().type, dtype=torch.bfloat16, enabled=bf16)

    def step(turn: int) -> None:
        batch = batches[turn]
        texts, views = ([rows[i] for i in batch] for rows in (workload.texts, workload.views))
        labels = torch.from_numpy(batch % 3).to(device())
        baseline.ear_step(classifier, optimizer, texts, views, labels, PAD, autocast)

    return step


def ours(
    model: ModelName,
    workload: Workload,
    bf16: bool,
    method: MethodName = "ear",
    trimmed: bool = True,
    packed: bool = True,
) -> Callable[[int], None]:
    """A trial's step, with or without some of what makes it fast."""
    classifier = load_model(model)
    vocabulary = workload.vocabulary
    rows = np.arange(len(vocabulary.kept)) if trimmed else vocabulary.kept
    if trimmed:
        vocabulary.trim(classifier)
        # A trial reads a trimmed file; a copy lets go of the whole one, mapped into memory.
        classifier = copy.deepcopy(classifier)
        vocabulary.train_reachable(classifier)
    objective = Objective(classifier, MethodSpec(name=method)).to(device()).train()
    optimizer = make_optimizer(objective.classifier, TrainingSpec())
    plan = training_plan(workload)
    batches = [batch for _, _, batch in plan.batches()]
    workers = Workers(device=device(), bf16=bf16)
    budget = suitable_tokens(device(), bf16)

    def inputs_of(part: np.ndarray) -> dict[str, torch.Tensor]:
        sides = (workload.texts, workload.views)
        ids = [rows[vocabulary.rows(side[i])] for side in sides for i in part]
        arrays = pad_inputs({"input_ids": ids}, PAD)
        arrays["labels"] = part % 3
        if not packed:
            del arrays["tokens"]
        return {name: torch.from_numpy(array).to(device()) for name, array in arrays.items()}

    def step(turn: int) -> None:
        batch = batches[turn]
        parts = [batch]
        if packed:
            parts = micro_batches(batch, 2 * plan.lengths[batch], budget)
        inputs = [inputs_of(part) for part in parts]
        accumulate(objective, inputs, 1 / len(batch), workers, LossSums())
        torch.nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


_KINDS = {
    "matrix products": ("mm", "bmm", "addmm", "baddbmm", "linear", "cutlass", "gemm", "nvjet"),
    "attention kernel": ("attention", "flash", "fmha"),
    "dropout": ("bernoulli_", "native_dropout", "rand"),
    "activation": ("gelu", "tanh"),
    "normalisation, softmax": ("layer_norm", "softmax"),
    "optimizer, clipping": ("adamw", "norm", "foreach"),
    "copies, gathers, fills": ("copy_", "index", "fill_", "zero_", "cat", "embedding", "clone"),
}


def breakdown(factory: Callable[[], Callable[[int], None]], threads: int) -> str:
    """Where the time of a step goes, by kind of work."""
    from torch.profiler import ProfilerActivity, profile

    torch.set_num_threads(threads)
    step = factory()
    step(0)
    activities = [ProfilerActivity.CPU]
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        for turn in (1, 2):
            step(turn)
    times = {
        event.key: event.self_device_time_total if on_gpu else event.self_cpu_time_total
        for event in profiler.key_averages()
    }
    sums = dict.fromkeys([*_KINDS, "rest"], 0.0)
    for name, spent in times.items():
        short = name.removeprefix("aten::").lower()
        kind = next(
            (kind for kind, parts in _KINDS.items() if any(part in short for part in parts)),
            "rest",
        )
        sums[kind] += spent
    total = sum(sums.values())
    return ", ".join(f"{kind} {share / total:.0%}" for kind, share in sums.items())


if __name__ == "__main__":
    typer.run(main)
