"""Which weights of a training become the trial's model; the trainer asks at every evaluation.

Either those of the best evaluation, or the mean of the weights at the last evaluations (Schmidt et
al., "Free Lunch: Robust Cross-Lingual Transfer via Model Checkpoint Averaging", ACL 2023). The best
of several noisy evaluations is partly luck; a mean needs no choice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_model, save_file, save_model
from transformers import PreTrainedModel

from xlt_ray.distributed import Workers
from xlt_ray.training.checkpoint import Progress


class Selection:
    """The weights of the best evaluation so far, or the mean of those of the last evaluations.

    Args:
        classifier: The model that is trained.
        file: Where the selected weights are kept; this worker's own.
        average_last: How many last evaluations to average over; None: select the best one.
        evaluations: Dev evaluations of the whole training.
        workers: This worker and its peers.
    """

    def __init__(
        self,
        classifier: PreTrainedModel,
        file: Path,
        average_last: int | None,
        evaluations: int,
        workers: Workers,
    ) -> None:
        self._workers = workers
        self._classifier = classifier
        self._file = file
        self._averages = average_last is not None
        self._first = max(1, evaluations - (average_last or 0) + 1)

    @contextlib.contextmanager
    def scored(self, evaluation: int) -> Iterator[None]:
        """Give the classifier the weights that an evaluation scores, and the trained ones back.

        They are the mean of this evaluation's weights and those averaged before, which is written
        to the file; outside the averaged evaluations, and if the best is selected, the trained
        weights themselves.

        Args:
            evaluation: Its number, from 1.
        """
        if not self._averages or evaluation < self._first:
            yield
            return
        # Of the other weights the mean is the weight itself.
        trained = [weight for weight in self._classifier.parameters() if weight.requires_grad]
        before = [weight.detach().clone() for weight in trained]
        if evaluation > self._first:
            self._average(evaluation - self._first)
        save_model(self._classifier, str(self._file))
        yield
        with torch.no_grad():
            for weight, value in zip(trained, before, strict=True):
                weight.copy_(value)

    def _average(self, count: int) -> None:
        """Give the classifier the mean of the file's weights and its own; it keeps its integers.

        Args:
            count: Number of weights in the file's mean.
        """
        device, weights = str(self._classifier.device), self._classifier.state_dict()
        # One weight at a time: a further copy of the model would be the training's peak of memory.
        with safe_open(str(self._file), framework="pt", device=device) as averaged:
            for name in averaged.keys():  # noqa: SIM118, it is no dictionary
                mean, weight = averaged.get_tensor(name), weights[name]
                if mean.is_floating_point():
                    weight.copy_(mean + (weight - mean) / (count + 1))

    def keep(self, objective: float, metrics: Mapping[str, float], progress: Progress) -> None:
        """Select the scored weights if they are better, or if weights are averaged.

        Args:
            objective: The dev objective of the weights that were scored.
            metrics: All their metrics.
            progress: The state of the training; gets the selection.
        """
        if not self._averages and not objective > progress.best_objective:
            return
        progress.best_objective = objective
        progress.best_step = progress.step
        progress.averaged = max(0, progress.evaluations - self._first + 1) if self._averages else 0
        progress.selected = {k: v for k, v in metrics.items() if k.startswith("dev/")}
        in_file = self._averages and progress.evaluations >= self._first
        if self._workers.rank == 0 and not in_file:
            save_model(self._classifier, str(self._file))

    def load(self) -> None:
        """Load rank 0's selected weights on every worker."""
        if self._workers.rank == 0:
            load_model(self._classifier, str(self._file))
        if self._workers.size > 1:
            for tensor in self._classifier.state_dict().values():
                torch.distributed.broadcast(tensor, src=0)


def average_weights(files: Sequence[Path], target: Path) -> None:
    """Write the mean of several weights; integers are those of the first file.

    Args:
        files: Weights (safetensors) with the same names and shapes, at least one file.
        target: The file to write.

    Raises:
        ValueError: If names or shapes differ.
    """
    with contextlib.ExitStack() as stack:
        members = [stack.enter_context(safe_open(str(file), framework="pt")) for file in files]
        names = list(members[0].keys())
        if any(set(member.keys()) != set(names) for member in members):
            raise ValueError("the models have different weights")
        mean = {}
        for name in names:
            # One weight at a time: all models at once may not fit in memory.
            values = [member.get_tensor(name) for member in members]
            if any(value.shape != values[0].shape for value in values):
                raise ValueError(f"the models differ in the shape of {name}")
            first = values[0]
            if first.is_floating_point():
                summed = torch.stack([value.double() for value in values]).sum(0)
                first = (summed / len(values)).to(first.dtype)
            mean[name] = first
        save_file(mean, str(target))
