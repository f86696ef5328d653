"""The methods: their loss terms, kinds of views and the keys that they use."""

from __future__ import annotations

import pytest

from xlt_ray.config.keys import flatten
from xlt_ray.config.method import PRESETS, MethodSpec

WITH_VIEW = ("robust_weight", "consistency_weight", "view.kind", "view.radius")


PUSH = ("push_weight", "push_margin", "push_distance", "reduction")


PULL = ("pull_weight", "pull_layer", "pull_alignment", "reduction")


METHODS: dict[str, tuple[tuple[str, ...], str | None, tuple[str, ...]]] = {
    # Terms beside the classification loss; kind of the views that the name decides; values that
    # change anything where the spec's kind is `synonym`.
    "plain": ((), None, ()),
    "plain-long": ((), None, ()),
    "rs-da": (("robust",), "synonym", ("robust_weight", "consistency_weight", "view.radius")),
    "rs-rp": (("robust",), "random", ("robust_weight", "consistency_weight", "view.noise_radius")),
    "adv": (
        ("robust",),
        "adversarial",
        ("robust_weight", "consistency_weight", "view.noise_radius", "view.ascent_steps"),
    ),
    "ear": (("robust", "push", "pull"), None, (*WITH_VIEW, *PUSH, *PULL)),
    "ear-no-push": (("robust", "pull"), None, (*WITH_VIEW, *PULL)),
    "ear-no-pull": (("robust", "push"), None, (*WITH_VIEW, *PUSH)),
    "ear-no-robust": (("push", "pull"), None, (*WITH_VIEW[1:], *PUSH, *PULL)),
}


NOISE = {
    "synonym": {"view.radius"},
    "random": {"view.noise_radius"},
    "adversarial": {"view.noise_radius", "view.ascent_steps"},
}
"""Values of each kind of view."""


def method(name: str, kind: str = "synonym") -> MethodSpec:
    return MethodSpec.model_validate({"name": name, "view": {"kind": kind}})


def test_every_method_is_in_the_table() -> None:
    assert list(PRESETS) == list(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_method_s_terms_views_and_values(name: str) -> None:
    terms, own_kind, used = METHODS[name]
    everywhere = {"name", "view.synonyms"}
    keys = set(flatten(method(name).model_dump())) - everywhere
    assert keys == set().union(*(row[2] for row in METHODS.values()))
    for kind in NOISE:
        found = method(name, kind)
        assert found.terms == terms
        assert found.view_kind == (own_kind or kind if terms else None)
        expected = set(used)
        if terms and own_kind is None:
            expected = expected - NOISE["synonym"] | NOISE[kind]
        assert {key for key in keys if found.uses(key)} == expected, kind
