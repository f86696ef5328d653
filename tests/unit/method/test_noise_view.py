"""Noise on word embeddings: where it may be, how it is distributed, what it depends on."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, kstest
from torch import Tensor

from tests.support.core_models import PAD, VOCABULARY, padded, random_texts, tiny_classifier
from xlt_ray.config.method import MethodName, MethodSpec
from xlt_ray.data.vocabulary import Vocabulary
from xlt_ray.method.noise_view import (
    AdversarialView,
    RandomView,
    embedding_view,
    mean_norm,
    project,
    uniform_in_ball,
)
from xlt_ray.method.objective import Objective
from xlt_ray.method.synonym_view import draw_seed

radii = st.one_of(st.just(0.0), st.floats(1e-6, 1e4))
any_seed = st.integers(0, 2**62)
batches = st.lists(st.lists(st.booleans(), min_size=1, max_size=9), min_size=1, max_size=5)


def masks(rows: Sequence[Sequence[bool]], extra: int = 0) -> Tensor:
    """Which positions hold words (batch, tokens), `extra` positions wider than need be."""
    width = max(map(len, rows)) + extra
    return torch.tensor([[*row, *[False] * (width - len(row))] for row in rows])


def linear(slope: Tensor) -> Any:
    """A loss that is linear in the noise, with that slope (batch, tokens, hidden)."""
    return lambda noise: (noise * slope).sum((1, 2))


def slope_of(words: Tensor, hidden: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed % 2**31)
    return torch.randn(*words.shape, hidden, generator=draw)


@pytest.mark.parametrize("steps", [0, 1, 3])
@settings(max_examples=25)
@given(rows=batches, radius=radii, hidden=st.sampled_from([1, 2, 7, 64]), seed=any_seed)
def test_noise_is_inside_the_ball_and_on_words_alone(
    steps: int, rows: list[list[bool]], radius: float, hidden: int, seed: int
) -> None:
    view = AdversarialView(radius, steps) if steps else RandomView(radius)
    words = masks(rows)
    seeds = torch.arange(len(rows)) + seed
    noise = view.noise(words, hidden, seeds, linear(slope_of(words, hidden, seed)))
    assert noise.shape == (*words.shape, hidden) and noise.dtype == torch.float32
    norms = noise.double().norm(dim=-1)
    assert (norms <= radius).all()
    assert (noise[~words] == 0).all()
    assert (norms[words] > 0).all() == (radius > 0 or not words.any())


@given(
    st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3), min_size=1),
    st.one_of(st.just(0.0), st.floats(1e-3, 1e5)),
)
def test_projection_moves_what_is_outside_to_the_nearest_point(
    points: list[list[float]], radius: float
) -> None:
    before = torch.tensor(points)
    after = project(before, radius)
    exact = before.double()
    norms = exact.norm(dim=-1, keepdim=True)
    assert (after.double().norm(dim=-1) <= radius).all()
    nearest = exact * (radius / norms.clamp_min(1e-300)).clamp_max(1.0)
    torch.testing.assert_close(after.double(), nearest, rtol=1e-5, atol=1e-6 * max(radius, 1e-3))
    inside = norms.squeeze(-1) < radius * (1 - 1e-5)
    assert torch.equal(after[inside], before[inside])


@pytest.mark.parametrize("hidden", [2, 16])
def test_noise_is_uniform_in_the_ball(hidden: int) -> None:
    radius, rows, tokens = 2.5, 40, 100
    words = torch.ones(rows, tokens, dtype=torch.bool)
    noise = uniform_in_ball(words, hidden, torch.arange(rows), radius).double()
    points = noise.reshape(-1, hidden)
    norms = points.norm(dim=-1)
    # The volume within a distance grows with its power, and so does the number of points.
    assert kstest((norms / radius).numpy() ** hidden, "uniform").pvalue > 0.01
    directions = points / norms[:, None]
    # n * hidden * |mean direction|^2 is chi-squared where every direction is as likely.
    statistic = len(points) * hidden * directions.mean(0).square().sum().item()
    assert statistic < chi2.ppf(0.99, hidden)
    spread = hidden * directions.T @ directions / len(points)
    assert (spread - torch.eye(hidden)).abs().max() < 5 / math.sqrt(len(points)) * 2
    # A direction says nothing of the length.
    correlation = np.corrcoef(np.c_[directions.numpy(), norms.numpy()].T)[-1, :-1]
    assert np.abs(correlation).max() < 4 / math.sqrt(len(points))


@settings(max_examples=25)
@given(
    rows=batches,
    seed=any_seed,
    extra=st.integers(0, 9),
    random=st.randoms(use_true_random=False),
)
def test_noise_depends_on_an_example_alone(
    rows: list[list[bool]], seed: int, extra: int, random: Any
) -> None:
    """To the bit, whatever the batch's order, padding and other examples."""
    seeds = torch.arange(len(rows)) + seed
    whole = uniform_in_ball(masks(rows), 8, seeds, 0.7)
    assert torch.equal(uniform_in_ball(masks(rows), 8, seeds, 0.7), whole)
    chosen = random.sample(range(len(rows)), random.randint(1, len(rows)))
    part = uniform_in_ball(masks([rows[i] for i in chosen], extra), 8, seeds[chosen], 0.7)
    for own, row in zip(part, chosen, strict=True):
        length = len(rows[row])
        assert torch.equal(own[:length], whole[row, :length])
        assert (own[length:] == 0).all()


def test_noise_ignores_the_global_generator_and_leaves_it_alone() -> None:
    words, seeds = torch.ones(2, 5, dtype=torch.bool), torch.tensor([3, 4])
    torch.manual_seed(1)
    first = uniform_in_ball(words, 8, seeds, 1.0)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)
    assert torch.equal(uniform_in_ball(words, 8, seeds, 1.0), first)


def test_noise_is_another_for_every_seed_epoch_and_row() -> None:
    keys = [(seed, epoch, row) for seed in (0, 7) for epoch in range(3) for row in range(20)]
    drawn = [draw_seed(*key) for key in keys]
    assert drawn == [draw_seed(*key) for key in keys]
    assert len(set(drawn)) == len(keys) and all(0 <= value < 2**63 for value in drawn)
    noise = uniform_in_ball(torch.ones(len(keys), 4, dtype=torch.bool), 6, torch.tensor(drawn), 1.0)
    assert len({tuple(row.flatten().tolist()) for row in noise}) == len(keys)
    # Neither do the words of a text share their noise.
    assert len({tuple(word.tolist()) for word in noise.flatten(0, 1)}) == 4 * len(keys)


@settings(max_examples=25)
@given(rows=batches, radius=st.floats(1e-3, 1e3), seed=any_seed)
def test_one_step_up_a_linear_loss_is_worked_out_by_hand(
    rows: list[list[bool]], radius: float, seed: int
) -> None:
    words, hidden = masks(rows), 6
    seeds, slope = torch.arange(len(rows)) + seed, slope_of(words, hidden, seed)
    start = RandomView(radius).noise(words, hidden, seeds, linear(slope)).double()
    found = AdversarialView(radius, 1).noise(words, hidden, seeds, linear(slope)).double()
    up = slope.double() / slope.double().norm(dim=-1, keepdim=True)
    for row, token in words.nonzero().tolist():
        point = start[row, token] + 2.5 * radius * up[row, token]
        # 2.5 radii up from within the ball is outside of it, so the result is on its surface.
        expected = point / point.norm() * radius
        torch.testing.assert_close(found[row, token], expected, rtol=1e-5, atol=1e-5 * radius)
        # The most that is possible is reached at radius * gradient / |gradient|; from the worst
        # start the angle to it has the sine 1 / 2.5.
        best = radius * slope[row, token].double().norm()
        gain = (found[row, token] * slope[row, token]).sum()
        assert math.sqrt(1 - 0.4**2) * best * (1 - 1e-5) <= gain <= best * (1 + 1e-5)


def test_ascent_follows_the_loss_step_by_step() -> None:
    """A quadratic loss, whose gradient is another at each step, against a loop by hand."""
    words, radius, steps = masks([[True, False, True], [True]]), 0.8, 4
    seeds, peak = torch.tensor([5, 6]), slope_of(words, 5, 1) * 0.3
    views = RandomView(radius), AdversarialView(radius, steps)
    loss = lambda noise: -(noise - peak).square().sum((1, 2))  # noqa: E731
    start, found = (view.noise(words, 5, seeds, loss).double() for view in views)
    target = peak.double()
    for row, token in words.nonzero().tolist():
        point = start[row, token]
        for _ in range(steps):
            up = target[row, token] - point
            point = point + 2.5 * radius / steps * up / up.norm()
            point = point * min(1.0, radius / point.norm().item())
        torch.testing.assert_close(found[row, token], point, rtol=1e-4, atol=1e-5)


class Batch:
    """Texts of different lengths with the loss of a tiny classifier around their embeddings."""

    def __init__(self, family: str = "bert", seed: int = 0) -> None:
        self.texts = random_texts([7, 4, 10, 5, 9, 3, 6, 8], seed)
        self.inputs = padded(self.texts)
        self.labels = torch.arange(len(self.texts)) % 3
        self.words = self.inputs["attention_mask"].bool()
        self.words[:, 0] = False  # as if special
        self.seeds = torch.arange(len(self.texts)) + 100 * seed
        self.model = tiny_classifier(family)
        self.hidden = self.model.get_input_embeddings().weight.size(1)

    def logits(self, noise: Tensor, model: Any = None) -> Tensor:
        """From embeddings that are looked up and added to outside of the model."""
        model = model or self.model
        ids, mask = self.inputs["input_ids"], self.inputs["attention_mask"]
        embeddings = torch.nn.functional.embedding(ids, model.get_input_embeddings().weight)
        logits: Tensor = model(inputs_embeds=embeddings + noise, attention_mask=mask).logits
        return logits

    def loss(self, noise: Tensor) -> Tensor:
        logits = self.logits(noise)
        return torch.nn.functional.cross_entropy(logits, self.labels, reduction="none")

    def noise(self, view: RandomView) -> Tensor:
        return view.noise(self.words, self.hidden, self.seeds, self.loss)


def test_loss_of_an_encoder_rises() -> None:
    rises, radius = [], 0.3
    for seed in range(4):
        batch = Batch(seed=seed)
        start = batch.loss(batch.noise(RandomView(radius)))
        rises += (batch.loss(batch.noise(AdversarialView(radius, 3))) - start).tolist()
    assert np.mean(np.array(rises) >= 0) >= 0.9, rises
    assert np.median(rises) > 0.05, rises


def test_ascent_leaves_no_gradient_behind() -> None:
    batch = Batch()
    noise = batch.noise(AdversarialView(0.3, 2))
    assert not noise.requires_grad
    assert all(p.grad is None and p.requires_grad for p in batch.model.parameters())
    batch.loss(torch.zeros(())).sum().backward()
    before = {name: p.grad.clone() for name, p in batch.model.named_parameters()}
    batch.noise(AdversarialView(0.3, 2))
    for name, p in batch.model.named_parameters():
        assert torch.equal(p.grad, before[name]), name


@pytest.mark.parametrize(
    ("name", "view"), [("rs-rp", RandomView(0.4)), ("adv", AdversarialView(0.4, 2))]
)
def test_objective_perturbs_the_view_and_not_the_text(name: MethodName, view: RandomView) -> None:
    """Against a model given embeddings to which the noise was added as a constant."""
    batch = Batch()
    noise = batch.noise(view)
    naive = copy.deepcopy(batch.model)
    objective = Objective(batch.model, MethodSpec(name=name, robust_weight=0.6), view)
    inputs = {key: torch.cat([value, value]) for key, value in batch.inputs.items()}
    terms = objective(**inputs, labels=batch.labels, seeds=batch.seeds, perturbed=batch.words)
    assert all(p.grad is None for p in batch.model.parameters())
    text, other = (
        torch.nn.functional.cross_entropy(logits, batch.labels, reduction="none")
        for logits in (naive(**batch.inputs).logits, batch.logits(noise, naive))
    )
    assert (other - text).abs().min() > 1e-4
    torch.testing.assert_close(terms["classification"], text, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(terms["robust"], other, rtol=1e-4, atol=1e-5)

    terms["total"].mean().backward()
    (text + 0.6 * other).mean().backward()
    expected = {key: p.grad for key, p in naive.named_parameters()}
    scale = max(gradient.abs().max().item() for gradient in expected.values())
    for key, p in batch.model.named_parameters():
        torch.testing.assert_close(p.grad, expected[key], rtol=1e-3, atol=1e-4 * scale)

    # Afterwards the classifier is the one without noise again, as evaluation needs it.
    with torch.no_grad():
        logits = batch.model(**batch.inputs).logits
        assert torch.equal(logits, tiny_classifier("bert")(**batch.inputs).logits)


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_all_terms_are_those_of_words_with_embeddings_of_their_own(family: str) -> None:
    """Noise does to every term what other words at those places would do."""
    batch, view = Batch(family), RandomView(0.4)
    method = MethodSpec(view={"kind": "random"}, pull_layer=1)
    ids, table = batch.inputs["input_ids"], batch.model.get_input_embeddings().weight.detach()
    perturbed = (table[ids] + batch.noise(view))[batch.words]
    own = ids.clone()
    own[batch.words] = VOCABULARY + torch.arange(len(perturbed))
    model = copy.deepcopy(batch.model)
    model.set_input_embeddings(
        torch.nn.Embedding.from_pretrained(torch.cat([table, perturbed]), padding_idx=PAD)
    )
    mask = torch.cat([batch.inputs["attention_mask"]] * 2)
    synonyms = Objective(model, MethodSpec(pull_layer=1))
    expected = synonyms(torch.cat([ids, own]), mask, batch.labels)
    assert (expected["push"] < -1e-4).all() and (expected["pull"] > 1e-6).all()
    noise = {"seeds": batch.seeds, "perturbed": batch.words}
    found = Objective(batch.model, method, view)(torch.cat([ids, ids]), mask, batch.labels, **noise)
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)


def test_noise_ends_where_a_forward_pass_fails() -> None:
    batch = Batch()
    expected = batch.model(**batch.inputs).logits
    objective = Objective(batch.model, MethodSpec(name="rs-rp"), RandomView(5.0))
    inputs = {key: torch.cat([value, value]) for key, value in batch.inputs.items()}
    arguments = {"seeds": batch.seeds, "perturbed": batch.words}
    with pytest.raises(IndexError):
        objective(**inputs, labels=batch.labels + 90, **arguments)
    inputs["attention_mask"] = inputs["attention_mask"][:, :-1]
    with pytest.raises((RuntimeError, ValueError)):
        objective(**inputs, labels=batch.labels, **arguments)
    torch.testing.assert_close(batch.model(**batch.inputs).logits, expected)


def test_mean_norm_is_over_occurrences_whatever_the_trimming() -> None:
    ids = np.array([5, 9, 9, 9, 40, 12, 12, 59])
    model = tiny_classifier("bert")
    table = model.get_input_embeddings().weight.detach()
    naive = sum(math.sqrt(sum(x * x for x in table[i].tolist())) for i in ids) / len(ids)
    whole = mean_norm(table, torch.from_numpy(np.bincount(ids, minlength=VOCABULARY)))
    assert whole == pytest.approx(naive, rel=1e-12)

    vocabulary = Vocabulary(np.array([0, 1, 5, 9, 12, 30, 40, 59]), VOCABULARY)
    vocabulary.trim(model)
    counts = torch.from_numpy(np.bincount(vocabulary.rows(ids), minlength=8))
    trimmed = mean_norm(model.get_input_embeddings().weight, counts)
    assert trimmed == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("name", ["ear", "rs-rp", "adv", "rs-da", "plain"])
def test_view_is_the_method_s_in_units_of_the_mean_norm(name: MethodName) -> None:
    noise = {"noise_radius": 0.2, "ascent_steps": 4}
    expected = {"rs-rp": RandomView(0.6), "adv": AdversarialView(0.6, 4)}.get(name)
    for kind, ears in (
        ("synonym", None),
        ("random", RandomView(0.6)),
        ("adversarial", AdversarialView(0.6, 4)),
    ):
        method = MethodSpec(name=name, view={"kind": kind, **noise})
        found = embedding_view(method, mean_norm=3.0)
        wanted = ears if name == "ear" else expected
        assert type(found) is type(wanted)
        if found is not None and wanted is not None:
            assert found.radius == pytest.approx(0.6)
            assert getattr(found, "steps", None) == getattr(wanted, "steps", None)
