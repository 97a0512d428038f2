"""Many small pictures in few bytes, for machines without a library that decodes pictures.

As in JPEG (ITU-T T.81, JFIF): luminance, and the chrominances at half size, in blocks of 8x8, each
transformed by a discrete cosine transform and quantised by the standard's example tables. Unlike
there, all blocks of all pictures are compressed together, one frequency after the other, by LZMA;
that takes some per cent less than JPEG's optimised Huffman codes.
"""

import lzma

import numpy as np

# Of the standard's tables, as the quality of common encoders; 37 dB on photographs of faces.
QUALITY = 75
# Pictures have to consist of whole blocks of the chrominances, which have half their size.
MULTIPLE = 16
# Pictures transformed at once.
_CHUNK = 128

# ITU-T T.81, tables K.1 and K.2; rows are vertical frequencies.
LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
CHROMINANCE = np.full((8, 8), 99)
CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
# Full-range YCbCr of JFIF, without the offset of 1/2 of the last two.
TO_YCC = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32
)
_GREY = np.array([128.0, 0.0, 0.0], np.float32)


def _cosines() -> np.ndarray:
    """The orthonormal transform of 8 samples, (frequency, sample)."""
    n = np.arange(8)
    matrix = np.cos((2 * n + 1) * n[:, None] * np.pi / 16) / 2.0
    matrix[0] /= np.sqrt(2.0)
    return matrix.astype(np.float32)


COSINES = _cosines()


def _step(table: np.ndarray) -> np.ndarray:
    """Quantisation steps (8, 8) of a table, at `QUALITY`."""
    return np.maximum((table * (200 - 2 * QUALITY) + 50) // 100, 1).astype(np.float32)


_STEPS = tuple(_step(table) for table in (LUMINANCE, CHROMINANCE, CHROMINANCE))


def pack(pictures: np.ndarray) -> dict[str, np.ndarray]:
    """Arrays for an ``.npz`` file that hold pictures (N, H, W, 3) uint8; see `unpack`.

    Raises:
      ValueError: height or width is not a multiple of `MULTIPLE`.
    """
    _, height, width, _ = pictures.shape
    if height % MULTIPLE or width % MULTIPLE:
        raise ValueError(f"pictures of {width}x{height} pixels are no multiple of {MULTIPLE}")
    chunks = [_encode(pictures[n : n + _CHUNK]) for n in range(0, len(pictures), _CHUNK)]
    planes = [np.concatenate(channel) for channel in zip(*chunks, strict=True)]
    stream = b"".join(plane.reshape(-1, 64).T.tobytes() for plane in planes)
    return {
        "coded": np.frombuffer(lzma.compress(stream), np.uint8),
        "shape": np.array(pictures.shape, np.int32),
    }


def unpack(coded: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """The pictures (N, H, W, 3) uint8 in arrays of `pack`.

    Raises:
      ValueError: they are damaged.
    """
    try:
        count, height, width, _ = (int(n) for n in shape)
        stream = np.frombuffer(lzma.decompress(coded.tobytes()), np.int8)
    except lzma.LZMAError as error:
        raise ValueError("the pictures are damaged") from error
    sizes = [(height, width), (height // 2, width // 2), (height // 2, width // 2)]
    ends = np.cumsum([count * h * w for h, w in sizes])
    if len(stream) != ends[-1]:
        raise ValueError("the pictures are damaged")
    planes = [
        plane.reshape(64, -1).T.reshape(count, h // 8, w // 8, 8, 8)
        for plane, (h, w) in zip(np.split(stream, ends[:-1]), sizes, strict=True)
    ]
    pictures = np.empty((count, height, width, 3), np.uint8)
    for n in range(0, count, _CHUNK):
        pictures[n : n + _CHUNK] = _decode([plane[n : n + _CHUNK] for plane in planes])
    return pictures


def _encode(pictures: np.ndarray) -> list[np.ndarray]:
    """The quantised blocks (N, rows, columns, 8, 8) int8 of luminance and chrominances."""
    channels = np.moveaxis(pictures @ TO_YCC.T - _GREY, -1, 0)
    quantised = []
    for number, (channel, step) in enumerate(zip(channels, _STEPS, strict=True)):
        n, h, w = channel.shape
        if number:
            channel = channel.reshape(n, h // 2, 2, w // 2, 2).mean(axis=(2, 4))
            h, w = h // 2, w // 2
        blocks = channel.reshape(n, h // 8, 8, w // 8, 8).swapaxes(2, 3)
        levels = np.rint(COSINES @ blocks @ COSINES.T / step)
        quantised.append(np.clip(levels, -127, 127).astype(np.int8))
    return quantised


def _decode(quantised: list[np.ndarray]) -> np.ndarray:
    """The pictures (N, H, W, 3) uint8 of what `_encode` returns."""
    channels = []
    for number, (levels, step) in enumerate(zip(quantised, _STEPS, strict=True)):
        n, rows, columns = levels.shape[:3]
        blocks = COSINES.T @ (levels * step) @ COSINES
        channel = blocks.swapaxes(2, 3).reshape(n, rows * 8, columns * 8)
        channels.append(_doubled(channel) if number else channel)
    colours = (np.stack(channels, axis=-1) + _GREY) @ np.linalg.inv(TO_YCC).T
    return np.clip(np.rint(colours), 0, 255).astype(np.uint8)


def _doubled(channel: np.ndarray) -> np.ndarray:
    """(N, h, w) to (N, 2h, 2w), linear between pixel centres."""
    for axis in (1, 2):
        size = channel.shape[axis]
        before = channel.take(np.maximum(np.arange(size) - 1, 0), axis)
        after = channel.take(np.minimum(np.arange(size) + 1, size - 1), axis)
        pairs = np.stack([0.75 * channel + 0.25 * before, 0.75 * channel + 0.25 * after], axis + 1)
        shape = list(channel.shape)
        shape[axis] *= 2
        channel = pairs.reshape(shape)
    return channel
