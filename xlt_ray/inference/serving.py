"""The best model as an MLflow model: a table of texts in, classes and probabilities out.

MLflow stores this package's source with the model instead of a pickled object. The code that wrote
the model therefore also loads it, whatever version is installed later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from xlt_ray.inference.classifier import Classifier

REQUIREMENTS = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "huggingface-hub",
    "numpy",
    "pandas",
    "pydantic",
    "pyyaml",
)
"""Packages that a served model imports."""


class ServedClassifier:
    """Classifies the rows of tables.

    Args:
        classifier: An exported classifier.
    """

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    def predict(
        self, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Classify the rows of a table.

        Args:
            model_input: Rows with the task's text columns. A missing text counts as empty. Other
                columns are ignored.
            params: Ignored; MLflow passes it.

        Returns:
            A table with the same rows: `predicted`, and `probability/<class>` for each class.
        """
        import pandas as pd

        from xlt_ray.inference.answers import answer_columns

        names = list(self._classifier.text_columns or ("text",))
        columns = [["" if pd.isna(text) else str(text) for text in model_input[n]] for n in names]
        answers = self._classifier.predict(list(zip(*columns, strict=True)))
        predicted, *classes = answer_columns(self._classifier.labels)
        table = pd.DataFrame(answers.probabilities, columns=classes, index=model_input.index)
        table.insert(0, predicted, answers.labels)
        return table


def _load_pyfunc(data_path: str) -> ServedClassifier:
    """Load a model; MLflow calls this with the model's folder."""
    from xlt_ray.inference.classifier import Classifier

    return ServedClassifier(Classifier.load(data_path))
