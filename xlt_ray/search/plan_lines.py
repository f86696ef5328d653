"""The plan of a search as lines for the terminal."""

from __future__ import annotations

from xlt_ray.evaluation.scores import target_data
from xlt_ray.names import BASELINE
from xlt_ray.search.plan import LENGTH_KEYS, Plan
from xlt_ray.search.trials import LABELS

MOST_UNKNOWN = 0.03
"""Share of unknown pieces in a language above which the plan warns."""


def describe(plan: Plan) -> list[tuple[str, str]]:
    """Return the plan as lines of a name and a text, for the terminal."""
    return [
        *_describe_data(plan),
        *_describe_trials(plan),
        *_describe_cost(plan),
        *(("warning", text) for text in plan.warnings),
        *_describe_probe(plan),
    ]


def _describe_data(plan: Plan) -> list[tuple[str, str]]:
    task, encoder, count = plan.task, plan.encoder, plan.examples_by_split()
    return [
        ("task", f"{task.name}: {task.source_language} -> {' '.join(task.target_languages)}"),
        (
            "model",
            f"{plan.spec.model} ({encoder.family}, {encoder.layers} layers, "
            f"hidden {encoder.hidden}, {encoder.vocabulary:,} pieces)",
        ),
        (
            "data",
            f"{count['train']:,} training, {count['dev']:,} dev, {count['test']:,} test "
            "examples over all languages",
        ),
    ]


def _describe_trials(plan: Plan) -> list[tuple[str, str]]:
    search = plan.spec.search
    searched = ", ".join(
        f"{key} ({distribution.distribution})" for key, distribution in search.parameters.items()
    )
    used = target_data(search.objective)
    lines = [
        ("searched", searched or "nothing: the spec's own values"),
        ("sampler", f"{search.sampler.name}, seed {search.seed}"),
        ("objective", search.objective + (f" (uses {used})" if used else "")),
        (
            "trials",
            f"{plan.trials - len(plan.baselines)}"
            + (f" and {', '.join(plan.baselines)}" if plan.baselines else "")
            + (", a seed each" if plan.repeats else ""),
        ),
    ]
    if plan.compared_runs:
        methods = ", ".join(LABELS[name] for name in plan.compared)
        beside = f" and {methods}" if methods else ""
        seeds = f"{search.comparison_seeds} seed(s) each"
        lines.append(("comparison", f"the best{beside}, {seeds}"))
    limits = [f"no more start after {search.time_budget}"] if search.time_budget else []
    if search.target is not None:
        limits.append(f"no more start once one has a dev objective of {search.target:g}")
    if limits:
        lines.append(("budget", ", ".join(limits)))
    confirmation = search.confirmation
    if confirmation.seeds:
        plain = "plain, " if BASELINE in plan.baselines else ""
        soup = " and the best soup with all its members" if search.soups else ""
        seeds = f"{confirmation.seeds} seed(s) each"
        lines.append(("confirmation", f"{plain}the best {confirmation.top}{soup}, {seeds}"))
    return lines


def _describe_cost(plan: Plan) -> list[tuple[str, str]]:
    training, resources = plan.training, plan.spec.resources
    trained, scored = plan.work
    most = resources.max_workers_per_trial
    shorter = any(f"training.{key}" in plan.spec.search.parameters for key in LENGTH_KEYS) or any(
        plan.schedule(name).steps < training.steps for name in plan.spec.method_names()
    )
    longer = [
        f"; {LABELS[name]}: {plan.schedule(name).steps:,} steps"
        for name in dict.fromkeys(plan.spec.search.baselines)
        if plan.schedule(name).steps > training.steps
    ]
    return [
        (
            "a trial",
            f"{'at most ' if shorter else ''}{training.steps:,} steps of {training.batch_size}, "
            f"{plan.evaluations} dev evaluations, 1 test evaluation{''.join(longer)}",
        ),
        (
            "resources",
            f"{resources.workers_per_trial}{f' to {most}' if most else ''} worker(s) a trial, each "
            f"{resources.cpus_per_worker:g} CPU, {resources.gpus_per_worker:g} GPU",
        ),
        ("work", f"at most {trained:,} texts trained on and {scored:,} texts scored"),
    ]


def _describe_probe(plan: Plan) -> list[tuple[str, str]]:
    probe = plan.probe
    if probe is None:
        return []
    if probe.skipped:
        return [("tried", f"nothing: {probe.skipped}")]
    lines = [
        (
            "tried",
            f"a training step of {', '.join(probe.methods)} and an input of {probe.tokens} tokens, "
            f"in {probe.seconds:.1f} s",
        )
    ]
    unknown = {language: share for language, share in probe.unknown.items() if share > MOST_UNKNOWN}
    if unknown:
        shares = ", ".join(
            f"{language} {100 * share:.1f} %"
            for language, share in sorted(unknown.items(), key=lambda one: -one[1])
        )
        lines.append(
            (
                "warning",
                f"many pieces are unknown to the model's tokenizer: {shares}; a model cannot tell "
                "them apart, so choose one that was pretrained on these languages",
            )
        )
    return lines
