"""The loss terms and their gradients against the equations, and against the authors' computation.

`python -m tests.unit.method.test_objective` prints how far they are from both.
"""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.support.core_models import padded, random_texts, tiny_classifier
from xlt_ray.config.method import PRESETS, MethodName, MethodSpec
from xlt_ray.method.losses import TERMS
from xlt_ray.method.noise_view import AdversarialView, RandomView
from xlt_ray.method.objective import Objective

TOLERANCE = 1e-5

PAPER = MethodSpec(pull_layer=1)
MARGIN = MethodSpec(
    robust_weight=0.4, push_margin=0.15, push_weight=0.7, pull_weight=20.0, pull_layer=0
)
RELATIVE = MethodSpec(push_distance="relative", push_weight=0.5, pull_weight=3.0, pull_layer=1)
RELATIVE_MARGIN = MethodSpec(
    push_distance="relative", push_margin=0.3, push_weight=2.0, pull_weight=0.0, pull_layer=0
)
WORDS = MethodSpec(pull_alignment="word", pull_weight=7.0, pull_layer=1)
CONSISTENT = MethodSpec(consistency_weight=3.0, robust_weight=0.5, pull_layer=1)
EQUATIONS = (PAPER, MARGIN, RELATIVE, RELATIVE_MARGIN, WORDS, CONSISTENT)
AUTHORS = (
    MethodSpec(reduction="padded", pull_layer=1),
    MethodSpec(
        reduction="padded", robust_weight=0.4, push_weight=2.0, pull_weight=50.0, pull_layer=0
    ),
)
FAMILIES = ("bert", "xlm-roberta")
SHAPES = {
    "one short pair": ([3], [2]),
    "equal lengths": ([6, 6], [6, 6]),
    "views shorter and longer": ([9, 4, 7], [5, 4, 11]),
    "padding on both sides": ([3, 12, 5, 8], [7, 2, 5, 10]),
    "no padding": ([16, 16, 16], [16, 16, 16]),
}
MAX_LENGTH = 16
"""What `reduction: padded` pads to."""


def words_of(text: Sequence[int]) -> list[int]:
    """Word numbers of a random text: a word begins at each even token id."""
    return list(itertools.accumulate(int(token % 2 == 0) for token in text))


def inputs_of(
    texts: Sequence[Sequence[int]],
    views: Sequence[Sequence[int]],
    method: MethodSpec,
    extra: int = 0,
    packed: bool = True,
) -> dict[str, Tensor]:
    """The objective's inputs, `extra` positions wider than need be; packed where that may be."""
    rows = [*texts, *views]
    width = max(map(len, rows)) + extra
    if method.reduction == "padded":
        width = MAX_LENGTH
    inputs = padded(rows, width - max(map(len, rows)))
    if method.pull_alignment == "word":
        numbers = [words_of(row) for row in rows]
        inputs["words"] = torch.tensor([row + [-1] * (width - len(row)) for row in numbers])
    if packed and method.reduction == "tokens":
        inputs["tokens"] = inputs["attention_mask"].flatten().nonzero().squeeze(1)
    return inputs


def naive_pool(maps: Tensor, words: Sequence[int]) -> dict[tuple[int, int], Tensor]:
    """Attention between every two words that there are, a word pair at a time, each (heads,)."""
    pooled = {}
    for one, other in itertools.product(sorted(set(words)), repeat=2):
        of_one = [i for i, word in enumerate(words) if word == one]
        of_other = [j for j, word in enumerate(words) if word == other]
        rows = [sum(maps[:, i, j] for j in of_other) for i in of_one]
        pooled[one, other] = torch.stack(rows).mean(0)
    return pooled


def naive_word_pull(
    of_text: Tensor, of_view: Tensor, text: Sequence[int], view: Sequence[int]
) -> Tensor:
    in_text, in_view = naive_pool(of_text, words_of(text)), naive_pool(of_view, words_of(view))
    missing = torch.zeros(len(of_text), dtype=of_text.dtype)
    words = {one for one, _ in (*in_text, *in_view)}
    differences = [
        in_text.get(pair, missing) - in_view.get(pair, missing)
        for pair in itertools.product(words, repeat=2)
    ]
    return torch.stack(differences).square().mean()


def reference(
    model: Any,
    texts: Sequence[Sequence[int]],
    views: Sequence[Sequence[int]],
    labels: Tensor,
    method: MethodSpec,
) -> dict[str, Tensor]:
    """The terms of each example in float64, from two forward passes with all maps kept."""
    outputs = [
        model(**padded(side), output_attentions=True, output_hidden_states=True)
        for side in (texts, views)
    ]
    names = [name for name in TERMS if name != "consistency" or method.consistency_weight]
    terms: dict[str, list[Tensor]] = {name: [] for name in (*names, "distance", "total")}
    for i, (text, view) in enumerate(zip(texts, views, strict=True)):
        n, m = len(text), len(view)
        negative_log = [-out.logits[i].log_softmax(-1)[labels[i]] for out in outputs]
        e_text = outputs[0].hidden_states[0][i, :n].mean(0)
        e_view = outputs[1].hidden_states[0][i, :m].mean(0)
        distance = ((e_view - e_text) ** 2).mean()
        if method.push_distance == "relative":
            distance = distance / (e_text**2).mean().item()
        push = -distance
        if method.push_margin is not None:
            left = method.push_margin - distance
            push = left if left > 0 else left * 0
        of_text, of_view = (out.attentions[method.pull_layer][i] for out in outputs)
        if method.pull_alignment == "word":
            pull = naive_word_pull(of_text, of_view, text, view)
        else:
            wide = torch.zeros(len(of_text), max(n, m), max(n, m), dtype=torch.float64)
            in_text, in_view = wide.clone(), wide.clone()
            in_text[:, :n, :n] = of_text[:, :n, :n]
            in_view[:, :m, :m] = of_view[:, :m, :m]
            pull = ((in_text - in_view) ** 2).mean()
        classification, robust = negative_log
        total = classification + method.robust_weight * robust
        total = total + method.push_weight * push + method.pull_weight * pull
        values = {
            "classification": classification,
            "robust": robust,
            "push": push,
            "pull": pull,
            "distance": distance,
        }
        if method.consistency_weight:
            p, q = (out.logits[i].softmax(-1) for out in outputs)
            values["consistency"] = (p * (p / q).log()).sum() + (q * (q / p).log()).sum()
            total = total + method.consistency_weight * values["consistency"]
        for name, value in (values | {"total": total}).items():
            terms[name].append(value)
    return {name: torch.stack(values) for name, values in terms.items()}


def authors_reference(
    model: Any,
    texts: Sequence[Sequence[int]],
    views: Sequence[Sequence[int]],
    labels: Tensor,
    method: MethodSpec,
) -> dict[str, Tensor]:
    """The terms of a batch in float64 as the authors compute them.

    Two forward passes over inputs padded to the greatest length, all maps and hidden states kept,
    and every mean taken over all positions, padding included.
    """
    text, view = (
        model(
            **padded(side, MAX_LENGTH - max(map(len, side))),
            output_attentions=True,
            output_hidden_states=True,
        )
        for side in (texts, views)
    )
    cross_entropy, mean_square = torch.nn.functional.cross_entropy, torch.nn.functional.mse_loss
    terms = {
        "classification": cross_entropy(text.logits, labels),
        "robust": cross_entropy(view.logits, labels),
        "push": -mean_square(text.hidden_states[0].mean(1), view.hidden_states[0].mean(1)),
        "pull": mean_square(text.attentions[method.pull_layer], view.attentions[method.pull_layer]),
    }
    total = terms["classification"] + method.robust_weight * terms["robust"]
    total = total + method.push_weight * terms["push"] + method.pull_weight * terms["pull"]
    return {**terms, "distance": -terms["push"], "total": total}


def deviation(found: Tensor, expected: Tensor, whole: float) -> float:
    """L2 norm of the difference relative to the expected value's.

    Args:
        found: Of any shape.
        expected: Likewise, float64.
        whole: Scale of all values together. What is 0 in theory, such as the gradient of a key's
            bias, which cancels in the softmax, is rounding error of things of this size.
    """
    scale = expected.norm().item()
    return (found.double() - expected).norm().item() / (scale if scale > 1e-9 * whole else whole)


@functools.cache
def deviations(
    family: str, shape: str, method: MethodSpec, packed: bool = True
) -> tuple[dict[str, float], ...]:
    """Relative deviations of the objective, in float32, from its reference.

    Returns:
        Those of the losses by term, and those of the gradients by parameter.
    """
    lengths, view_lengths = SHAPES[shape]
    texts, views = random_texts(lengths, seed=5), random_texts(view_lengths, seed=6)
    labels = torch.arange(len(texts)) % 3
    model = tiny_classifier(family, hidden=32 if family == "bert" else 48)
    naive = copy.deepcopy(model).double()
    naive.set_attn_implementation("eager")

    objective = Objective(model, method)
    assert objective.packing.supported
    found = objective(**inputs_of(texts, views, method, packed=packed), labels=labels)
    if method.reduction == "padded":
        expected = authors_reference(naive, texts, views, labels, method)
        found = {name: value.mean() for name, value in found.items()}
    else:
        expected = reference(naive, texts, views, labels, method)
    assert set(found) == set(expected)
    whole = expected["total"].norm().item()
    losses = {name: deviation(found[name], value, whole) for name, value in expected.items()}

    expected["total"].mean().backward()
    found["total"].mean().backward()
    gradients = {name: p.grad for name, p in naive.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    whole = max(gradient.norm().item() for gradient in gradients.values())
    return losses, {
        name: deviation(p.grad, gradients[name], whole) for name, p in model.named_parameters()
    }


def largest_deviation(methods: Sequence[MethodSpec] = EQUATIONS + AUTHORS) -> tuple[float, float]:
    """The largest relative deviations of any loss and of any parameter's gradient in any case."""
    cases = [deviations(*case) for case in itertools.product(FAMILIES, SHAPES, methods)]
    losses, gradients = (
        max(value for case in cases for value in case[which].values()) for which in (0, 1)
    )
    return losses, gradients


@pytest.mark.parametrize(
    ("method", "packed"),
    [(method, True) for method in EQUATIONS + AUTHORS] + [(method, False) for method in EQUATIONS],
)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_terms_and_gradients_are_the_references(
    family: str, shape: str, method: MethodSpec, packed: bool
) -> None:
    for found in deviations(family, shape, method, packed):
        assert max(found.values()) < TOLERANCE, sorted(found.items(), key=lambda item: -item[1])


def test_largest_deviation_is_rounding() -> None:
    assert all(0 < value < TOLERANCE for value in largest_deviation())


def test_padding_counts_in_the_padded_reduction() -> None:
    """Equality with the authors' means would say little if both reductions were alike."""
    texts, views = (random_texts(side, seed=5) for side in SHAPES["padding on both sides"])
    labels = torch.zeros(len(texts), dtype=torch.long)
    for layer in (0, 1):
        real, all_positions = (
            Objective(tiny_classifier("bert"), method)(
                **inputs_of(texts, views, method), labels=labels
            )
            for method in (
                MethodSpec(pull_layer=layer),
                MethodSpec(pull_layer=layer, reduction="padded"),
            )
        )
        for term in ("push", "pull"):
            ratio = all_positions[term] / real[term]
            assert ((ratio < 0.95) | (ratio > 1.05)).all(), (term, ratio)


def test_margin_cases_cover_both_sides_of_the_margin() -> None:
    """The comparison above would be blind if every view were on one side of the margin."""
    texts, views = random_texts([3, 12, 5, 8], seed=5), random_texts([7, 2, 5, 10], seed=6)
    for method in (MARGIN, RELATIVE_MARGIN):
        objective = Objective(tiny_classifier("bert"), method)
        push = objective(**padded([*texts, *views]), labels=torch.zeros(4, dtype=torch.long))
        assert (push["push"] == 0).any() and (push["push"] > 0).any(), push["push"]


WEIGHTS = {"classification": 1.0, "robust": 2.0, "push": 0.3, "pull": 5.0}
METHODS: dict[MethodName, tuple[str, ...]] = {
    "plain": ("classification",),
    "plain-long": ("classification",),
    "rs-da": ("classification", "robust"),
    "rs-rp": ("classification", "robust"),
    "adv": ("classification", "robust"),
    "ear": ("classification", "robust", "push", "pull"),
    "ear-no-push": ("classification", "robust", "pull"),
    "ear-no-pull": ("classification", "robust", "push"),
    "ear-no-robust": ("classification", "push", "pull"),
}
STEPS = 3


def test_every_method_is_compared_below() -> None:
    assert set(METHODS) == set(PRESETS)


@pytest.mark.parametrize("name", METHODS)
def test_method_is_the_weighted_sum_of_its_terms_in_one_forward_pass(name: MethodName) -> None:
    texts, labels = random_texts([5, 8, 3], seed=7), torch.tensor([2, 0, 1])
    views = random_texts([6, 7, 3], seed=8)
    model = tiny_classifier("bert")
    weights = {f"{term}_weight": WEIGHTS[term] for term in ("robust", "push", "pull")}
    method = MethodSpec(name=name, pull_layer=1, **weights)
    view = {"rs-rp": RandomView(0.5), "adv": AdversarialView(0.5, STEPS)}.get(name)
    noise: dict[str, Tensor] = {}
    if view is not None:
        views = texts
        noise["perturbed"] = padded(texts)["attention_mask"].bool()
        noise["seeds"] = torch.arange(3)
    elif not PRESETS[name].terms:
        views = []
    objective = Objective(model, method, view)
    rows: list[int] = []
    model.register_forward_hook(lambda *call: rows.append(len(call[2].logits)))
    terms = objective(**padded([*texts, *views]), labels=labels, **noise)
    # One pass over texts and views; before it, the steps of the ascent over the texts.
    assert rows == {"plain": [3], "plain-long": [3], "adv": [3] * STEPS + [6]}.get(name, [6])

    beside = {"total", "distance"} if "push" in METHODS[name] else {"total"}
    assert set(terms) == {*METHODS[name], *beside}
    expected = sum(WEIGHTS[term] * terms[term] for term in METHODS[name])
    torch.testing.assert_close(terms["total"], expected)

    one_by_one = [model(**padded([text])).logits for text in texts]
    torch.testing.assert_close(
        terms["classification"],
        torch.nn.functional.cross_entropy(torch.cat(one_by_one), labels, reduction="none"),
    )
    if view is None and views:
        ear = Objective(tiny_classifier("bert"), MethodSpec(pull_layer=1))
        whole = ear(**padded([*texts, *views]), labels=labels)
        for term in METHODS[name]:
            torch.testing.assert_close(terms[term], whole[term])


def test_smoothed_labels_are_soft_targets() -> None:
    """Text and view alike, against the cross-entropy with the distribution written out."""
    model, texts, views = tiny_classifier("bert"), [[5, 6, 7], [8, 9, 10]], [[5, 6], [8, 11, 10]]
    labels, smoothing = torch.tensor([2, 0]), 0.3
    objective = Objective(model, MethodSpec(pull_layer=1), label_smoothing=smoothing).eval()
    terms = objective(**inputs_of(texts, views, objective.method), labels=labels)
    classes = model.config.num_labels
    targets = torch.full((2, classes), smoothing / classes)
    targets[torch.arange(2), labels] += 1 - smoothing
    for name, side in (("classification", texts), ("robust", views)):
        logits = model(**padded(side)).logits
        expected = -(targets * logits.log_softmax(-1)).sum(-1)
        torch.testing.assert_close(terms[name], expected, rtol=TOLERANCE, atol=TOLERANCE)
        plain = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        assert (terms[name] - plain).abs().min() > 1e-3


def test_embeddings_are_taken_before_dropout() -> None:
    """In training mode two equal texts differ by dropout alone, and are at distance 0."""
    objective = Objective(tiny_classifier("bert"), PAPER).train()
    text = random_texts([7], seed=8)
    terms = objective(**padded([*text, *text]), labels=torch.tensor([1]))
    assert terms["distance"].item() == 0
    assert terms["classification"].item() != terms["robust"].item()


VIEWS = {
    "synonyms": RELATIVE,
    "words": MethodSpec(pull_alignment="word", pull_layer=1),
    "random": MethodSpec(view={"kind": "random"}, pull_layer=1),
    "adversarial": MethodSpec(view={"kind": "adversarial"}, pull_layer=1),
}
"""Kinds of views and of alignment."""


@functools.cache
def objective_of(kind: str, radius: float) -> Objective:
    """An objective over that kind of views; the radius is that of noise."""
    view = {"random": RandomView(radius), "adversarial": AdversarialView(radius, 2)}.get(kind)
    return Objective(tiny_classifier("xlm-roberta"), VIEWS[kind], view)


Example = tuple[list[int], list[int], int, int]
"""Text, view, label and seed of the noise."""


def terms_of(
    kind: str, examples: Sequence[Example], extra: int = 0, radius: float = 0.3
) -> dict[str, Tensor]:
    """The terms of a batch; noise spares the first and the last token of a text."""
    objective = objective_of(kind, radius)
    texts, views, labels, seeds = map(list, zip(*examples, strict=True))
    noise: dict[str, Tensor] = {}
    if objective.view is not None:
        views = texts
        width = max(map(len, texts)) + extra
        position = torch.arange(width)
        ends = torch.tensor([[len(text) - 1] for text in texts])
        noise = {"perturbed": (position > 0) & (position < ends), "seeds": torch.tensor(seeds)}
    inputs = inputs_of(texts, views, VIEWS[kind], extra)
    terms: dict[str, Tensor] = objective(**inputs, labels=torch.tensor(labels), **noise)
    return {name: value.detach() for name, value in terms.items()}


def examples_of(sizes: Sequence[tuple[int, int]], seed: int) -> list[Example]:
    texts = random_texts([size for size, _ in sizes], seed)
    views = random_texts([size for _, size in sizes], seed + 1)
    return [(text, views[i], i % 3, seed + i) for i, text in enumerate(texts)]


any_seed = st.integers(0, 2**31)


@pytest.mark.parametrize("kind", VIEWS)
@settings(max_examples=10)
@given(sizes=st.lists(st.integers(2, 12), min_size=1, max_size=5), seed=any_seed)
def test_view_of_radius_0_costs_nothing(kind: str, sizes: list[int], seed: int) -> None:
    examples = examples_of([(size, size) for size in sizes], seed)
    same = [(text, text, label, own) for text, _, label, own in examples]
    terms = terms_of(kind, same, radius=0.0)
    assert terms["push"].abs().max() < 1e-10
    assert terms["pull"].abs().max() < 1e-10
    torch.testing.assert_close(terms["robust"], terms["classification"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", VIEWS)
@settings(max_examples=10)
@given(
    sizes=st.lists(st.tuples(st.integers(2, 12), st.integers(2, 12)), min_size=1, max_size=5),
    seed=any_seed,
    extra=st.integers(0, 9),
    random=st.randoms(use_true_random=False),
)
def test_neither_order_nor_padding_nor_company_changes_an_example_s_losses(
    kind: str, sizes: list[tuple[int, int]], seed: int, extra: int, random: Any
) -> None:
    examples = examples_of(sizes, seed)
    before = terms_of(kind, examples)
    chosen = random.sample(range(len(sizes)), random.randint(1, len(sizes)))
    after = terms_of(kind, [examples[i] for i in chosen], extra)
    for name, value in before.items():
        torch.testing.assert_close(
            after[name],
            value[chosen],
            rtol=1e-4,
            atol=1e-5,
            msg=lambda message, name=name: f"{name}: {message}",
        )


if __name__ == "__main__":
    for title, methods in (("equations", EQUATIONS), ("authors' computation", AUTHORS)):
        losses, gradients = largest_deviation(methods)
        print(f"{title}: losses {losses:.1e}, gradients {gradients:.1e}")
