"""Networks that nobody here wrote, with random weights: of Hugging Face's transformers, timm and torchvision."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

from torch import nn

HIDDEN: dict[str, Any] = {"hidden_sizes": [8, 16, 32, 64], "depths": [1, 1, 1, 1]}
VIT: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "patch_size": 8}

Make = Callable[[], nn.Module]
Size = tuple[int, int]


def transformers_networks() -> dict[str, tuple[Make, Size]]:
    """Small networks of transformers by name, each with the image size that it is tried on. Empty without it."""
    try:
        t: Any = import_module("transformers")
    except ImportError:
        return {}
    stages = ["stage1", "stage2", "stage3", "stage4"]

    def vitpose() -> nn.Module:
        backbone = t.VitPoseBackboneConfig(**{**VIT, "patch_size": [8, 8]}, image_size=[64, 48], out_features=["stage4"])
        return t.VitPoseForPoseEstimation(t.VitPoseConfig(backbone_config=backbone, num_labels=17, use_simple_decoder=False))

    def upernet() -> nn.Module:
        backbone = t.ConvNextConfig(**HIDDEN, out_features=stages)
        config = t.UperNetConfig(backbone_config=backbone, hidden_size=16, num_labels=5, auxiliary_in_channels=32)
        return t.UperNetForSemanticSegmentation(config)

    basic = {**HIDDEN, "embedding_size": 8, "layer_type": "basic", "num_labels": 5}
    vit = {**VIT, "image_size": 64, "intermediate_size": 32, "num_labels": 5}
    segformer = {**HIDDEN, "decoder_hidden_size": 16, "num_labels": 5}
    made: dict[str, tuple[Make, Size]] = {
        "resnet": (lambda: t.ResNetForImageClassification(t.ResNetConfig(**basic)), (64, 64)),
        "vit": (lambda: t.ViTForImageClassification(t.ViTConfig(**vit)), (64, 64)),
        "convnext": (lambda: t.ConvNextForImageClassification(t.ConvNextConfig(**HIDDEN, num_labels=5)), (64, 64)),
        "segformer": (lambda: t.SegformerForSemanticSegmentation(t.SegformerConfig(**segformer)), (64, 64)),
        "upernet": (upernet, (64, 64)),
        "vitpose": (vitpose, (64, 48)),
        "ResNet": (
            lambda: t.ResNetForImageClassification(t.ResNetConfig(embedding_size=8, hidden_sizes=[32, 64, 128, 256])),
            (128, 128),
        ),
        "ViT": (
            lambda: t.ViTForImageClassification(t.ViTConfig(hidden_size=12, intermediate_size=24, image_size=128)),
            (128, 128),
        ),
        "SegFormer": (lambda: t.SegformerForSemanticSegmentation(t.SegformerConfig(decoder_hidden_size=16)), (128, 128)),
    }
    return {f"transformers: {name}": network for name, network in made.items()}


TIMM = {
    "Swin": "swin_tiny_patch4_window7_224", "ResNetV2": "resnetv2_50", "NFNet": "nfnet_f0", "MaxViT": "maxvit_tiny_tf_224",
    "DPN": "dpn48b", "Xception": "xception41", "ResNet": "resnet18", "ConvNeXt": "convnext_tiny", "RegNet": "regnety_004",
    "DenseNet": "densenet121", "PVT": "pvt_v2_b0", "RepVGG": "repvgg_a0", "ViT": "vit_tiny_patch16_224", "DaViT": "davit_tiny",
    "HRNet": "hrnet_w18_small", "EfficientNet": "efficientnet_b0",
}  # fmt: skip


def timm_networks() -> dict[str, tuple[Make, Size]]:
    """Networks of timm and torchvision by name, each with the image size that it is tried on. Empty without these packages."""
    try:
        timm, segmentation = import_module("timm"), import_module("torchvision.models.segmentation")
    except ImportError:
        return {}
    networks: dict[str, Make] = {f"timm: {name}": partial(timm.create_model, model) for name, model in TIMM.items()}
    networks["torchvision: DeepLabV3"] = partial(segmentation.deeplabv3_resnet50, weights=None, weights_backbone=None)
    return {name: (make, (224, 224)) for name, make in networks.items()}
