"""Train only the embedding rows that a task can reach; `data.preparation` selects them.

Most of a multilingual encoder is its embedding table, and the optimiser updates all of it at every
step. Pieces that occur neither in the task's text nor in any virtual view receive no gradient, and
without weight decay AdamW leaves their rows as they are; so they can be left out while training
and put back afterwards, without changing any result.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xlt_ray.method.synonym_view import SynonymView

_BATCH = 10_000
_TRIED_PAIRS = 500
# Kinds of characters that tokenizers tell apart, white space and apostrophes among them.
_CHARACTERS = "abZéяß中あ한عह019'’s.,-(_/$€\t\n\u00a0\u3000😀"


class Vocabulary:
    """The kept rows of an embedding table.

    Args:
        kept: Token ids to keep, sorted, each once (rows,).
        size: Rows of the whole table.
    """

    def __init__(self, kept: np.ndarray, size: int) -> None:
        self.kept = kept
        self.size = size
        self._row = np.full(size, -1, dtype=np.int64)
        self._row[kept] = np.arange(len(kept))

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Translate token ids into rows of the trimmed table.

        Raises:
            KeyError: If an id was not kept.
        """
        rows = self._row[ids]
        if rows.min(initial=0) < 0:
            missing = sorted(set(ids[rows < 0].tolist()))[:5]
            raise KeyError(f"token ids {missing} are not in the trimmed vocabulary")
        return rows

    def trim(self, classifier: PreTrainedModel) -> None:
        """Cut a model's embedding table down to the kept rows, in place."""
        table = classifier.get_input_embeddings()
        assert isinstance(table, nn.Embedding)
        rows = table.weight.detach()[torch.from_numpy(self.kept)].clone()
        trimmed = nn.Embedding.from_pretrained(rows, freeze=False, padding_idx=table.padding_idx)
        classifier.set_input_embeddings(trimmed)
        classifier.config.vocab_size = len(self.kept)

    def restore(self, classifier: PreTrainedModel, table: Tensor) -> None:
        """Put the omitted rows back, in place.

        Args:
            classifier: A model trained with the trimmed table.
            table: The whole table as pretrained (size, hidden); it is not changed.
        """
        trimmed = classifier.get_input_embeddings()
        assert isinstance(trimmed, nn.Embedding)
        whole = table.detach().clone()
        whole[torch.from_numpy(self.kept)] = trimmed.weight.detach().to(whole.dtype)
        classifier.set_input_embeddings(
            nn.Embedding.from_pretrained(whole, freeze=False, padding_idx=trimmed.padding_idx)
        )
        classifier.config.vocab_size = self.size


def reachable_ids(
    tokenizer: PreTrainedTokenizerBase,
    encoded: Iterable[np.ndarray],
    texts: Iterable[str],
    view: SynonymView | None,
) -> np.ndarray:
    """Find every token id that training and evaluation can meet.

    A view's tokens are those of its chunks between spaces, if the tokenizer splits a text there
    before it looks for pieces. Each chunk is tokenised with all of its replacements, itself
    included: a view can be shorter than its text and then holds tokens that truncation cut off the
    text. Byte-level tokenizers join a chunk with the space before it, so they get it with and
    without one, and the whole texts for their runs of white space.

    Args:
        tokenizer: The encoder's tokenizer.
        encoded: The token ids of all splits and languages, in arrays of any size.
        texts: The training texts of the source language.
        view: The view whose replacements are reachable; None when none is used.

    Returns:
        Sorted token ids. Special tokens are among them, and every id up to the padding token's,
        so that padding keeps its id (position ids of some encoders depend on it).

    Raises:
        ValueError: If a chunk has too many replacements to list, or the tokens of a chunk depend
            on its neighbours, as without a split at spaces.
    """
    pad = tokenizer.pad_token_id
    found = [np.array(tokenizer.all_special_ids), np.arange((pad or 0) + 1)]
    found += [np.unique(ids) for ids in encoded]
    if view is not None:
        texts = list(texts)
        prefixes = _contexts(tokenizer)
        chunks = list(dict.fromkeys(chunk for text in texts for chunk in text.split(" ")))
        variants = (
            prefix + variant
            for chunk in chunks
            for variant in view.replacements(chunk)
            for prefix in prefixes
        )
        whole = texts if len(prefixes) > 1 else []
        for batch in _batched(itertools.chain(variants, whole), _BATCH):
            ids = tokenizer(batch, add_special_tokens=False)["input_ids"]
            found.append(np.unique(np.concatenate([np.array(row, dtype=np.int64) for row in ids])))
    return np.unique(np.concatenate(found)).astype(np.int64)


def _contexts(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return what to put before a chunk to see its tokens in any sentence: nothing, or also " ".

    Pieces never cross the words that a tokenizer first splits a text into. So it is enough to try,
    on chunks of all kinds of characters, whether the words of two chunks are those of each.

    Raises:
        ValueError: If they are not.
    """
    backend = tokenizer.backend_tokenizer
    normalizer, splitter = backend.normalizer, backend.pre_tokenizer
    if splitter is None:
        raise ValueError("the tokenizer does not split at spaces")

    def words(text: str) -> tuple[set[str], set[str]]:
        normal = text if normalizer is None else normalizer.normalize_str(text)
        found = splitter.pre_tokenize_str(normal)
        # A run of white space is a word of its own, and the whole texts show those.
        blank = {word for word, (start, end) in found if normal[start:end].isspace()}
        return {word for word, _ in found}, blank

    draw = random.Random(0)
    contexts: tuple[str, ...] = ("",)
    for _ in range(_TRIED_PAIRS):
        first, second = ("".join(draw.choices(_CHARACTERS, k=draw.randint(1, 6))) for _ in range(2))
        together, blank = words(f"{first} {second}")
        alone = words(first)[0] | words(second)[0]
        if not together <= alone:
            contexts = ("", " ")
        if not together <= alone | words(f" {second}")[0] | blank:
            raise ValueError("the tokenizer does not split at spaces")
    return contexts


def _batched(items: Iterable[str], size: int) -> Iterator[list[str]]:
    batch: list[str] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def pretrained_weights(classifier: PreTrainedModel, missing: Iterable[str]) -> dict[str, Tensor]:
    """Return a model's weights without those missing from its checkpoint, such as a new head."""
    absent = set(missing)
    return {name: value for name, value in classifier.state_dict().items() if name not in absent}
