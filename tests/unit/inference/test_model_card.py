"""The model card: its text, and the metadata that the Hugging Face hub reads."""

from __future__ import annotations

import pytest
import yaml
from huggingface_hub import ModelCard

from xlt_ray.config.loading import load_spec
from xlt_ray.config.task import load_task
from xlt_ray.inference.model_card import card_text, model_card


def card(model: str = "xlm-roberta-base", members: tuple[str, ...] = ()) -> str:
    spec = load_spec("pawsx_xlmr", {"model": model})
    task = load_task("pawsx")
    test = {f"accuracy/{code}": 0.5 + n / 100 for n, code in enumerate(task.languages)}
    return model_card(
        spec,
        task,
        "soup" if members else "07",
        test
        | {"accuracy/zero_shot_mean": 0.535}
        | {"macro_f1/en": 0.475, "macro_f1/zero_shot_mean": 0.45, "calibration_error/en": 0.125},
        "search-1",
        "No clear difference. One seed.",
        members,
    )


def test_the_hub_reads_languages_metrics_and_base_model() -> None:
    task = load_task("pawsx")
    data = ModelCard(card()).data
    assert data.language == list(task.languages)
    assert data.base_model == "xlm-roberta-base"
    assert data.pipeline_tag == "text-classification"
    assert data.license is None
    found = {one.dataset_config: one.metric_value for one in data.eval_results}
    assert found == {code: 0.5 + n / 100 for n, code in enumerate(task.languages)}
    assert {(one.dataset_split, one.metric_type) for one in data.eval_results} == {
        ("test", "accuracy")
    }


@pytest.mark.parametrize("model", ["/home/someone/encoder", "packaged/multilingual-e5-small"])
def test_a_base_model_that_is_not_on_the_hub_is_no_metadata(model: str) -> None:
    text = card(model)
    assert ModelCard(text).data.base_model is None
    assert "/home/someone" not in text
    assert f"Base model: {'encoder' if model.startswith('/') else model}" in text


def test_the_text_without_metadata_is_markdown() -> None:
    text = card()
    assert yaml.safe_load(text.split("---\n")[1])["language"][0] == "en"
    body = card_text(text)
    assert body.startswith("# pawsx_xlmr\n")
    assert "| en (trained on) | 50.0 | 47.5 | 12.5 |" in body
    assert "| mean without en | 53.5 | 45.0 |  |" in body and "trial `07`" in body
    assert "\nNo clear difference. One seed.\n" in body
    assert card_text(body) == body


def test_a_soup_names_its_trials() -> None:
    text = card(members=("01", "plain"))
    assert "the soup `soup`, the average of the weights of the trials `01`, `plain`" in text
    assert "by the method" not in text
