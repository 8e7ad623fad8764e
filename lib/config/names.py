"""The names that a parameter may hold, as plain text: a wrong one is refused without a second spent on importing torch.

tests/test_names.py holds them equal to the registries: lib.datasets, lib.models and lib.models.openai_unet.
"""

LIBRARIES = ("timm:", "torchvision:")  # before a network's name: it comes with its own weights and input size
DATASETS = ("digits", "cifar10", "imagenet", "folder", "photographs")
NORMALIZATIONS = ("standard", "center", "imagenet", "none")  # the first layer of a classifier's file

CLASSIFIERS = {  # by the data set whose images they take; those of a folder are known once it is read
    "digits": ("digits_cnn", "digits_mlp", "digits_cnn_wide", "digits_resnet"),
    "cifar10": (
        "cifar_resnet110", "cifar_resnet20", "cifar_resnet32", "cifar_resnet44", "cifar_resnet56",
        "cifar_resnet14_wide",
        "WRN-28-10", "WRN-40-10", "VGG16", "VGG19", "ResNet18", "PreActResNet18", "ResNeXt29_2x64d", "MobileNet",
        "MobileNetV2", "SENet18", "ShuffleNetV2", "EfficientNetB0", "GoogLeNet", "DenseNet121",
    ),
    "imagenet": ("resnet18", "resnet34", "resnet50"),
}  # fmt: skip
COLOUR_DENOISERS = (
    "cifar_dncnn", "cifar_dncnn_wide", "memnet", "imagenet_dncnn", "imagenet_memnet", "cifar_dncnn_small",
    "photo_unet",
)  # fmt: skip
DENOISERS = {"digits": ("digits_dncnn", "digits_memnet"), "cifar10": COLOUR_DENOISERS, "imagenet": COLOUR_DENOISERS}
TRAINED = {"digits": ("train",), "cifar10": ("train", "train small"), "imagenet": ()}  # diffusion models, here
DIFFUSIONS = ("cifar10_uncond_50M_500K.pt", "256x256_diffusion_uncond.pt")  # files that go into checkpoints/


def of_any(names: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The names for all data sets, each once."""
    return tuple(dict.fromkeys(name for group in names.values() for name in group))
