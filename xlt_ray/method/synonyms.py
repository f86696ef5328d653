"""English synonym dictionaries: read, downloaded and checked. Synonym views draw from them."""

from __future__ import annotations

import difflib
import hashlib
import http.client
import json
import os
import re
import tempfile
import urllib.request
from collections.abc import Iterable
from pathlib import Path

from xlt_ray.errors import UserError
from xlt_ray.files import cache_folder, unique_keys

WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")
"""One word: letters, digits and underscores, with inner apostrophes and hyphens."""

DEMO = Path(__file__).parent.parent / "demo" / "synonyms.json"
DOWNLOAD_TIMEOUT_SECONDS = 60

COUNTER_FITTED_URL = (
    "https://raw.githubusercontent.com/uclanlp/Robust-XLT/"
    "175cddb89c4e86c7152d0175db8f824f7f4e6bad/counterfitted_neighbors.json"
)
"""Nearest words in counter-fitted embeddings (Mrkšić et al., 2016), as Huang et al. (2021) and Ding
et al. (2022) use them; Apache-2.0."""

COUNTER_FITTED_SHA256 = "103247143f39bd5dd66850f3a912393392641dbd98093c61e2b24a4cc8a96fb0"

NAMED = ("counter-fitted", "wordnet", "demo")
"""Dictionaries that have a name."""

MAX_SYNONYMS = 8
"""Synonyms kept for a word of WordNet."""

Synonyms = dict[str, tuple[str, ...]]
"""A lower-case word to its synonyms, nearest first; words without any are not in it."""

Lemma = tuple[str, str]  # word, part of speech

# WordNet has "have", "in" (the inch) or "us" (the country) as content words; in running text they
# are nearly always something else.
FUNCTION_WORDS = frozenset(
    """
    a about above across after again against all along also am among an and another any anybody
    anyone anything are around as at be because been before behind being below beside besides
    between both but by can could did do does doing done down during each either even every
    everybody everyone everything few for from had has have having he her here hers herself him
    himself his how i if in into is it its itself just least less little many may me might mine
    more most much must my myself near need neither never no nobody none nor not nothing now of
    off on once one ones only onto or other ought our ours ourselves out over own past per same
    several shall she should since so some somebody someone something still such than that the
    their theirs them themselves then there these they this those though through to too toward
    towards under unless until up upon us very via was we were what when where whether which while
    who whom whose why will with within without would yet you your yours yourself yourselves
    """.split()  # noqa: SIM905
)


def load_synonyms(source: str) -> Synonyms:
    """Read a synonym dictionary.

    A JSON dictionary maps each word to the list of its synonyms, as in ``{"movie": ["film"]}``;
    an empty list means none. Everything is lower-cased; the word itself, duplicates and entries
    that are not one word (``WORD``) are left out; the order is kept.

    Args:
        source: "counter-fitted" (the paper's list, at ``COUNTER_FITTED_URL``), "wordnet" (see
            ``wordnet_synonyms``), "demo" (the small dictionary of the demo task), the path of a
            JSON dictionary, or the http(s) URL of one. A URL ends in "#sha256=" and the digest of
            the file in hexadecimal, which is checked; the file is downloaded once, to the folder
            named by the environment variable XLT_RAY_CACHE (default: ~/.cache/xlt-ray).

    Returns:
        The dictionary.

    Raises:
        UserError: If the source cannot be read, is not such a dictionary, has no digest or another
            one, or no word in it has a synonym.
    """
    if source == "wordnet":
        from xlt_ray.method.wordnet import wordnet_synonyms

        return wordnet_synonyms()
    if source == "counter-fitted":
        try:
            return _from_url(f"{COUNTER_FITTED_URL}#sha256={COUNTER_FITTED_SHA256}")
        except UserError as error:
            raise UserError(
                f"{error}; without a network, give a copy of the file: "
                "method.view.synonyms=path.json"
            ) from None
    if source.startswith(("http://", "https://")):
        return _from_url(source)
    path = DEMO if source == "demo" else Path(source)
    try:
        path = path.expanduser()
        content = path.read_bytes()
    except RuntimeError:
        raise UserError(f"synonyms: {path}: there is no such home folder") from None
    except FileNotFoundError:
        raise UserError(f"synonyms: {_no_such_file(path)}") from None
    except OSError as error:
        raise UserError(f"synonyms: cannot read {path}: {error.strerror}") from None
    return _parse(content, str(path))


def _no_such_file(path: Path) -> str:
    """Return the message for a missing file, with the nearest name as a hint."""
    names = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    if path.parent == Path("."):
        names += NAMED
    close = difflib.get_close_matches(path.name, names, n=1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    return f"no file {str(path)!r}{hint}; give {', '.join(NAMED)}, a JSON file or the URL of one"


def _from_url(source: str) -> Synonyms:
    """Read a JSON dictionary from the cache, or download it there."""
    url, _, fragment = source.partition("#")
    digest = fragment.removeprefix("sha256=").lower()
    if fragment and not (fragment.startswith("sha256=") and re.fullmatch("[0-9a-f]{64}", digest)):
        raise UserError(
            f"synonyms: {url}: what follows '#' must be 'sha256=' and 64 hexadecimal digits, "
            f"not {fragment!r}"
        )
    folder = cache_folder()
    cached = folder / f"synonyms-{hashlib.sha256(url.encode()).hexdigest()[:16]}.json"
    if cached.is_file():
        content = cached.read_bytes()
        if hashlib.sha256(content).hexdigest() == digest:
            return _parse(content, str(cached))
    try:
        with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_SECONDS) as response:
            content = response.read()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UserError(f"synonyms: cannot download {url}: {error}") from None
    found = hashlib.sha256(content).hexdigest()
    if digest and found != digest:
        raise UserError(f"synonyms: {url} has the sha256 {found}, not {digest}")
    # Cache only a checked file: a torn or wrong one would stay for ever.
    synonyms = _parse(content, url)
    if not digest:
        raise UserError(
            "synonyms: a URL needs the digest of its file, which may change; the file that is "
            f"there now: {url}#sha256={found}"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as partial:
            partial.write(content)
        os.replace(partial.name, cached)
    except OSError as error:
        raise UserError(
            f"synonyms: cannot write to the cache folder {folder} (set by XLT_RAY_CACHE): "
            f"{error.strerror}"
        ) from None
    return synonyms


def _parse(content: bytes, origin: str) -> Synonyms:
    """Check and normalise a JSON dictionary; error messages name its ``origin``."""
    shape = 'expected {"word": ["synonym", ...], ...}'
    try:
        entries = json.loads(content.decode("utf-8-sig"), object_pairs_hook=unique_keys)
    except UnicodeDecodeError as error:
        raise UserError(f"synonyms: {origin}: not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"synonyms: {origin}, line {error.lineno}: not JSON: {error.msg}; {shape}"
        ) from None
    except RecursionError:
        raise UserError(f"synonyms: {origin}: nested too deep; {shape}") from None
    except ValueError as error:
        # A key that is given twice, or a number of more digits than Python reads.
        reason = str(error).partition(";")[0]
        raise UserError(f"synonyms: {origin}: {reason}; {shape}") from None
    if not isinstance(entries, dict):
        raise UserError(f"synonyms: {origin}: {shape}, not a {_json_type(entries)}")
    for word, others in entries.items():
        if not isinstance(others, list):
            raise UserError(
                f"synonyms: {origin}: the entry of {word!r} is a {_json_type(others)}; {shape}"
            )
        for other in others:
            if not isinstance(other, str):
                raise UserError(
                    f"synonyms: {origin}: the entry of {word!r} has a {_json_type(other)} "
                    f"among its synonyms; {shape}"
                )
    synonyms = normalised(entries.items())
    if not synonyms:
        raise UserError(f"synonyms: {origin}: no word has a synonym; {shape}")
    return synonyms


def _json_type(value: object) -> str:
    """Return the JSON name of a parsed value's type."""
    names: dict[type, str] = {
        dict: "dictionary",
        list: "list",
        str: "string",
        int: "number",
        float: "number",
        bool: "boolean",
        type(None): "null",
    }
    return names[type(value)]


def normalised(entries: Iterable[tuple[str, list[str]]]) -> Synonyms:
    """Lower-case entries, merge words that differ by case only, drop what is not a word."""
    joined: dict[str, dict[str, None]] = {}
    for word, others in entries:
        word = word.lower()
        kept = (other.lower() for other in others if WORD.fullmatch(other))
        joined.setdefault(word, {}).update((other, None) for other in kept if other != word)
    return {
        word: tuple(others) for word, others in joined.items() if others and WORD.fullmatch(word)
    }
