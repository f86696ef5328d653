"""Writes the demo task's sentence pairs from the lexicon.

Run `python -m xlt_ray.demo.generate` after editing a file in `lexicon/`. The output depends on
the lexicon and `SEED` only, so running it twice writes the same bytes.

Labels are never written by hand: an event or relation is a set of sentences in fixed roles, and
the roles of premise and hypothesis say which label a pair has. Every hypothesis is drawn equally
often with each of the three labels, so the hypothesis alone says nothing about the label.
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

# Role of the hypothesis -> label -> roles of the premise.
_EVENT_PREMISES = {
    "general": {
        "entailment": ("specific", "variant"),
        "contradiction": ("opposite", "opposite_specific"),
    },
    "specific": {
        "neutral": ("general", "variant"),
        "contradiction": ("opposite", "opposite_specific"),
    },
    "variant": {
        "neutral": ("general", "specific"),
        "contradiction": ("opposite", "opposite_specific"),
    },
    "opposite": {
        "entailment": ("opposite_specific",),
        "contradiction": ("general", "specific", "variant"),
    },
    "opposite_specific": {
        "neutral": ("opposite",),
        "contradiction": ("general", "specific", "variant"),
    },
}
_RELATION_PREMISES = {
    "forward": {
        "entailment": ("inverse", "detail"),
        "contradiction": ("opposite", "opposite_inverse"),
    },
    "inverse": {
        "entailment": ("forward", "detail"),
        "contradiction": ("opposite", "opposite_inverse"),
    },
    "detail": {
        "neutral": ("forward", "inverse"),
        "contradiction": ("opposite", "opposite_inverse"),
    },
    "opposite": {
        "entailment": ("opposite_inverse",),
        "contradiction": ("forward", "inverse", "detail"),
    },
    "opposite_inverse": {
        "entailment": ("opposite",),
        "contradiction": ("forward", "inverse", "detail"),
    },
}


@dataclass(frozen=True)
class Sentence:
    """What one sentence says, in no particular language.

    Attributes:
        topic: key of an event or a relation.
        role: which of the topic's five sentences.
        subject: key of the person `$s`.
        other: key of the person `$o`; empty for an event.
        time: key of the time `$t`; empty for none.
    """

    topic: str
    role: str
    subject: str
    other: str = ""
    time: str = ""


@dataclass(frozen=True)
class Pair:
    """A premise, a hypothesis and the label that holds between them."""

    premise: Sentence
    hypothesis: Sentence
    label: str


@cache
def lexicon(name: str) -> dict[str, Any]:
    """Reads `lexicon/<name>.yaml`."""
    text = (LEXICON_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    entries: dict[str, Any] = yaml.safe_load(text)
    return entries


def render(sentence: Sentence, language: str) -> str:
    """Writes a sentence in a language.

    Args:
        sentence: what to say.
        language: one of `LANGUAGES`.

    Returns:
        The sentence, capitalised and with its full stop.
    """
    topic = lexicon("events").get(sentence.topic) or lexicon("relations")[sentence.topic]
    words = {"t": lexicon("times")[sentence.time][language] if sentence.time else ""}
    for slot, person in (("s", sentence.subject), ("o", sentence.other)):
        if person:
            forms = lexicon("people")[person][language]
            forms = {"nom": forms} if isinstance(forms, str) else forms
            words[slot] = forms["nom"]
            words.update({f"{slot}_{case}": form for case, form in forms.items()})
    text = Template(topic[sentence.role][language]).substitute(words)
    text = re.sub(r" +(?=,)", "", " ".join(text.split()))
    return text[0].upper() + text[1:] + _FULL_STOP.get(language, ".")


def _takes_time(topic: str) -> bool:
    entry = lexicon("events").get(topic) or lexicon("relations")[topic]["forward"]
    return "$t" in str(entry)


def hypotheses() -> list[tuple[str, str, bool]]:
    """Lists every (topic, role, with a time or not) that can be a hypothesis of every label.

    A narrow sentence is entailed only by itself with a time added, so it never carries the time.
    """
    slots = []
    for topic in [*lexicon("events"), *lexicon("relations")]:
        premises = _EVENT_PREMISES if topic in lexicon("events") else _RELATION_PREMISES
        for role, by_label in premises.items():
            if "entailment" in by_label or _takes_time(topic):
                slots.append((topic, role, False))
            if "entailment" in by_label and _takes_time(topic):
                slots.append((topic, role, True))
    return slots


def draw(topic: str, role: str, timed: bool, label: str, rng: random.Random) -> Pair:
    """Draws people, a time and a premise for a hypothesis that is to have the given label."""
    subject, other, stranger = rng.sample(sorted(lexicon("people")), 3)
    time = rng.choice(sorted(lexicon("times")))
    is_event = topic in lexicon("events")
    independent = [event for event, entry in lexicon("events").items() if "independent" in entry]
    premise_roles = (_EVENT_PREMISES if is_event else _RELATION_PREMISES)[role]

    hypothesis = Sentence(topic, role, subject, "" if is_event else other, time if timed else "")
    # Dropping the time keeps an entailment or contradiction, so the premise may have one more.
    premise_time = time if timed or (_takes_time(topic) and rng.random() < 0.5) else ""
    premises = [
        replace(hypothesis, role=premise_role, time=premise_time)
        for premise_role in premise_roles.get(label, ())
    ]
    if label == "entailment" and _takes_time(topic) and not timed:
        premises.append(replace(hypothesis, time=time))
    if label == "neutral":
        same_side = [
            replace(hypothesis, role=same_role, time=premise_time)
            for same_role in (role, *premise_roles.get("entailment", ()))
        ]
        if timed:
            premises += [replace(premise, time="") for premise in same_side]
        if is_event:
            any_role = replace(hypothesis, role=rng.choice(list(_EVENT_PREMISES)))
            premises.append(replace(any_role, subject=stranger))
            if topic in independent:
                unrelated = rng.choice([event for event in independent if event != topic])
                # Half of the neutral pairs, as contradictions share few words with theirs too.
                premises += [replace(any_role, topic=unrelated)] * len(premises)
        elif lexicon("relations")[topic]["exchange"] == "neutral":
            premises += [replace(premise, subject=other, other=subject) for premise in same_side]
        else:
            premises += [replace(premise, other=stranger) for premise in same_side]
    return Pair(rng.choice(premises), hypothesis, label)


def splits() -> dict[str, list[Pair]]:
    """Draws the pairs of all three splits; no pair occurs twice.

    Returns:
        `train`, `dev` and `test`, each with equally many pairs of every label.
    """
    rng = random.Random(SEED)
    drawn: set[tuple[str, str]] = set()
    pairs_by_split = {}
    for split, pairs_per_label in PAIRS_PER_LABEL.items():
        pairs = []
        for label in LABELS:
            slots: list[tuple[str, str, bool]] = []
            wanted = len(pairs) + pairs_per_label
            while len(pairs) < wanted:
                slots = slots or rng.sample(hypotheses(), len(hypotheses()))
                pair = draw(*slots.pop(), label, rng)
                # Two roles of a relation may be worded alike, so the text is compared.
                text = (render(pair.premise, "en"), render(pair.hypothesis, "en"))
                if text not in drawn:
                    drawn.add(text)
                    pairs.append(pair)
        rng.shuffle(pairs)
        pairs_by_split[split] = pairs
    return pairs_by_split


def files() -> dict[str, str]:
    """Builds every data file.

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
    """Rewrites the data folder."""
    DATA_FOLDER.mkdir(exist_ok=True)
    for name, content in files().items():
        (DATA_FOLDER / name).write_text(content, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
