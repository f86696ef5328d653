"""Keep only the embedding rows that a task can reach, and train only those that training can.

Most of a multilingual encoder is its embedding table, and the optimiser updates all of it at every
step. Pieces that occur neither in the task's text nor in any virtual view receive no gradient, and
without weight decay AdamW leaves their rows as they are; so they can be left out while training
and put back afterwards, without changing any result. The same is true of the rows that only dev and
test texts need, of all target languages: they stay in the table, without gradient and moments.
`data.preparation` selects both.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xlt_ray.method.synonym_view import SynonymView

_BATCH = 10_000
_TRIED_PAIRS = 500
# SentencePiece writes a space as U+2581.
_SPACE = re.compile(r"[\s\u2581]")
# Kinds of characters that tokenizers tell apart, white space and apostrophes among them.
_CHARACTERS = "abZéяß中あ한عह019'’s.,-(_/$€\t\n\u00a0\u3000😀"


class Vocabulary:
    """The kept rows of an embedding table.

    Args:
        kept: Token ids to keep, in the order of their rows, each once (rows,).
        size: Rows of the whole table.
        trained: How many of the kept ids training can meet; they are the first ones. None: all.
    """

    def __init__(self, kept: np.ndarray, size: int, trained: int | None = None) -> None:
        self.kept = kept
        self.size = size
        self.trained = len(kept) if trained is None else trained
        self._row = np.full(size, -1, dtype=np.int64)
        self._row[kept] = np.arange(len(kept))

    @classmethod
    def of(cls, trained: np.ndarray, evaluated: np.ndarray, size: int) -> Vocabulary:
        """Keep the ids that training can meet, then those that only evaluation meets.

        Args:
            trained: The former, sorted.
            evaluated: Ids that evaluation can meet, in any order.
            size: Rows of the whole table.
        """
        others = np.setdiff1d(evaluated, trained)
        return cls(np.concatenate([trained, others]), size, len(trained))

    @classmethod
    def load(cls, file: Path, size: int) -> Vocabulary:
        """Read what :meth:`save` wrote."""
        with np.load(file) as stored:
            return cls(stored["kept"], size, int(stored["trained"]))

    def save(self, file: Path) -> None:
        """Write the kept ids (.npz)."""
        np.savez(file, kept=self.kept, trained=self.trained)

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
        """Cut a model's embedding table down to the kept rows, in place; all of them train."""
        table = classifier.get_input_embeddings()
        assert isinstance(table, nn.Embedding)
        rows = table.weight.detach()[torch.from_numpy(self.kept)].clone()
        trimmed = nn.Embedding.from_pretrained(rows, freeze=False, padding_idx=table.padding_idx)
        classifier.set_input_embeddings(trimmed)
        classifier.config.vocab_size = len(self.kept)

    def train_reachable(self, classifier: PreTrainedModel) -> None:
        """Let only those rows of a trimmed table train that training can meet, in place.

        A table that does more than look rows up, such as one that scales them, or that another part
        of the model shares, stays as it is.
        """
        if self.trained == len(self.kept):
            return
        table = classifier.get_input_embeddings()
        uses = [w for _, w in classifier.named_parameters(remove_duplicate=False)]
        shared = sum(weight is table.weight for weight in uses) > 1
        if type(table) is nn.Embedding and not shared:
            classifier.set_input_embeddings(PartlyTrainedEmbedding(table, self.trained))

    def restore(self, classifier: PreTrainedModel, table: nn.Module) -> None:
        """Put the omitted rows back, in place.

        Args:
            classifier: A model trained with the trimmed table.
            table: The whole table as pretrained; the model takes it, with the trained rows in it.
        """
        trimmed = classifier.get_input_embeddings()
        assert isinstance(trimmed, nn.Embedding) and isinstance(table, nn.Embedding)
        with torch.no_grad():
            table.weight[torch.from_numpy(self.kept)] = trimmed.weight.to(table.weight.dtype)
        classifier.set_input_embeddings(table)
        classifier.config.vocab_size = self.size


class PartlyTrainedEmbedding(nn.Embedding):
    """An embedding table of which the first rows are trained.

    In training mode only these rows can be looked up, in evaluation mode all.

    Args:
        table: The table.
        rows: How many of its rows are trained.
    """

    def __init__(self, table: nn.Embedding, rows: int) -> None:
        whole = table.weight.detach()
        size, hidden = whole.shape
        super().__init__(size, hidden, table.padding_idx, _weight=whole, _freeze=True)
        self.trained = nn.Parameter(whole[:rows])
        """The trained rows (rows, hidden). They are no copy but those of `weight`."""

    def forward(self, input: Tensor) -> Tensor:
        table = self.trained if self.training else self.weight
        return functional.embedding(input, table, self.padding_idx)

    def _apply(
        self, fn: Callable[[Tensor], Tensor], recurse: bool = True
    ) -> PartlyTrainedEmbedding:
        # Another device or type would give each parameter memory of its own.
        super()._apply(fn, recurse)
        self.trained.data = self.weight.data[: len(self.trained)]
        return self


def reachable_ids(
    tokenizer: PreTrainedTokenizerBase,
    encoded: Iterable[np.ndarray],
    texts: Iterable[str],
    view: SynonymView,
) -> np.ndarray:
    """Find every token id of some splits and of the views of their texts.

    A view's tokens are those of its chunks between spaces, if the tokenizer splits a text there
    before it looks for pieces. Each chunk is tokenised with all of its replacements, itself
    included: a view can be shorter than its text and then holds tokens that truncation cut off the
    text. Byte-level tokenizers join a chunk with the space before it, so they get it with and
    without one, and the whole texts for their runs of white space.

    Args:
        tokenizer: The encoder's tokenizer.
        encoded: The token ids of the splits, in arrays of any size.
        texts: The texts of the source language of which views are made.
        view: The view whose replacements are reachable.

    Returns:
        Sorted token ids. Special tokens are among them, and every id up to the padding token's,
        so that padding keeps its id (position ids of some encoders depend on it).

    Raises:
        ValueError: If a chunk has too many replacements to list, or the tokens of a chunk depend
            on its neighbours, as without a split at spaces or with an added token that has one.
    """
    pad = tokenizer.pad_token_id
    found = [np.array(tokenizer.all_special_ids), np.arange((pad or 0) + 1)]
    found += [np.unique(ids) for ids in encoded]
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
        ValueError: If they are not, or an added token has a space: it is cut out of a text before
            all else, and what it leaves of a chunk is no chunk of the texts.
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
    added = [token.content for token in tokenizer.added_tokens_decoder.values()]
    # A run of white space leaves chunks as they are, with or without a space before them.
    crossing = [text for text in added if _SPACE.search(text) and not text.isspace()]
    if crossing or (len(contexts) == 1 and any(map(str.isspace, added))):
        raise ValueError("an added token has a space")
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
