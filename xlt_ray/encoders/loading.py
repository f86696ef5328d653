"""Resolve, check and load pretrained encoders.

Models are untrusted: no code from a model repository runs, and pickles may hold only tensors.
"""

from __future__ import annotations

import contextlib
import functools
import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlt_ray.encoders.catalogue import hub_name, suggestion
from xlt_ray.encoders.packaged import PACKAGED_ENCODERS, materialize
from xlt_ray.errors import UserError, brief, refused_writing

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_FEWEST_PIECES = 10
"""Some tokenizers without files have a few placeholders as well as their special tokens."""

_OWN_SETTINGS: dict[str, Any] = {
    "problem_type": "single_label_classification",
    "return_dict": True,
    "output_attentions": False,
    "output_hidden_states": False,
}
"""What a classifier's configuration says, whatever the checkpoint's does."""


@dataclass(frozen=True)
class EncoderInfo:
    """Properties of an encoder that are known without its weights."""

    source: str
    """What `from_pretrained` takes: a hub name or a local folder."""
    family: str
    """transformers' model type, such as `bert` or `xlm-roberta`."""
    layers: int
    """Transformer layers."""
    hidden: int
    """Hidden size."""
    vocabulary: int
    """Rows of the embedding table."""
    max_length: int
    """Longest input in tokens."""
    parameters: int = 0
    """Number of weights, those of the embedding table included; 0: unknown."""
    pieces: int = 0
    """Entries of the tokenizer's vocabulary; 0: unknown."""


def resolve(model: str) -> str:
    """Turn the spec's model into what `from_pretrained` takes.

    Args:
        model: Short name, hub name, local folder, or the name of a packaged encoder (converted
            once).

    Raises:
        UserError: If a packaged encoder is unknown or its package is not installed.
    """
    if model.startswith("packaged/"):
        return str(materialize(model))
    return hub_name(model)


def check_encoder(model: str) -> EncoderInfo:
    """Read an encoder's configuration and tokenizer, without its weights.

    Raises:
        UserError: If it cannot be found, has no fast tokenizer, is not an encoder, or needs code
            of its own.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as CLASSIFIERS,
    )

    source = resolve(model)
    with _loading(model):
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    family = config.model_type
    is_encoder = (
        family in MODEL_FOR_MASKED_LM_MAPPING_NAMES
        and family in CLASSIFIERS
        # Those of images and texts keep the sizes of each part elsewhere.
        and all(
            hasattr(config, size) for size in ("vocab_size", "hidden_size", "num_hidden_layers")
        )
    )
    if not is_encoder or config.is_encoder_decoder or getattr(config, "is_decoder", False):
        raise UserError(
            f"model {model}: '{family}' is not an encoder; expected one such as "
            "xlm-roberta-base or bert-base-multilingual-cased"
        )
    with _loading(model):
        tokenizer = load_tokenizer(source)
    if not tokenizer.is_fast or tokenizer.pad_token_id is None:
        raise UserError(f"model {model}: it has no fast tokenizer with a padding token")
    _check_pieces(model, tokenizer, config.vocab_size)
    positions, parameters, padding = _sizes(config)
    if padding not in (None, tokenizer.pad_token_id):
        raise UserError(
            f"model {model}: it numbers positions from padding id {padding} on, but its "
            f"tokenizer's is {tokenizer.pad_token_id}; give the model its own tokenizer"
        )
    limit = tokenizer.model_max_length
    if not isinstance(limit, int | float) or limit < 1:
        raise UserError(
            f"model {model}: tokenizer_config.json: model_max_length: expected a number of tokens, "
            f"not {limit!r}; correct it"
        )
    return EncoderInfo(
        source=source,
        family=family,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        vocabulary=config.vocab_size,
        max_length=int(min(positions, limit)),
        parameters=parameters,
        pieces=len(tokenizer),
    )


def hub_commit(name: str) -> str | None:
    """Return the commit of a hub's model in this machine's cache; None if it is unknown."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(name, "config.json")
    return Path(cached).parent.name if isinstance(cached, str) else None


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer; the last one is kept, since one of 250,000 pieces takes seconds to read.

    Args:
        source: A hub name or a local folder.

    Returns:
        The tokenizer, which every caller shares: do not change it.
    """
    files = sorted(Path(source).glob("*.*")) if Path(source).is_dir() else []
    stats = [file.stat() for file in files]
    return _tokenizer(source, tuple((stat.st_size, stat.st_mtime_ns) for stat in stats))


@functools.lru_cache(maxsize=1)
def _tokenizer(source: str, stamps: tuple[tuple[int, int], ...]) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        source, trust_remote_code=False
    )
    return tokenizer


def _sizes(config: PreTrainedConfig) -> tuple[int, int, int | None]:
    """Return how many positions a model has and how many weights, without making any of them.

    RoBERTa's relatives number positions from the padding token's id on, so their tables have rows
    that no token uses.

    Args:
        config: The encoder's configuration.

    Returns:
        Positions, weights, and the padding token's id if positions are numbered from it.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    positions = getattr(config, "max_position_embeddings", None) or 10**9
    try:
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(config)
    except Exception:
        # Some families look at values while they are built. The probe tries the longest input.
        return positions, 0, None
    numbered_from = None
    for name, table in model.named_modules():
        if name.endswith(".position_embeddings") and hasattr(table, "weight"):
            numbered_from = getattr(table, "padding_idx", None)
            before = 0 if numbered_from is None else numbered_from + 1
            positions = min(positions, len(table.weight) - before)
    return positions, sum(weight.numel() for weight in model.parameters()), numbered_from


def _check_pieces(model: str, tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Check that a tokenizer has pieces, each with a row of the embedding table.

    Args:
        model: The spec's model.
        tokenizer: Its tokenizer.
        rows: Rows of its embedding table.

    Raises:
        UserError: If the tokenizer has special tokens only, or more ids than the table has rows.
    """
    vocabulary = tokenizer.get_vocab()
    # Without its files, transformers makes a tokenizer for which every text is unknown.
    special = vocabulary.keys() & tokenizer.all_special_tokens
    if len(vocabulary) - len(special) < _FEWEST_PIECES:
        raise UserError(
            f"model {model}: its tokenizer has no vocabulary; add the tokenizer's files, such as "
            "tokenizer.json, to the model"
        )
    last = max(vocabulary.values())
    if last >= rows:
        raise UserError(
            f"model {model}: its tokenizer has ids up to {last:,}, but the embedding table has "
            f"{rows:,} rows; give the model its own tokenizer, or resize its embeddings "
            "(resize_token_embeddings)"
        )


def load_classifier(source: str, labels: tuple[str, ...], seed: int) -> PreTrainedModel:
    """Load an encoder with the classification head of its family.

    Args:
        source: A hub name or a local folder.
        labels: Class names; their order gives the class ids.
        seed: Seed of the head's initialisation, where the checkpoint has none.

    Returns:
        The model in float32 on the CPU.

    Raises:
        UserError: If its weights cannot be read.
    """
    return load_classifier_with_missing(source, labels, seed)[0]


def load_classifier_with_missing(
    source: str, labels: tuple[str, ...], seed: int
) -> tuple[PreTrainedModel, set[str]]:
    """Like :func:`load_classifier`; also names the weights that the checkpoint lacked.

    A head of another number of classes is one that the checkpoint lacks.

    Raises:
        UserError: As :func:`load_classifier`, or if weights of the embeddings or the layers are
            missing or broken.
    """
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    # transformers warns of a new head, but every fine-tuning starts with one.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(seed)
    with _loading(source):
        model, info = AutoModelForSequenceClassification.from_pretrained(
            source,
            num_labels=len(labels),
            id2label=dict(enumerate(labels)),
            label2id={label: number for number, label in enumerate(labels)},
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            trust_remote_code=False,
            weights_only=True,
            **_OWN_SETTINGS,
        )
    encoder = f"{model.base_model_prefix}."
    for name, stored, expected in sorted(info["mismatched_keys"]):
        if name.startswith(encoder):
            raise UserError(
                f"model {source}: its weights do not fit its configuration, {name} is "
                f"{_shape(stored)} and should be {_shape(expected)}; give both of the same model"
            )
    _check_weights(source, model, info["missing_keys"])
    for weight in model.parameters():
        # Checkpoints of GTE and Nomic have some weights in one, which the model gets parts of;
        # safetensors stores no parts.
        if weight.untyped_storage().nbytes() > weight.nbytes:
            weight.data = weight.data.clone()
    return model, set(info["missing_keys"]) | {name for name, *_ in info["mismatched_keys"]}


def _check_weights(source: str, model: PreTrainedModel, missing: Iterable[str]) -> None:
    """Check that a checkpoint has the weights of the embeddings and of every layer.

    The head and the pooler may be new.

    Args:
        source: What was loaded.
        model: The model, with random weights where the checkpoint has none.
        missing: Names of these weights.

    Raises:
        UserError: If one is missing, or the embedding table has no usable values.
    """
    from xlt_ray.encoders.depth import parameter_depths

    depths = parameter_depths(model)
    head = max(depths.values())
    absent = sorted(name for name in missing if depths.get(name, head) < head)
    if absent:
        raise UserError(
            f"model {source}: its weights lack {len(absent)} of the encoder's, such as "
            f"{absent[0]}; give the weights and the configuration of the same model"
        )
    table: Any = model.get_input_embeddings().weight
    if not table.isfinite().all() or not table.any():
        raise UserError(
            f"model {source}: its embedding table is all zero or has values that are not finite; "
            "give weights that were pretrained"
        )


def _shape(sizes: Iterable[int]) -> str:
    return " x ".join(map(str, sizes))


@contextlib.contextmanager
def _loading(model: str) -> Iterator[None]:
    """Turn transformers' loading errors into a UserError of one line."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    try:
        yield
    except pickle.UnpicklingError:
        raise UserError(
            f"model {model}: its weights are a pickle that is more than tensors and could run any "
            "code; give a model with a file model.safetensors"
        ) from None
    except StrictDataclassError as error:
        wrong = str(error).splitlines()[-1].strip()
        raise UserError(f"model {model}: config.json: {wrong}; correct it") from None
    # A JSON file of another shape than expected fails anywhere in transformers.
    except (
        *(OSError, ValueError, LookupError, TypeError, AttributeError, ImportError, RuntimeError),
        SafetensorError,
    ) as error:
        if "trust_remote_code" in str(error):
            raise UserError(
                f"model {model}: it needs code that comes with it, and such code is not run; "
                "give one of a family that is part of transformers"
            ) from None
        reason: Any = str(error).strip().split("\n")[0]
        if refused_writing(error) and not Path(model).exists():
            raise UserError(
                f"model {model}: the hub's cache cannot be written to ({brief(reason)}); set "
                "HF_HOME to a folder that can"
            ) from None
        hint = (
            "expected a folder with config.json and a tokenizer, a name on the Hugging Face hub, "
            f"a short name such as mmbert-base, or {PACKAGED_ENCODERS[0]}"
        )
        if Path(model).exists():
            raise UserError(f"model {model}: cannot be loaded ({reason}); {hint}") from None
        close = suggestion(model)
        raise UserError(f"model {model}: not found{close} ({reason}); {hint}") from None
