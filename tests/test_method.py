"""The loss terms and their gradients against the equations, written out example by example."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.core_models import padded, random_texts, tiny_classifier
from xlt_ray.method import TERMS, Objective, embedding_distance, pull_loss, push_loss
from xlt_ray.spec import MethodSpec

TOLERANCE = 1e-5

PAPER = MethodSpec(pull_layer=1)
MARGIN = MethodSpec(push_margin=0.15, push_weight=0.7, pull_weight=20.0, pull_layer=0)
RELATIVE = MethodSpec(push_distance="relative", push_weight=0.5, pull_weight=3.0, pull_layer=1)
RELATIVE_MARGIN = MethodSpec(
    push_distance="relative", push_margin=0.3, push_weight=2.0, pull_weight=0.0, pull_layer=0
)
SHAPES = {
    "one short pair": ([3], [2]),
    "equal lengths": ([6, 6], [6, 6]),
    "views shorter and longer": ([9, 4, 7], [5, 4, 11]),
    "padding on both sides": ([3, 12, 5, 8], [7, 2, 5, 10]),
}


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
    terms: dict[str, list[Tensor]] = {name: [] for name in (*TERMS, "distance", "total")}
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
        wide = torch.zeros(len(of_text), max(n, m), max(n, m), dtype=torch.float64)
        in_text, in_view = wide.clone(), wide.clone()
        in_text[:, :n, :n] = of_text[:, :n, :n]
        in_view[:, :m, :m] = of_view[:, :m, :m]
        pull = ((in_text - in_view) ** 2).mean()
        total = sum(negative_log) + method.push_weight * push + method.pull_weight * pull
        values = (*negative_log, push, pull, distance, total)
        for name, value in zip(terms, values, strict=True):
            terms[name].append(value)
    return {name: torch.stack(values) for name, values in terms.items()}


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


@pytest.mark.parametrize("method", [PAPER, MARGIN, RELATIVE, RELATIVE_MARGIN])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_terms_and_gradients_follow_the_equations(
    family: str, shape: str, method: MethodSpec
) -> None:
    lengths, view_lengths = SHAPES[shape]
    texts, views = random_texts(lengths, seed=5), random_texts(view_lengths, seed=6)
    labels = torch.arange(len(texts)) % 3
    model = tiny_classifier(family, hidden=32 if family == "bert" else 48)
    naive = copy.deepcopy(model).double()
    naive.set_attn_implementation("eager")

    expected = reference(naive, texts, views, labels, method)
    found = Objective(model, method)(**padded([*texts, *views]), labels=labels)
    assert set(found) == set(expected)
    whole = expected["total"].norm().item()
    worst = {name: deviation(found[name], value, whole) for name, value in expected.items()}
    assert max(worst.values()) < TOLERANCE, worst

    expected["total"].mean().backward()
    found["total"].mean().backward()
    gradients = {name: p.grad for name, p in naive.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    whole = max(gradient.norm().item() for gradient in gradients.values())
    worst = {
        name: deviation(p.grad, gradients[name], whole) for name, p in model.named_parameters()
    }
    assert max(worst.values()) < TOLERANCE, sorted(worst.items(), key=lambda item: -item[1])


def test_margin_cases_cover_both_sides_of_the_margin() -> None:
    """The comparison above would be blind if every view were on one side of the margin."""
    texts, views = random_texts([3, 12, 5, 8], seed=5), random_texts([7, 2, 5, 10], seed=6)
    for method in (MARGIN, RELATIVE_MARGIN):
        objective = Objective(tiny_classifier("bert"), method)
        push = objective(**padded([*texts, *views]), labels=torch.zeros(4, dtype=torch.long))
        assert (push["push"] == 0).any() and (push["push"] > 0).any(), push["push"]


def test_terms_on_hand_worked_numbers() -> None:
    text, view = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 4.0]])
    distance = embedding_distance(text, view)
    assert distance.item() == pytest.approx((1 + 4) / 2)
    assert embedding_distance(text, view, "relative").item() == pytest.approx(2.5 / 2.5)
    assert push_loss(distance, None).item() == -2.5
    assert push_loss(distance, 3.0).item() == 0.5
    assert push_loss(distance, 2.0).item() == 0
    # One head; the text has two tokens, its view one: of 2 x 2 pairs three are missing from it.
    original = torch.tensor([[[[0.75, 0.25], [0.5, 0.5]]]])
    other = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    masks = torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    expected = (0.25**2 + 0.25**2 + 0.5**2 + 0.5**2) / 4
    assert pull_loss(original, other, *masks).item() == pytest.approx(expected)


def test_no_gradient_flows_through_the_relative_distance_s_denominator() -> None:
    text = torch.tensor([[1.0, 2.0]], requires_grad=True)
    view = torch.tensor([[2.0, 4.0]])
    embedding_distance(text, view, "relative").sum().backward()
    # d/dx of mean((view - x)^2) is (x - view); the mean square of the text is 2.5.
    torch.testing.assert_close(text.grad, torch.tensor([[-1.0, -2.0]]) / 2.5)


def test_plain_method_is_the_classification_loss_alone() -> None:
    model = tiny_classifier("bert")
    texts, labels = random_texts([5, 8], seed=7), torch.tensor([2, 0])
    terms = Objective(model, MethodSpec(name="plain"))(**padded(texts), labels=labels)
    expected = [
        torch.nn.functional.cross_entropy(model(**padded([text])).logits, label[None])
        for text, label in zip(texts, labels, strict=True)
    ]
    assert set(terms) == {"classification", "total"}
    for value in terms.values():
        torch.testing.assert_close(value, torch.stack(expected))


def test_embeddings_are_taken_before_dropout() -> None:
    """In training mode two equal texts differ by dropout alone, and are at distance 0."""
    objective = Objective(tiny_classifier("bert"), PAPER).train()
    text = random_texts([7], seed=8)
    terms = objective(**padded([*text, *text]), labels=torch.tensor([1]))
    assert terms["distance"].item() == 0
    assert terms["classification"].item() != terms["robust"].item()


@pytest.fixture(scope="module")
def objective() -> Objective:
    return Objective(tiny_classifier("xlm-roberta"), RELATIVE)


lengths = st.lists(st.integers(2, 12), min_size=1, max_size=5)


@settings(max_examples=15, deadline=None)
@given(lengths, st.integers(0, 2**31))
def test_view_that_changes_nothing_costs_nothing(
    objective: Objective, sizes: list[int], seed: int
) -> None:
    texts = random_texts(sizes, seed)
    terms = objective(**padded([*texts, *texts]), labels=torch.arange(len(sizes)) % 3)
    assert terms["push"].abs().max() < 1e-10
    assert terms["pull"].abs().max() < 1e-10
    torch.testing.assert_close(terms["robust"], terms["classification"], rtol=1e-5, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.integers(2, 12), st.integers(2, 12)), min_size=1, max_size=5),
    st.integers(0, 2**31),
    st.integers(0, 9),
    st.randoms(use_true_random=False),
)
def test_neither_order_nor_padding_changes_an_example_s_losses(
    objective: Objective, sizes: list[tuple[int, int]], seed: int, extra: int, random: Any
) -> None:
    texts = random_texts([size for size, _ in sizes], seed)
    views = random_texts([size for _, size in sizes], seed + 1)
    labels = torch.arange(len(sizes)) % 3
    before = objective(**padded([*texts, *views]), labels=labels)
    order = list(range(len(sizes)))
    random.shuffle(order)
    shuffled = [texts[i] for i in order] + [views[i] for i in order]
    after = objective(**padded(shuffled, extra), labels=labels[order])
    for name, value in before.items():
        torch.testing.assert_close(after[name], value[order], rtol=1e-4, atol=1e-5, msg=name)


@given(
    st.floats(0, 10, width=32),
    st.lists(st.floats(0, 20, width=32), min_size=2, max_size=8),
)
def test_push_falls_with_the_distance_and_is_flat_beyond_the_margin(
    margin: float, distances: list[float]
) -> None:
    distance = torch.tensor(sorted(distances), requires_grad=True)
    unbounded, bounded = push_loss(distance, None), push_loss(distance, margin)
    assert (unbounded.diff() <= 0).all() and (bounded.diff() <= 0).all()
    assert (bounded >= 0).all()
    (gradient,) = torch.autograd.grad(bounded.sum(), distance)
    (slope,) = torch.autograd.grad(unbounded.sum(), distance)
    beyond, within = distance > margin, distance < margin
    assert (bounded[beyond] == 0).all() and (gradient[beyond] == 0).all()
    # Within the margin both pull at the model alike.
    assert torch.equal(gradient[within], slope[within])
    assert (slope == -1).all()
