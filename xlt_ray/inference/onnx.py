"""Export a fine-tuned model to ONNX, and check that it answers as the original does."""

from __future__ import annotations

import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from xlt_ray.errors import UserError, brief, in_one_line, install_command
from xlt_ray.inference.classifier import Classifier
from xlt_ray.names import MODEL_DESCRIPTION

MODEL_FILE = "model.onnx"
TOLERANCE = 1e-3
"""Largest difference of a class's probability to the original's that counts as equal."""

_PACKAGES = f"ONNX needs further packages: {install_command('onnx')}"


class _Logits(nn.Module):
    """A classifier as a function of tensors.

    Args:
        model: The classifier.
        names: Names of its inputs, in their order.
    """

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the logits (texts, classes)."""
        logits: Tensor = self.model(**dict(zip(self.names, inputs, strict=True))).logits
        return logits


def export_onnx(source: str | Path, folder: Path) -> float:
    """Write a model as `model.onnx`, with its tokenizer, configuration and task.

    Inputs are `input_ids`, `attention_mask` and, if the encoder uses them, `token_type_ids`, int64
    (texts, tokens); both sizes are free. The output is `logits`, float32 (texts, classes).

    Args:
        source: Folder of a fine-tuned classifier.
        folder: Folder to write, which must not exist. It appears complete or not at all.

    Returns:
        The largest difference of a class's probability between the two, on random inputs of several
        sizes, with and without padding.

    Raises:
        UserError: If packages are missing, the folder exists, the model cannot be loaded or
            exported, or the difference is above :data:`TOLERANCE`.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (torch's exporter imports it late)
    except ImportError:
        raise UserError(_PACKAGES) from None
    _check_folder(folder)
    classifier = Classifier.load(source, "cpu", "fp32")
    names = _input_names(classifier)
    with tempfile.TemporaryDirectory(prefix=".onnx-", dir=folder.parent) as work:
        staging = Path(work) / folder.name
        classifier.tokenizer.save_pretrained(staging)
        for name in ("config.json", MODEL_DESCRIPTION):
            if (Path(source) / name).exists():
                shutil.copy(Path(source) / name, staging)
        module = _Logits(classifier.model, names)
        _write(module, names, classifier, staging / MODEL_FILE)
        session = onnxruntime.InferenceSession(
            str(staging / MODEL_FILE), providers=["CPUExecutionProvider"]
        )
        difference = 0.0
        for inputs in _samples(classifier, names):
            with torch.inference_mode():
                expected = module(*inputs).softmax(-1).numpy()
            given = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
            [logits] = session.run(None, given)
            found = torch.from_numpy(logits).softmax(-1).numpy()
            # Unlike max(), it keeps NaN.
            difference = float(np.maximum(difference, np.abs(found - expected).max()))
        if not difference <= TOLERANCE:
            raise UserError(
                f"model {source}: as ONNX it answers differently, by up to {difference:.2g} in a "
                "probability"
            )
        staging.rename(folder)
    return difference


def _check_folder(folder: Path) -> None:
    """Make the folder above the one that is to be written, before any model is loaded."""
    if folder.exists():
        raise UserError(f"{folder}: it exists; choose another folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder.parent).close()
    except OSError as error:
        raise UserError(f"{folder}: it cannot be written: {error.strerror}") from None


def _input_names(classifier: Classifier) -> tuple[str, ...]:
    """The inputs of the model, `attention_mask` among them."""
    known = ("input_ids", "attention_mask", "token_type_ids")
    return tuple(name for name in known if name in classifier.tokenizer.model_input_names)


def _write(module: nn.Module, names: tuple[str, ...], classifier: Classifier, file: Path) -> None:
    """Export to a file; both sizes of the inputs stay free."""
    texts = torch.export.Dim("texts", min=1, max=2**16)
    tokens = torch.export.Dim("tokens", min=2, max=classifier.max_length)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                next(_samples(classifier, names)),
                dynamo=True,
                input_names=list(names),
                output_names=["logits"],
                dynamic_shapes={"inputs": tuple({0: texts, 1: tokens} for _ in names)},
                verbose=False,
            )
        assert program is not None
        program.save(file)
    except Exception as error:
        # torch's exporter raises errors of many kinds for what it cannot express.
        raise UserError(
            f"model {classifier.model.config.name_or_path}: torch cannot export it to ONNX: "
            f"{brief(in_one_line(error))}"
        ) from error


def _samples(classifier: Classifier, names: tuple[str, ...]) -> Iterator[tuple[Tensor, ...]]:
    """Yield random inputs: batches of several lengths, up to full length or 512 tokens."""
    generator = torch.Generator().manual_seed(0)
    special = torch.tensor(classifier.tokenizer.all_special_ids)
    size = int(classifier.model.config.vocab_size)
    pad = int(classifier.tokenizer.pad_token_id)
    longest = min(classifier.max_length, 512)
    for texts, tokens in ((3, min(12, longest)), (1, 2), (2, longest), (5, max(2, longest // 2))):
        ids = torch.randint(size, (texts, tokens), generator=generator)
        ids = torch.where(torch.isin(ids, special), (special.max() + 1) % size, ids)
        mask = torch.ones_like(ids)
        if texts > 1 and tokens > 3:
            mask[-1, tokens // 2 :] = 0
        made = {
            "input_ids": ids.masked_fill(mask == 0, pad),
            "attention_mask": mask,
            "token_type_ids": torch.zeros_like(ids),
        }
        yield tuple(made[name] for name in names)
