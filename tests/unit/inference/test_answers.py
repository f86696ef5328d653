"""The columns of a classifier's answers."""

from xlt_ray.inference.answers import answer_columns


def test_names_of_the_output_columns() -> None:
    assert answer_columns(["yes", "no"]) == ["predicted", "probability/yes", "probability/no"]
