"""A model as ONNX: another runtime's answers on real texts, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.fine_tuned import ODD, one_by_one, write_model
from xlt_ray.errors import UserError
from xlt_ray.inference import onnx
from xlt_ray.inference.onnx import MODEL_FILE, export_onnx

runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")


@pytest.mark.parametrize(
    ("family", "columns"), [("xlm-roberta", ["text"]), ("bert", ["premise", "hypothesis"])]
)
def test_another_runtime_answers_as_the_model(
    family: str, columns: list[str], tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    source = write_model(tmp_path / "model", family, columns)
    folder = tmp_path / "exported" / "onnx"
    assert export_onnx(source, folder) < 1e-5
    assert {"model.onnx", "config.json", "task.json", "tokenizer.json"} <= {
        path.name for path in folder.iterdir()
    }
    texts = ["Der alte Arzt schläft.", *ODD]
    rows: list[Any] = texts if len(columns) == 1 else [(text, "Он спит.") for text in texts]
    expected = one_by_one(source, rows)
    session = runtime.InferenceSession(str(folder / MODEL_FILE))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    valid = [t.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for t in texts]
    pairs = [valid] if len(columns) == 1 else [valid, ["Он спит."] * len(valid)]
    # All in one padded batch.
    tokens = tokenizer(*pairs, truncation=True, padding=True, return_tensors="np")
    names = [entry.name for entry in session.get_inputs()]
    [logits] = session.run(None, {name: tokens[name].astype(np.int64) for name in names})
    np.testing.assert_allclose(torch.from_numpy(logits).softmax(-1).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("damage", ["noise", "not a number"])
def test_what_answers_differently_is_not_written(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_model(tmp_path / "model", "xlm-roberta", ["text"])
    write = onnx._write

    def damaged(module: torch.nn.Module, *arguments: Any) -> None:
        weight = module.get_parameter("model.classifier.out_proj.weight")
        original = weight.detach().clone()
        with torch.no_grad():
            if damage == "noise":
                weight.add_(0.5 * torch.randn_like(weight))
            else:
                weight.fill_(torch.nan)
        write(module, *arguments)
        with torch.no_grad():
            weight.copy_(original)

    monkeypatch.setattr(onnx, "_write", damaged)
    with pytest.raises(UserError, match="answers differently"):
        export_onnx(source, tmp_path / "onnx")
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def test_a_folder_that_exists_and_missing_packages_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="it exists; choose another"):
        export_onnx(tmp_path / "model", tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="it cannot be written"):
        export_onnx(tmp_path / "model", tmp_path / "file" / "onnx")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"pip install -c constraints.txt -e '\.\[onnx\]'"):
        export_onnx(tmp_path / "model", tmp_path / "onnx")
