"""A tiny random encoder with its own tokenizer, in the folder layout of a published checkpoint."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Family = Literal["bert", "xlm-roberta"]

DEFAULT_TEXTS = (
    "The old man reads a book in the quiet garden.",
    "Two children play football near the big river.",
    "A woman cooks a warm meal for her good friends.",
    "Der alte Mann liest im stillen Garten ein Buch.",
    "Zwei Kinder spielen am großen Fluss Fußball.",
    "El anciano lee un libro en el jardín tranquilo.",
    "Le vieil homme lit un livre dans le jardin calme.",
    "Старик читает книгу в тихом саду.",
    "老人在安静的花园里看书。",
    "الرجل العجوز يقرأ كتابا في الحديقة.",
    "बूढ़ा आदमी बगीचे में किताब पढ़ता है।",
)
MAX_LENGTH = 128


def tiny_encoder(
    folder: Path,
    family: Family = "bert",
    layers: int = 2,
    hidden: int = 32,
    texts: Sequence[str] = DEFAULT_TEXTS,
    vocabulary: int = 400,
    num_labels: int = 3,
    seed: int = 0,
) -> Path:
    """Write a randomly initialised encoder and a tokenizer made from ``texts``.

    The folder holds ``config.json``, ``model.safetensors``, ``tokenizer.json`` and
    ``tokenizer_config.json``; ``AutoTokenizer`` and ``AutoModelForSequenceClassification`` load
    it as they would any checkpoint, but for the classification head, which is absent as in
    a checkpoint that was only pretrained.

    Args:
        folder: Where to write; created if absent.
        family: Architecture, which also decides the tokenizer: WordPiece with ``[CLS]`` and
            ``[SEP]`` for BERT, Unigram with ``<s>`` and ``</s>`` for XLM-R. Either knows the
            letters and the most frequent words of ``texts``; any other word falls into letters.
        layers: Number of transformer layers.
        hidden: Hidden size; four attention heads, so a multiple of four.
        texts: What the tokenizer is made from.
        vocabulary: Upper bound of the tokenizer's vocabulary size, as far as the letters allow.
        num_labels: Number of classes written into the configuration.
        seed: Seed of the weights.

    Returns:
        ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    build = _word_piece if family == "bert" else _unigram
    tokenizer = build(texts, vocabulary)
    tokenizer.save_pretrained(folder)
    _model(family, len(tokenizer), layers, hidden, num_labels, seed).save_pretrained(folder)
    return folder


def _words(texts: Sequence[str], limit: int) -> list[str]:
    # Ties are broken by the alphabet; the trainers of the tokenizers library break them at random.
    counts = Counter(word for text in texts for word in re.findall(r"\w+|[^\w\s]", text))
    return sorted(counts, key=lambda word: (-counts[word], word))[: max(limit, 0)]


def _word_piece(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerBase:
    from transformers import BertTokenizer

    letters = sorted(set("".join(texts)) - {" "})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    pieces += [f"##{letter}" for letter in letters]
    pieces = list(dict.fromkeys(pieces + _words(texts, vocabulary - len(pieces))))
    return BertTokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)},
        do_lower_case=False,
        model_max_length=MAX_LENGTH,
    )


def _unigram(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerBase:
    from transformers import XLMRobertaTokenizer

    letters = ["▁", *sorted(set("".join(texts)) - {" "})]
    words = [f"▁{word}" for word in _words(texts, vocabulary - len(letters) - 5)]
    scores = {"<s>": 0.0, "<pad>": 0.0, "</s>": 0.0, "<unk>": 0.0}
    scores |= {word: -5.0 for word in words} | {letter: -10.0 for letter in letters}
    return XLMRobertaTokenizer(
        vocab=[*scores.items(), ("<mask>", 0.0)], model_max_length=MAX_LENGTH
    )


def _model(
    family: Family, vocabulary: int, layers: int, hidden: int, num_labels: int, seed: int
) -> PreTrainedModel:
    import torch
    from transformers import BertConfig, BertModel, XLMRobertaConfig, XLMRobertaModel

    sizes: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": 2 * hidden,
        "num_labels": num_labels,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if family == "bert":
            return BertModel(
                BertConfig(pad_token_id=0, max_position_embeddings=MAX_LENGTH, **sizes)
            )
        # XLM-R numbers positions from pad_token_id + 1 on, hence the two extra ones.
        return XLMRobertaModel(
            XLMRobertaConfig(
                bos_token_id=0,
                pad_token_id=1,
                eos_token_id=2,
                type_vocab_size=1,
                max_position_embeddings=MAX_LENGTH + 2,
                **sizes,
            )
        )
