"""Whether evaluation data are the same examples in every language."""

import numpy as np

from xlt_ray.evaluation.parallel import is_parallel


def test_parallel_data() -> None:
    language = np.array([1, 0, 1, 0, 2, 2])
    row = np.array([5, 2, 2, 5, 2, 5])
    labels = np.array([1, 0, 0, 1, 0, 1])
    languages = ("en", "de", "fr")
    assert is_parallel(language, row, labels, languages)
    assert not is_parallel(language, row, np.array([1, 0, 0, 1, 1, 1]), languages)
    assert not is_parallel(language, np.array([5, 2, 2, 5, 2, 6]), labels, languages)
    assert not is_parallel(language[:-1], row[:-1], labels[:-1], languages)
    assert not is_parallel(language, row, labels, (*languages, "zh"))
