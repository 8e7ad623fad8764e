"""The names that lib.config knows as text are those of the registries."""

import torch

from lib.config import names
from lib.datasets import load_dataset
from lib.models import CLASSIFIERS, DENOISERS
from lib.models.openai_unet import PUBLISHED
from lib.models.pretrained import PREFIXES

SHAPES = {"digits": (1, 8, 8), "cifar10": (3, 32, 32), "imagenet": (3, 224, 224)}


def known_data_sets():
    """The names in the message of an unknown one."""
    try:
        load_dataset("nothing")
    except ValueError as error:
        return [name for name in names.DATASETS if repr(name) in str(error)], str(error).count("'") // 2
    raise AssertionError("a data set called nothing")


def test_the_classifiers_of_a_data_set_are_those_for_the_size_of_its_images():
    for dataset, shape in SHAPES.items():
        assert sorted(names.CLASSIFIERS[dataset]) == sorted(
            name for size, group in CLASSIFIERS.items() if size == shape for name in group
        )
    assert sorted(names.of_any(names.CLASSIFIERS)) == sorted({name for group in CLASSIFIERS.values() for name in group})


def test_a_denoiser_has_the_channels_of_its_data_set():
    assert sorted(names.of_any(names.DENOISERS)) == sorted(DENOISERS)
    for dataset, group in names.DENOISERS.items():
        images = torch.rand(2, SHAPES[dataset][0], 8, 8)
        assert all(DENOISERS[name]()(images).shape == images.shape for name in group)


def test_published_diffusion_models_libraries_and_data_sets_have_these_names():
    assert sorted(names.DIFFUSIONS) == sorted(PUBLISHED) and names.LIBRARIES == PREFIXES
    found, quoted = known_data_sets()
    assert found == list(names.DATASETS) and quoted == len(names.DATASETS) + 1
