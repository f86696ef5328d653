"""Classify new texts with an exported model; the API, `predict`, `evaluate` and MLflow use it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xlt_ray.distributed import Workers, computes_in_bf16
from xlt_ray.errors import UserError
from xlt_ray.evaluation.predict import class_probabilities
from xlt_ray.names import MODEL_DESCRIPTION

Text = str | tuple[str, ...]
"""A text, or a pair of texts for tasks with two text columns."""


class Answers(NamedTuple):
    """A classifier's output for some texts, in their order."""

    labels: list[str]
    """The most probable class of each text."""
    probabilities: np.ndarray
    """Probability of each class, shape (texts, classes), float32; each row sums to 1."""


@dataclass(frozen=True)
class Classifier:
    """An exported model, ready for inference; :meth:`load` makes one."""

    model: PreTrainedModel
    """The model, in evaluation mode."""
    tokenizer: PreTrainedTokenizerBase
    """The model's tokenizer."""
    labels: tuple[str, ...]
    """Class names, in the order of the columns of the probabilities."""
    text_columns: tuple[str, ...] | None
    """Names of the task's text columns; None if unknown, as for a model from another source."""
    max_length: int
    """Maximum number of tokens of a text or a pair; longer ones are truncated."""
    workers: Workers
    """Device and precision."""

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: str | None = None,
        precision: Literal["auto", "bf16", "fp32"] = "auto",
    ) -> Classifier:
        """Load the `best-model/` of a search, or any folder of a fine-tuned classifier.

        Args:
            folder: The model's folder.
            device: Device, such as `cpu` or `cuda:0`; None: a GPU if there is one.
            precision: `auto` is bf16 if the hardware supports it, as in a search.

        Raises:
            UserError: If there is no such folder or device, or the model cannot be loaded or was
                not fine-tuned.
        """
        from transformers import AutoConfig

        from xlt_ray.encoders.loading import (
            check_encoder,
            load_classifier_with_missing,
            load_tokenizer,
        )

        source = str(folder)
        if not (Path(folder) / "config.json").is_file():
            raise UserError(
                f"model {source}: there is no model in that folder; expected one such as "
                "runs/NAME-DATE/best-model"
            )
        info = check_encoder(source)
        named = AutoConfig.from_pretrained(source, trust_remote_code=False).id2label
        labels = tuple(named[number] for number in range(len(named)))
        model, missing = load_classifier_with_missing(source, labels, seed=0)
        if missing:
            raise UserError(
                f"model {source}: it was not fine-tuned, its weights lack {sorted(missing)[0]}"
            )
        place = _device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        tokenizer = load_tokenizer(source)
        return cls(
            model.to(place).eval(),  # type: ignore[arg-type]
            tokenizer,
            labels,
            _text_columns(Path(folder) / MODEL_DESCRIPTION),
            info.max_length,
            Workers(device=place, bf16=computes_in_bf16(place, precision)),
        )

    def predict(self, texts: Sequence[Text]) -> Answers:
        """Classify texts of any lengths and languages.

        Args:
            texts: Texts, or pairs of texts; a text may be empty. Inputs longer than `max_length`
                tokens are truncated, in a pair the longer text first.

        Raises:
            ValueError: If single texts and pairs are mixed, or the task takes the other kind.
        """
        inputs = self.inputs(texts)
        if not inputs:
            return Answers([], np.empty((0, len(self.labels)), dtype=np.float32))
        pad_id = self.tokenizer.pad_token_id
        probabilities = class_probabilities(self.model, inputs, pad_id=pad_id, workers=self.workers)
        return Answers([self.labels[best] for best in probabilities.argmax(1)], probabilities)

    def inputs(self, texts: Sequence[Text]) -> dict[str, list[np.ndarray]]:
        """Tokenize texts; arguments and errors as in :meth:`predict`.

        Returns:
            `input_ids` of each text and, if the encoder uses them, `token_type_ids`, without
            padding; an empty dict for no texts.
        """
        if isinstance(texts, str):
            raise ValueError("texts: expected a sequence of texts, not a text")
        if not len(texts):
            return {}
        columns = _columns(texts)
        if self.text_columns is not None and len(columns) != len(self.text_columns):
            raise ValueError(f"texts: the task has {' and '.join(self.text_columns)} of each")
        names = self.tokenizer.model_input_names
        tokens = self.tokenizer(
            *columns,
            truncation="longest_first",
            max_length=self.max_length,
            return_attention_mask=False,
            # Without it, the tokenizer warns of long texts.
            verbose=False,
        )
        return {
            name: [np.asarray(ids, dtype=np.int64) for ids in tokens[name]]
            for name in ("input_ids", "token_type_ids")
            if name in names
        }


def _device(name: str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError):
        # torch's message is a page long and differs between builds.
        raise UserError(f"device {name}: there is none of that name on this machine") from None


def _columns(texts: Sequence[Text]) -> list[list[str]]:
    """Return one list of texts, or two for pairs, as a tokenizer takes them."""
    rows = [(text,) if isinstance(text, str) else tuple(text) for text in texts]
    if len({len(row) for row in rows}) != 1 or len(rows[0]) not in (1, 2):
        raise ValueError("texts: expected single texts only, or pairs of texts only")
    return [[_encodable(text) for text in column] for column in zip(*rows, strict=True)]


def _encodable(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot encode, by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _text_columns(description: Path) -> tuple[str, ...] | None:
    """Read the task's text columns; None if the file is missing or has none."""
    try:
        return tuple(json.loads(description.read_text(encoding="utf-8"))["text_columns"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
