"""The method section of a search file: views, loss terms and weights."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import (
    Field,
    model_validator,
)

from xlt_ray.config.base import Frozen, Place

ViewKind = Literal["synonym", "random", "adversarial"]


class ViewSpec(Frozen):
    """The virtual view x' of a source-language text x."""

    kind: ViewKind = "synonym"
    """How a view is made: `synonym` replaces words by synonyms; `random` adds uniform noise to word
    embeddings (randomised smoothing); `adversarial` moves them in the direction that raises the
    loss."""

    radius: Annotated[float, Field(ge=0, le=1)] | Literal["paper"] = "paper"
    """Robustness radius of `synonym` views: probability in [0, 1] that a word with synonyms is
    replaced. `paper`: n / (n + 1) for a word of n synonyms."""

    noise_radius: float = Field(default=0.1, ge=0)
    """Robustness radius of `random` and `adversarial` views: radius of the L2 ball around each
    word embedding, in units of the mean norm of the training words' pretrained embeddings."""

    ascent_steps: int = Field(default=2, ge=1)
    """Steps of projected gradient ascent of `adversarial` views (>= 1)."""

    synonyms: Place = "counter-fitted"
    """Where synonyms come from: `counter-fitted` (the paper's list, downloaded once), `wordnet`
    (needs the extra `wordnet`), `demo`, a path or an http(s) URL of a JSON file
    {"movie": ["film", ...]}. A URL ends in `#sha256=` and the digest of the file; without a digest,
    the error message gives the one of the current file."""


Term = Literal["robust", "push", "pull"]
MethodName = Literal[
    "ear",
    "plain",
    "plain-long",
    "rs-da",
    "rs-rp",
    "adv",
    "ear-no-push",
    "ear-no-pull",
    "ear-no-robust",
]


class Preset(NamedTuple):
    """The terms and the kind of view that a method's name fixes."""

    terms: tuple[Term, ...]
    """Terms in addition to the classification loss."""
    view: ViewKind | None = None
    """Kind of the views; None: the spec's `method.view.kind`."""
    epochs: int = 1
    """Factor of `training.epochs` and `training.max_steps`."""


PRESETS: dict[MethodName, Preset] = {
    "plain": Preset(()),
    "plain-long": Preset((), epochs=2),
    "rs-da": Preset(("robust",), "synonym"),
    "rs-rp": Preset(("robust",), "random"),
    "adv": Preset(("robust",), "adversarial"),
    "ear": Preset(("robust", "push", "pull")),
    "ear-no-push": Preset(("robust", "pull")),
    "ear-no-pull": Preset(("robust", "push")),
    "ear-no-robust": Preset(("push", "pull")),
}
"""The methods: plain fine-tuning, also with the cost of a method with views, those of Huang et al.
(2021) and of Ding et al. (2022), and the latter's ablations."""


class MethodSpec(Frozen):
    """The objective: CE + robust_weight * robust + consistency_weight * consistency
    + push_weight * push + pull_weight * pull."""

    name: MethodName = "ear"
    """Which terms the objective has. `plain`: none; `plain-long`: none, with twice the `epochs` and
    `max_steps`, so as many texts forwarded as with views; `rs-da`, `rs-rp`, `adv`: `robust` over
    synonym, random or adversarial views; `ear`: all over the views of `view.kind`; `ear-no-push`,
    `ear-no-pull`, `ear-no-robust`: all but one."""

    robust_weight: float = Field(default=1.0, ge=0)
    """Weight of the view's classification loss (>= 0)."""

    consistency_weight: float = Field(default=0.0, ge=0)
    """Weight of the consistency of the predictions on text and view (>= 0), of every method with
    views; 0, the paper's, leaves the term out."""

    push_weight: float = Field(default=0.1, ge=0)
    """Weight of Embedding-Push (>= 0)."""

    push_margin: float | None = Field(default=None, ge=0)
    """Distance at which the push stops (>= 0, in units of `push_distance`); null: no bound, as in
    the paper."""

    push_distance: Literal["absolute", "relative"] = "absolute"
    """`absolute`: mean squared difference of the mean embeddings over the hidden size, as in the
    paper; `relative`: the same divided by the mean square of the original's mean embedding, so
    that one margin means the same for every model."""

    pull_weight: float = Field(default=1.0, ge=0)
    """Weight of Attention-Pull (>= 0)."""

    pull_layer: int = Field(default=5, ge=0)
    """Layer whose attention maps are compared, counted from 0."""

    pull_alignment: Literal["token", "word"] = "token"
    """How the two maps are compared: `token`: by position, as in the paper; `word`: pooled to
    words, which correspond even if a synonym has another number of tokens."""

    reduction: Literal["tokens", "padded"] = "tokens"
    """The positions that push and pull average over: `tokens`: the real tokens; `padded`: all
    `training.max_length` positions, padding included, as the authors do (slower)."""

    view: ViewSpec = ViewSpec()
    """The virtual view."""

    @property
    def terms(self) -> tuple[Term, ...]:
        """The terms in addition to the classification loss."""
        return PRESETS[self.name].terms

    @property
    def view_kind(self) -> ViewKind | None:
        """The kind of the views; None if no term uses views."""
        return (PRESETS[self.name].view or self.view.kind) if self.terms else None

    def uses(self, key: str) -> bool:
        """Tell whether a key of this section, such as `view.radius`, affects the objective."""
        users = {
            "view.radius": self.view_kind == "synonym",
            "view.noise_radius": self.view_kind in ("random", "adversarial"),
            "view.ascent_steps": self.view_kind == "adversarial",
            "view.kind": bool(self.terms) and PRESETS[self.name].view is None,
            "consistency_weight": bool(self.terms),
            "reduction": "push" in self.terms or "pull" in self.terms,
        }
        term = key.partition("_")[0]
        return users.get(key, term in self.terms if term in get_args(Term) else True)

    @model_validator(mode="after")
    def _positions_exist(self) -> MethodSpec:
        if self.reduction == "padded" and self.pull_alignment == "word":
            raise ValueError(
                "reduction: padded averages over token positions; use it with pull_alignment: token"
            )
        return self


PAPER_METHOD: dict[str, Any] = {
    "name": "ear",
    "robust_weight": 1.0,
    "consistency_weight": 0.0,
    "push_weight": 0.1,
    "push_margin": None,
    "push_distance": "absolute",
    "pull_weight": 1.0,
    "pull_alignment": "token",
    "view.kind": "synonym",
    "view.radius": "paper",
}
"""The values of Ding et al. (2022) for what a search may vary; the first trial of every search."""
