"""The plan of a search: its trials and its work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from xlt_ray.config.keys import flatten
from xlt_ray.config.method import PRESETS, MethodName
from xlt_ray.config.spec import SearchSpec, TrainingSpec
from xlt_ray.config.task import Split, TaskSpec
from xlt_ray.data.batching import BatchSchedule
from xlt_ray.encoders.loading import EncoderInfo
from xlt_ray.names import BASELINE
from xlt_ray.search.trials import BEST_TRIAL, FIXED_TRIAL, Trial, TrialKind, best_label

if TYPE_CHECKING:
    from xlt_ray.training.probe import Probe


@dataclass(frozen=True)
class SearchOutline:
    """A search and its task: which trials it has, whether or not this machine can run them."""

    spec: SearchSpec
    """The search."""
    task: TaskSpec
    """The task."""

    def fixed_trials(self) -> list[Trial]:
        """Return the trials that do not come from the sampler: the paper's or the spec's own
        values, then the baselines."""
        if self.repeats:
            return self._seeded([BEST_TRIAL])
        baselines = [*map(Trial.of_method, self.baselines)]
        if not self.spec.search.parameters:
            return [FIXED_TRIAL, *baselines]
        return [Trial.of_method("ear"), *baselines] if self.has_paper_trial else baselines

    @property
    def has_paper_trial(self) -> bool:
        """Whether the first trial is EAR with the paper's values."""
        return bool(self.spec.search.parameters) and self.spec.search.paper_trial

    @property
    def repeats(self) -> bool:
        """Whether the search is one configuration with several seeds: it has no parameters and no
        baselines, so its own trials are the runs of the comparison."""
        search = self.spec.search
        return bool(search.comparison_seeds and not search.parameters and not search.baselines)

    @property
    def baselines(self) -> tuple[MethodName, ...]:
        """Methods that the search itself runs as baselines."""
        wanted = dict.fromkeys(self.spec.search.baselines)
        if self.has_paper_trial:
            wanted.pop("ear", None)
        if self.spec.search.comparison_seeds:
            # The others run with several seeds afterwards.
            return tuple(name for name in wanted if name == BASELINE)
        return tuple(wanted)

    @property
    def trials(self) -> int:
        """Trials of the search, the baselines included."""
        if self.repeats:
            return len(self.comparison_seeds)
        searched = self.spec.search.num_trials if self.spec.search.parameters else 1
        return searched + len(self.baselines)

    def comparison_trials(self, best: Trial) -> list[Trial]:
        """Return the comparison's trials: the best one and each baseline, with each seed.

        The seeds are new, because the best configuration was selected by its result with the
        search's seed. Runs of one seed share the order of the data and the initial head.

        Args:
            best: The best configuration's trial in the search.
        """
        if self.repeats:
            return []
        # A search that goes on may find another best one, whose runs are not those of this one.
        first = Trial(best_label(best.label), TrialKind.CONFIG, dict(best.values))
        return self._seeded([first, *map(Trial.of_method, self.compared)])

    def _seeded(self, trials: Sequence[Trial]) -> list[Trial]:
        """Return each trial with each seed of the comparison."""
        return [trial.with_seed(seed) for seed in self.comparison_seeds for trial in trials]

    @property
    def comparison_seeds(self) -> tuple[int, ...]:
        """Seeds of the comparison: those after the seeds of the search."""
        first = self.spec.highest_seed + 1
        return tuple(range(first, first + self.spec.search.comparison_seeds))

    @property
    def compared_runs(self) -> int:
        """Runs of the comparison, after those of the search."""
        return 0 if self.repeats else len(self.comparison_seeds) * (1 + len(self.compared))

    @property
    def compared(self) -> tuple[MethodName, ...]:
        """Baselines of the comparison."""
        return tuple(dict.fromkeys(self.spec.search.baselines))


@dataclass(frozen=True)
class Plan(SearchOutline):
    """A checked search; its spec has absolute paths."""

    encoder: EncoderInfo
    """The encoder."""
    examples: dict[tuple[Split, str], int]
    """Number of examples that the search uses, by split and language."""
    training: BatchSchedule
    """The batches and steps of one trial, the longest that the search can propose."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Fingerprints of the data, the synonyms and the model, by name."""
    warnings: tuple[str, ...] = ()
    """What is odd about the data and the model, though they can be trained with."""
    probe: Probe | None = None
    """What was tried with a few rows; None: nothing."""

    @property
    def evaluations(self) -> int:
        """Dev evaluations of one trial that the search can propose, at most."""
        return self._evaluations(self.training)

    @property
    def work(self) -> tuple[int, int]:
        """Texts that all runs train on and that they score, at most.

        A proposal counts as the proposable method with the most work; so does each run of the best
        configuration, which may also be the paper's.
        """
        proposable = set(self.spec.method_names())
        first: set[MethodName] = {"ear"} if self.has_paper_trial else set()
        runs = Counter([*first, *self.baselines])
        runs[self._costliest(proposable)] += self.trials - runs.total()
        if self.compared_runs:
            best = self._costliest(proposable | first)
            for name in (best, *self.compared):
                runs[name] += len(self.comparison_seeds)
        runs[self._costliest(proposable | first)] += self.confirmation_runs
        trained = scored = 0
        for name, count in runs.items():
            of_one = self._work_of(name)
            trained += count * of_one[0]
            scored += count * of_one[1]
        return trained, scored

    def examples_by_split(self) -> dict[Split, int]:
        """Return the number of examples of each split, over all languages."""
        count: dict[Split, int] = {"train": 0, "dev": 0, "test": 0}
        for (split, _), examples in self.examples.items():
            count[split] += examples
        return count

    @property
    def confirmation_runs(self) -> int:
        """Runs of the confirmation, at most: a soup may average all trials."""
        confirmation = self.spec.search.confirmation
        most = self.trials if self.spec.search.soups else 1 + confirmation.top
        return confirmation.seeds * min(most, self.trials)

    def schedule(self, method: MethodName) -> BatchSchedule:
        """Return the batches and steps of a trial of a method, the longest that can be proposed."""
        return BatchSchedule.of(self.training.lengths, longest_recipe(self.spec), method)

    def _evaluations(self, schedule: BatchSchedule) -> int:
        """Dev evaluations of a training with the steps of a schedule, at most."""
        per_epoch = longest_recipe(self.spec).evaluations_per_epoch
        most = with_largest_batches(schedule, self.spec).evaluations(per_epoch)
        return min(schedule.steps, most)

    def _costliest(self, methods: Iterable[MethodName]) -> MethodName:
        return max(sorted(methods), key=self._work_of)

    def _work_of(self, method: MethodName) -> tuple[int, int]:
        """Texts that one run of a method trains on, views included, and that it scores."""
        schedule, count = self.schedule(method), self.examples_by_split()
        views = 2 if PRESETS[method].terms else 1
        large = with_largest_batches(schedule, self.spec)
        trained = large.steps * min(large.batch_size, count["train"])
        source = self.examples["dev", self.task.source_language]
        dev = (1 + self.spec.data.virtual_views) * source
        if self.spec.data.dev_languages == "all":
            for code in self.task.target_languages:
                own, limit = self.examples["dev", code], self.spec.data.target_dev_limit
                dev += own if limit is None else min(own, limit)
        return (
            trained * views,
            self._evaluations(schedule) * dev + count["test"],
        )


LENGTH_KEYS = ("epochs", "max_steps", "batch_size", "evaluations_per_epoch")
"""Keys of the recipe that say how long a training takes."""


def longest_recipe(spec: SearchSpec) -> TrainingSpec:
    """Return the recipe with most steps among those that a search can propose."""
    found = {
        key: spec.reachable(f"training.{key}", getattr(spec.training, key)) for key in LENGTH_KEYS
    }
    unlimited = None in found["max_steps"]
    return spec.training.model_copy(
        update={
            "epochs": max(found["epochs"]),
            "max_steps": None if unlimited else max(found["max_steps"]),
            "batch_size": min(found["batch_size"]),
            "evaluations_per_epoch": max(found["evaluations_per_epoch"]),
        }
    )


def with_largest_batches(schedule: BatchSchedule, spec: SearchSpec) -> BatchSchedule:
    """Return a schedule with the largest batches that a search can propose.

    The smallest batches take most steps. Where `max_steps` limits these, the largest ones make more
    epochs of them, so they have more texts and evaluations.
    """
    sizes = spec.reachable("training.batch_size", spec.training.batch_size)
    return replace(schedule, batch_size=max(sizes))


def parameters_of(spec: SearchSpec) -> dict[str, str]:
    """Return every key of the resolved spec with its value as text, for MLflow."""
    return {key: str(value) for key, value in flatten(spec.model_dump(mode="json")).items()}
