"""Mixes pairs of images and of their targets for training: blended (mixup) or pasted (CutMix)."""

import dataclasses

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

# Numbers folded into the seed of a batch, so that no two draws share a stream. That of the weights
# of mixup is the seed itself.
_CHOICE_STREAM = 1
_CUTMIX_STREAM = 2
_PLACE_STREAM = 3

_CUTMIX_SHARE = 0.5  # of the steps, where both are on


@dataclasses.dataclass(frozen=True)
class Mixing:
    """How the examples of a batch are mixed; see `mixup` and `cutmix`.

    Where both are on, each step draws which of the two mixes its batch.

    Args:
        mixup_alpha: Alpha of the Beta distribution of mixup's weights; 0: no mixup.
        cutmix_alpha: Alpha of the Beta distribution of CutMix's shares; 0: no CutMix.
    """

    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0

    @property
    def is_on(self) -> bool:
        """Whether anything is mixed."""
        return self.mixup_alpha > 0 or self.cutmix_alpha > 0

    def __call__(
        self,
        images: tf.Tensor,
        targets: tf.Tensor,
        seed: tf.Tensor,
        batch_size: int,
        first: int,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Mixes a part of a global batch.

        Args:
            images, targets: The part, as `mixup` takes it.
            seed: Stateless seed of the global batch, integer (2,).
            batch_size: Of the global batch, for which all is drawn.
            first: Place of the part's first example in it, an even number.
        """
        part = slice(first, first + images.shape[0])

        def blended() -> tuple[tf.Tensor, tf.Tensor]:
            weights = mixing_weights(batch_size, seed, self.mixup_alpha)
            return mixup(images, targets, weights[part])

        def pasted() -> tuple[tf.Tensor, tf.Tensor]:
            height, width = images.shape[-3:-1]
            boxes = cutmix_boxes(batch_size, seed, self.cutmix_alpha, height, width)
            return cutmix(images, targets, boxes[part])

        if not (self.mixup_alpha > 0 and self.cutmix_alpha > 0):
            return pasted() if self.cutmix_alpha > 0 else blended()
        draw = tf.random.stateless_uniform((), _stream(seed, _CHOICE_STREAM), alg="philox")
        images, targets = tf.cond(draw < _CUTMIX_SHARE, pasted, blended)
        return images, targets


def mixing_weights(batch_size: int, seed: tf.Tensor, alpha: float) -> tf.Tensor:
    """Returns the share that each example of a batch keeps, float32 (batch_size,) in [0, 1].

    Drawn from Beta(alpha, alpha) by a stateless seed, integer (2,), for the global batch, so that
    each host can take its part of the same numbers.
    """
    # Beta(a, a) = X / (X + Y) for two independent Gamma(a) numbers. With a small alpha both
    # underflow, so their logarithms are drawn: log Gamma(a) = log Gamma(a + 1) + log(U) / a.
    gamma_seed, uniform_seed = tf.unstack(tf.random.split(seed, alg="philox"))
    shape = (2, batch_size)
    gammas = tf.random.stateless_gamma(shape, gamma_seed, alpha=alpha + 1.0, dtype=tf.float64)
    uniform = tf.random.stateless_uniform(shape, uniform_seed, dtype=tf.float64, alg="philox")
    larger = tf.math.log(gammas)
    powers = tf.math.log1p(-uniform)  # 1 - U is never 0
    weights = tf.sigmoid(larger[0] - larger[1] + (powers[0] - powers[1]) / alpha)
    return tf.cast(weights, tf.float32)


def mixup(images: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Blends the examples of a batch in pairs: the first with the second, and so on.

    The order of a training batch is random already, so a neighbour is as good as a random partner.
    Pairs stay together when a batch is cut into parts of an even size. The last of an odd number is
    blended with the one before it. The blend is rounded back to bytes, because images cross to the
    device as uint8: an error of at most 0.5 / 255 of the range.

    Args:
        images: uint8 (batch, [frames,] height, width, 3), of a known batch size.
        targets: float32 (batch, num_classes).

    Reference:
        Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
    """
    partners = _partners(images.shape[0])
    mixed_targets = _blend(targets, partners, weights[:, tf.newaxis])
    pixels = tf.cast(images, tf.float32)
    by_image = tf.reshape(weights, (-1, *[1] * (len(images.shape) - 1)))
    mixed_pixels = _blend(pixels, partners, by_image)
    return tf.cast(tf.round(mixed_pixels), tf.uint8), mixed_targets


def cutmix_boxes(
    batch_size: int, seed: tf.Tensor, alpha: float, height: int, width: int
) -> tf.Tensor:
    """Returns the box of each example of a batch, int32 (batch_size, 4): top, bottom, left, right.

    A box has the shape of the image and a share 1 - Beta(alpha, alpha) of its area. Its centre is
    anywhere in the image, whose border cuts off what is outside. Drawn as in `mixing_weights`.
    """
    kept = mixing_weights(batch_size, _stream(seed, _CUTMIX_STREAM), alpha)
    size = tf.constant([height, width], tf.float32)
    sides = tf.sqrt(1.0 - kept)[:, tf.newaxis] * size  # (B, 2)
    shape = (batch_size, 2)
    places = tf.random.stateless_uniform(shape, _stream(seed, _PLACE_STREAM), alg="philox")
    centres = places * size
    begins = tf.maximum(tf.round(centres - sides / 2), 0.0)
    ends = tf.minimum(tf.round(centres + sides / 2), size)
    corners = tf.stack([begins[:, 0], ends[:, 0], begins[:, 1], ends[:, 1]], axis=1)
    return tf.cast(corners, tf.int32)


def cutmix(images: tf.Tensor, targets: tf.Tensor, boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Pastes a box of its partner, at the same place, into each example of a batch.

    The partners are those of `mixup`. The targets are mixed by the share of the pixels that the box
    has in the end. All frames of a clip get the same box.

    Args:
        images: uint8 (batch, [frames,] height, width, 3), of a known batch size.
        targets: float32 (batch, num_classes).
        boxes: int32 (batch, 4), see `cutmix_boxes`.

    Reference:
        Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
        Features", ICCV 2019.
    """
    partners = _partners(images.shape[0])
    height, width = images.shape[-3:-1]
    top, bottom, left, right = tf.unstack(boxes[:, :, tf.newaxis], axis=1)  # (B, 1) each
    rows, columns = tf.range(height), tf.range(width)
    in_rows = tf.logical_and(rows >= top, rows < bottom)  # (B, H)
    in_columns = tf.logical_and(columns >= left, columns < right)  # (B, W)
    inside = tf.logical_and(in_rows[:, :, tf.newaxis], in_columns[:, tf.newaxis])  # (B, H, W)
    frames = [1] * (len(images.shape) - 4)
    by_pixel = tf.reshape(inside, (-1, *frames, height, width, 1))
    area = (bottom - top) * (right - left)  # (B, 1)
    kept = 1.0 - tf.cast(area, tf.float32) / (height * width)
    return tf.where(by_pixel, tf.gather(images, partners), images), _blend(targets, partners, kept)


def _stream(seed: tf.Tensor, number: int) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(seed, number)


def _partners(batch_size: int) -> NDArray[np.int64]:
    partners: NDArray[np.int64] = np.arange(batch_size) ^ 1
    if batch_size % 2:
        partners[-1] = max(batch_size - 2, 0)
    return partners


def _blend(values: tf.Tensor, partners: NDArray[np.int64], weights: tf.Tensor) -> tf.Tensor:
    return weights * values + (1.0 - weights) * tf.gather(values, partners)
