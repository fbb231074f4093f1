"""The torch-free way to the network against evaluation's own."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.augment.policy import EvalPolicy
from datasets.images.preprocess import EncodedImage, ImageError, Preprocess
from datasets.sample import Sample, to_model_input
from util.pixels import IMAGENET_STD
from util.structures import PaddedImages

ROOT = Path(__file__).resolve().parents[3]
# One grey level after the normalisation of each channel, and rounding.
GREY_LEVEL = 1.001 / 255 / np.array(IMAGENET_STD)[:, None, None]


def photograph(height, width, mode="RGB"):
    """Smooth shades with sharp edges and noise."""
    random = np.random.default_rng((height, width))
    y, x = np.mgrid[:height, :width]
    channels = [128 + 90 * np.sin(x / (9 + 4 * c)) * np.cos(y / (13 + 3 * c)) for c in range(4)]
    pixels = np.stack(channels, -1) + random.normal(0, 6, (height, width, 4))
    pixels[height // 4 : height // 2, width // 3 :] += 70
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8), "RGBA").convert(mode)


def encoded(image, form="PNG", **options):
    content = io.BytesIO()
    image.save(content, form, **options)
    return content.getvalue()


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


CASES = {
    "odd": encoded(photograph(83, 131)),
    "tall": encoded(photograph(211, 47), "JPEG"),
    "grey": encoded(photograph(64, 99, "L")),
    "RGBA": encoded(photograph(75, 61, "RGBA")),
    "CMYK": encoded(photograph(90, 70, "CMYK"), "JPEG"),
    "palette": encoded(photograph(77, 133, "P"), "GIF"),
    "turned": encoded(photograph(101, 67), "JPEG", exif=turned()),
    "draft": encoded(photograph(517, 803), "JPEG"),
    "as it is": encoded(photograph(96, 128)),
}


def evaluation_input(policy, data, divisor, draft):
    """What evaluation makes of the same files, and their sizes."""
    images, sizes = [], []
    for content in data:
        image = EncodedImage(content, "x", upright=True)
        params = policy.make_params(image.size)
        pixels = image.decode(params.decode_size if draft else None)
        sample = Sample.from_arrays(pixels, np.zeros((0, 4)), np.zeros(0), image.size)
        images.append(to_model_input(params(sample), 0, image.size)[0])
        sizes.append(image.size)
    return PaddedImages.from_list(images, divisor).normalised(), tuple(sizes)


@pytest.mark.parametrize("fixed_size", [False, True])
@pytest.mark.parametrize("draft", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_the_input_is_evaluations_to_one_grey_level(case, draft, fixed_size):
    found = Preprocess(96, 160, fixed_size, size_divisor=32, draft=draft)([CASES[case]])
    expected, originals = evaluation_input(EvalPolicy(96, 160, fixed_size), [CASES[case]], 32, draft)
    assert found.images.dtype == np.float32 and found.images.shape == tuple(expected.tensor.shape)
    assert (found.sizes, found.original_sizes) == (expected.sizes, originals)
    assert (found.mask == expected.mask.numpy()).all()
    difference = np.abs(found.images - expected.tensor.numpy())
    assert (difference <= GREY_LEVEL).all()
    assert (difference > 0).mean() < 0.25
    if case == "as it is" and not fixed_size:
        assert not difference.any(), "without a resize it is equal to the bit"


def test_a_batch_is_padded_like_evaluations(tmp_path):
    files = []
    for name, content in CASES.items():
        files.append(tmp_path / name)
        files[-1].write_bytes(content)
    found = Preprocess(60, 100)([str(files[0]), *files[1:]])
    expected, originals = evaluation_input(EvalPolicy(60, 100), CASES.values(), 1, True)
    assert found.sizes == expected.sizes and found.original_sizes == originals
    assert (found.mask == expected.mask.numpy()).all()
    assert (np.abs(found.images - expected.tensor.numpy()) <= GREY_LEVEL).all()
    assert not found.images.transpose(0, 2, 3, 1)[found.mask].any()


def test_arrays_are_as_good_as_files():
    run = Preprocess(50, 90)
    for mode in ("L", "RGB", "RGBA"):
        image = photograph(83, 131, mode)
        array, file = run([np.asarray(image)]), run([encoded(image)])
        assert (array.images == file.images).all() and array.original_sizes == file.original_sizes == (
            (83, 131),
        )


def test_what_cannot_be_read_is_named(tmp_path):
    run = Preprocess(50, 90)
    with pytest.raises(ImageError, match=r"none\.jpg: cannot be read \(No such file or directory\)"):
        run([tmp_path / "none.jpg"])
    with pytest.raises(ImageError, match="an image of 5 bytes: does not decode"):
        run([b"bytes"])


def test_it_needs_no_torch():
    program = (
        "import sys; import numpy as np; from datasets.images.preprocess import Preprocess; "
        "Preprocess(8, 16)([np.zeros((5, 7, 3), np.uint8)]); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
