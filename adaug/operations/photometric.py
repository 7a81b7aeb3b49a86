"""Operations that change pixel values and move no pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from kornia import enhance
from torch import Tensor
from typing_extensions import override

from adaug._runtime.checks import Rules, integer
from adaug._runtime.checks import function as any_function
from adaug._runtime.random import random_state_kept
from adaug.operations.base import Binned

__all__ = ["Apply", "Brightness", "Contrast", "Gain", "Photometric", "Saturation"]


class Photometric(Binned):
    """An operation with bins that changes pixel values in [0, 1] and moves no pixels."""

    unit_range = True

    @override
    def apply(self, image: Tensor, magnitude: Tensor) -> Tensor:
        """Returns the changed images. [n, C, H, W], [n] -> [n, C, H, W]."""
        raise NotImplementedError(f"{type(self).__name__} should define apply(image, magnitude [n]) -> image.")


@dataclass(frozen=True)
class Brightness(Photometric):
    """Multiplies the brightness by a factor; 1 changes nothing."""

    of_colours = "all"

    @override
    def apply(self, image: Tensor, magnitude: Tensor) -> Tensor:
        return enhance.adjust_brightness_accumulative(image, magnitude)


@dataclass(frozen=True)
class Contrast(Photometric):
    """Multiplies each pixel's difference from the mean grey by a factor; 1 changes nothing."""

    of_colours = "all"

    @override
    def apply(self, image: Tensor, magnitude: Tensor) -> Tensor:
        return enhance.adjust_contrast_with_mean_subtraction(image, magnitude)


@dataclass(frozen=True)
class Saturation(Photometric):
    """Multiplies the difference from the grey image by a factor; 1 changes nothing, 0 gives a grey image."""

    of_colours = "named"

    @override
    def apply(self, image: Tensor, magnitude: Tensor) -> Tensor:
        if image.shape[1] not in (1, 3):
            raise ValueError(
                f"A Saturation should get images of 3 channels (red, green, blue) or 1 (grey). Found {image.shape[1]}; leave "
                "it out. Brightness and Contrast take any number."
            )
        return enhance.adjust_saturation_with_gray_subtraction(image, magnitude)


@dataclass(frozen=True)
class Gain(Photometric):
    """Multiplies one colour channel by a factor; 1 changes nothing."""

    _: KW_ONLY
    channel: int = 0

    _rules: ClassVar[Rules] = {"channel": integer(at_least=0)}

    @property
    @override
    def name(self) -> str:
        return f"gain_{self.channel}"

    @override
    def apply(self, image: Tensor, magnitude: Tensor) -> Tensor:
        if self.channel >= image.shape[1]:
            raise ValueError(
                f"A Gain of channel {self.channel} should get images of more than {self.channel} channels. "
                f"Found {image.shape[1]}."
            )
        factors = torch.ones(*image.shape[:2], 1, 1, device=image.device)
        factors[:, self.channel] = magnitude[:, None, None]
        return (image * factors).clamp(0, 1)


@dataclass(frozen=True)
class Apply(Photometric):
    """Applies any function of images [n, C, H, W] and magnitudes [n] that moves no pixels, e.g. kornia.enhance.adjust_gamma."""

    _: KW_ONLY
    function: Callable[[Tensor, Tensor], Tensor]

    _rules: ClassVar[Rules] = {"function": any_function("(images [n, C, H, W], magnitudes [n]) -> images")}

    @property
    @override
    def name(self) -> str:
        return getattr(self.function, "__name__", "apply").strip("<>")

    @override
    def apply(self, image: Tensor, magnitude: Tensor) -> Tensor:
        """Returns the changed images. Raises ValueError, in words, if the function does not take magnitudes [n]."""
        result = self._called(image, magnitude)
        if len(image) == image.shape[-1] > 1:  # there, images * magnitudes [n] would go through, column by column
            with torch.no_grad(), random_state_kept(image.device):
                self._called(image[:-1], magnitude[:-1])
        if not isinstance(result, Tensor) or result.shape != image.shape:
            found = f"shape {tuple(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
            raise ValueError(
                f"`function` of Apply should return images of the shape that it gets, {tuple(image.shape)}. Found that "
                f"{self.name} returned {found}."
            )
        return result

    def _called(self, image: Tensor, magnitude: Tensor) -> Tensor:
        try:
            return self.function(image, magnitude)
        except Exception as error:
            raise ValueError(
                "`function` of Apply should take images [n, C, H, W] and magnitudes [n]. Found that "
                f"{self.name} raised {type(error).__name__} for {tuple(image.shape)} and {tuple(magnitude.shape)}: {error}; "
                "give magnitudes the shape that it needs, such as lambda image, m: image * m.reshape(-1, 1, 1, 1)."
            ) from error
