"""Reads files into batches, preprocessed as in an evaluation."""

import dataclasses
from collections import deque
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainers.configuration.data_options import VideoPreprocessingConfig
from trainers.data.datasets.folders import IMAGE_EXTENSIONS
from trainers.data.decode_errors import plain_reason
from trainers.data.preprocessing.examples import Preprocessing
from trainers.data.preprocessing.examples import evaluation_input
from trainers.data.video_files import FRAMES_PER_SECOND
from trainers.data.video_files import MIN_SIDE
from trainers.data.video_files import VIDEO_EXTENSIONS
from trainers.data.video_files import read_frames
from trainers.utils import files
from trainers.utils.errors import DataError
from trainers.utils.subprocesses import default_workers

_VIDEO_THREADS = 2  # each holds a whole video, and the decoder has its own threads
MAX_VIDEO_BYTES = 2_000_000_000

Pixels = NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class ReadFile:
    """A file as the model sees it."""

    number: int  # its place among all inputs, from 1
    path: str
    inputs: Pixels  # (H, W, C), (T, H, W, C) or with views (V, T, H, W, C)
    picture: Pixels  # the image, or the clip in the middle of the video, to draw on


class PredictionReader:
    """Reads files ahead, in threads, while the model works.

    Args:
        preprocessing: That of the model.
        views: Whether all views of a video are read, or only the clip in its middle.
        frames_per_second: Frames taken from each second of a video.
        min_side: Pixels of the shorter side of a video's frames, which are never enlarged.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        *,
        views: bool = True,
        frames_per_second: float = FRAMES_PER_SECOND,
        min_side: int = MIN_SIDE,
    ) -> None:
        self.preprocessing = preprocessing
        self.views = views
        self.frames_per_second = frames_per_second
        self.min_side = min_side
        self.takes_videos = isinstance(preprocessing, VideoPreprocessingConfig)
        spec = tf.TensorSpec((), tf.string)
        if self.takes_videos:
            spec = tf.TensorSpec((None, None, None, 3), tf.uint8)
        self._compiled = tf.function(self._inputs, input_signature=[spec])

    def read(self, path: str) -> tuple[Pixels, Pixels]:
        """Returns the inputs of a file, and the picture to draw on; see `ReadFile`.

        Raises:
            DataError: If the file cannot be read, or is of the other kind.
        """
        other_kind = IMAGE_EXTENSIONS if self.takes_videos else VIDEO_EXTENSIONS
        if not files.is_utf8(path):
            raise DataError(f"{path!r}: its name is not UTF-8. Rename it")
        if path.lower().endswith(other_kind):
            kinds = ("an image", "videos") if self.takes_videos else ("a video", "images")
            raise DataError(f"{path}: {kinds[0]}, and the model takes {kinds[1]}")
        if self.takes_videos and files.is_remote(path):
            raise DataError(f"{path}: videos are read from a local disk. Copy it there")
        try:
            with tf.device("CPU:0"):
                inputs, picture = self._read(path)
                return inputs.numpy(), picture.numpy()
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}") from error
        except (tf.errors.OpError, ValueError) as error:
            raise DataError(f"{path}: {plain_reason(error)}") from error

    def batches(
        self, paths: Sequence[str], batch_size: int, left_out: Callable[[DataError], None]
    ) -> Iterator[list[ReadFile]]:
        """Yields all readable files, in order; the last batch may be smaller.

        `left_out` is called for each unreadable file, which is left out.
        """
        batch: list[ReadFile] = []
        for number, path, reading in self._read_ahead(paths, batch_size):
            try:
                inputs, picture = reading.result()
            except DataError as error:
                left_out(error)
                continue
            batch.append(ReadFile(number, path, inputs, picture))
            if len(batch) == batch_size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _read_ahead(
        self, paths: Sequence[str], count: int
    ) -> Iterator[tuple[int, str, Future[tuple[Pixels, Pixels]]]]:
        """Yields files with the futures of their contents; reads over `count` files ahead."""
        threads = _VIDEO_THREADS if self.takes_videos else default_workers()
        pool = ThreadPoolExecutor(threads)
        ahead: deque[tuple[int, str, Future[tuple[Pixels, Pixels]]]] = deque()
        try:
            for number, path in enumerate(paths, start=1):
                ahead.append((number, path, pool.submit(self.read, path)))
                if len(ahead) == count + threads:
                    yield ahead.popleft()
            yield from ahead
        finally:
            pool.shutdown(cancel_futures=True)

    def _read(self, path: str) -> tuple[tf.Tensor, tf.Tensor]:
        content = tf.constant(self._frames(path) if self.takes_videos else files.read(path))
        try:
            return self._compiled(content)
        except tf.errors.OpError:
            # Outside a graph the error says what is wrong, and not where in the graph.
            return self._inputs(content)

    def _frames(self, path: str) -> Pixels:
        frames: list[Pixels] = []
        size = 0
        rate = self.frames_per_second
        for frame in read_frames(path, frames_per_second=rate, min_side=self.min_side):
            size += frame.nbytes
            if size > MAX_VIDEO_BYTES:
                raise DataError(
                    f"{path} is too long: more than {len(frames)} frames at {rate:g} a second. "
                    "Cut it into parts"
                )
            frames.append(frame)
        return np.stack(frames)

    def _inputs(self, content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        example = {"video" if self.takes_videos else "encoded": content}
        picture = evaluation_input(example, self.preprocessing, views=False)
        if not (self.takes_videos and self.views):
            return picture, picture
        return evaluation_input(example, self.preprocessing, views=True), picture
