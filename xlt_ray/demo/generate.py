"""Write the demo task's sentence pairs from the lexicon; developers run it after an edit.

Run `python -m xlt_ray.demo.generate` after editing a file in `lexicon/`. The output depends on
the lexicon and `SEED` only, so running it twice writes the same bytes.

No label is written by hand: an event is a set of sentences in fixed roles, and the roles of premise
and hypothesis determine the label of a pair. Each hypothesis occurs equally often with each of the
three labels, so the hypothesis alone does not predict the label.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

import yaml

LANGUAGES = ("en", "de", "es", "fr", "ru", "zh", "ar", "hi", "sw", "tr")
LABELS = ("contradiction", "entailment", "neutral")
PAIRS_PER_LABEL = {"dev": 36, "test": 72, "train": 1200}
SEED = 13

FOLDER = Path(__file__).parent
DATA_FOLDER = FOLDER / "data"
LEXICON_FOLDER = FOLDER / "lexicon"

_FULL_STOP = {"zh": "。", "hi": "।"}

ROLES = ("general", "specific", "variant", "opposite", "opposite_specific")

# Role of the hypothesis -> label -> roles of the premise. Each of these hypotheses can also be
# neutral because of whom or what its premise is about, or entailed because that says more.
_PREMISES: dict[str, dict[str, tuple[str, ...]]] = {
    "general": {
        "entailment": ("specific", "variant"),
        "contradiction": ("opposite", "opposite_specific"),
    },
    "specific": {
        "neutral": ("general", "variant"),
        "contradiction": ("opposite", "opposite_specific"),
    },
    "opposite": {
        "entailment": ("opposite_specific",),
        "contradiction": ("general", "specific", "variant"),
    },
}


@dataclass(frozen=True)
class Sentence:
    """The meaning of a sentence, independent of language.

    Attributes:
        event: key of an event.
        role: which of the event's five sentences.
        subject: key of the person `$s`.
        time: key of the time `$t`; empty for none.
    """

    event: str
    role: str
    subject: str
    time: str = ""


@dataclass(frozen=True)
class Pair:
    """A premise, a hypothesis and the label that holds between them."""

    premise: Sentence
    hypothesis: Sentence
    label: str


@cache
def lexicon(name: str) -> dict[str, Any]:
    """Read `lexicon/<name>.yaml`."""
    text = (LEXICON_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    entries: dict[str, Any] = yaml.safe_load(text)
    return entries


def render(sentence: Sentence, language: str) -> str:
    """Return a sentence in a language.

    Args:
        sentence: what to say.
        language: one of `LANGUAGES`.

    Returns:
        The sentence, capitalised and with its full stop.
    """
    event = lexicon("events")[sentence.event]
    words = {
        "s": lexicon("people")[sentence.subject][language],
        "t": lexicon("times")[sentence.time][language] if sentence.time else "",
    }
    text = Template(event[sentence.role][language]).substitute(words)
    text = re.sub(r" +(?=,)", "", " ".join(text.split()))
    return text[0].upper() + text[1:] + _FULL_STOP.get(language, ".")


def hypotheses() -> list[tuple[str, str]]:
    """List every (event, role) that can be a hypothesis of every label.

    A narrow sentence is entailed only by itself with a time added.
    """
    return [
        (event, role)
        for event in lexicon("events")
        for role, by_label in _PREMISES.items()
        if "entailment" in by_label or _takes_time(event)
    ]


def _takes_time(event: str) -> bool:
    return "$t" in str(lexicon("events")[event])


def draw(event: str, role: str, label: str, rng: random.Random) -> Pair:
    """Draw people, a time and a premise for a hypothesis with the given label."""
    events = lexicon("events")
    subject, stranger = rng.sample(sorted(lexicon("people")), 2)
    hypothesis = Sentence(event, role, subject)
    premises = [
        replace(hypothesis, role=premise_role) for premise_role in _PREMISES[role].get(label, ())
    ]
    timed = _takes_time(event) and rng.random() < 0.25
    if role == "specific":
        # Entailed only by itself with a time, so that every premise has one: no label shows by it.
        timed = True
        if label == "entailment":
            premises = [hypothesis]
    elif label == "neutral":
        any_role = replace(hypothesis, role=rng.choice(ROLES))
        unrelated = [other for other, entry in events.items() if "independent" in entry]
        if event in unrelated:
            other = rng.choice([one for one in unrelated if one != event])
            premises = [replace(any_role, event=other)]
        else:
            premises = [replace(any_role, subject=stranger)]
    premise = rng.choice(premises)
    if timed and _takes_time(premise.event):
        premise = replace(premise, time=rng.choice(sorted(lexicon("times"))))
    return Pair(premise, hypothesis, label)


def splits() -> dict[str, list[Pair]]:
    """Draw the pairs of all three splits; no pair occurs twice.

    Returns:
        `train`, `dev` and `test`, each with equally many pairs of every label.
    """
    rng = random.Random(SEED)
    drawn: set[tuple[str, str]] = set()
    pairs_by_split: dict[str, list[Pair]] = {}
    for split, pairs_per_label in PAIRS_PER_LABEL.items():
        pairs: list[Pair] = []
        for label in LABELS:
            slots: list[tuple[str, str]] = []
            wanted = len(pairs) + pairs_per_label
            while len(pairs) < wanted:
                slots = slots or rng.sample(hypotheses(), len(hypotheses()))
                pair = draw(*slots.pop(), label, rng)
                # Two roles may be worded alike, so the text is compared.
                text = (render(pair.premise, "en"), render(pair.hypothesis, "en"))
                if text not in drawn:
                    drawn.add(text)
                    pairs.append(pair)
        rng.shuffle(pairs)
        pairs_by_split[split] = pairs
    return pairs_by_split


def files() -> dict[str, str]:
    """Build every data file.

    Returns:
        File name to content: `premise<TAB>hypothesis<TAB>label` lines, as XTREME has them.
    """
    contents = {}
    for split, pairs in splits().items():
        for language in ("en",) if split == "train" else LANGUAGES:
            rows = [
                (render(pair.premise, language), render(pair.hypothesis, language), pair.label)
                for pair in pairs
            ]
            contents[f"{split}-{language}.tsv"] = "".join("\t".join(row) + "\n" for row in rows)
    return contents


def main() -> None:
    """Write the data folder again."""
    DATA_FOLDER.mkdir(exist_ok=True)
    for name, content in files().items():
        (DATA_FOLDER / name).write_text(content, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
