"""Low-rank adapters (LoRA, Hu et al., ICLR 2022) in an encoder, through the package peft.

The trainer adds them before training and merges them after it, so that everything else sees plain
weights.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import nn
from transformers import PreTrainedModel

from xlt_ray.encoders.depth import parameter_depths
from xlt_ray.errors import UserError, install_command

SCALE = 2
"""Factor of the adapters' output, LoRA's alpha / rank; the same at every rank."""


def check_lora() -> None:
    """Check that peft is installed.

    Raises:
        UserError: If it is not.
    """
    if importlib.util.find_spec("peft") is None:
        raise UserError(
            f"training.lora_rank: LoRA needs the package peft: {install_command('lora')}"
        )


def add_lora(classifier: PreTrainedModel, rank: int, seed: int, lowest: int = 1) -> None:
    """Add adapters to all linear parts of an encoder's layers, in place.

    Only the adapters and the head stay trainable. The adapters' output is 0 at first.

    Args:
        classifier: A sequence classification model.
        rank: The adapters' rank (>= 1).
        seed: Seed of their initialisation.
        lowest: Depth of the lowest layer that gets adapters, >= 1
            (:func:`xlt_ray.encoders.depth.parameter_depths`).
    """
    from peft import LoraConfig, inject_adapter_in_model

    depths = parameter_depths(classifier)
    head = max(depths.values())
    linear = [
        name
        for name, module in classifier.named_modules()
        if isinstance(module, nn.Linear) and lowest <= depths.get(f"{name}.weight", head) < head
    ]
    for name, parameter in classifier.named_parameters():
        parameter.requires_grad_(depths[name] == head)
    if not linear:
        return
    trainable = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
    torch.manual_seed(seed)
    inject_adapter_in_model(
        LoraConfig(r=rank, lora_alpha=SCALE * rank, target_modules=linear), classifier
    )
    # peft freezes everything but its adapters.
    for parameter in trainable:
        parameter.requires_grad_(True)


def merge_lora(classifier: PreTrainedModel) -> None:
    """Add the adapters to the weights that they adapt and remove them, in place.

    A model without adapters stays as it is.
    """
    from peft.tuners.lora import LoraLayer

    for name, module in list(classifier.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            classifier.set_submodule(name, module.get_base_layer())
