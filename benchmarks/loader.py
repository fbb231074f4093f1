"""From files to a normalised batch, against a PIL pipeline that follows the same policy.

    python benchmarks/loader.py [--json OUT] [--only PATTERN] [--quick]

One process and one thread: the time of one image is what one core needs for it (a mosaic counts as one
image, it is made of four). Both sides read, decode, augment, normalise and pad the same images with the
same random numbers. Before anything is timed their tensors are compared, with scaled decoding off: the worst
difference in grey levels is printed, and more than 1 a resize is a failure.
"""

from __future__ import annotations

import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks import images as images
from benchmarks import pil_pipeline
from benchmarks.protocol import ONLY_REPORTED, TIME, Row, argument_parser, interleaved, report, wanted
from config.schema import Config
from datasets.annotations.categories import ClassTable
from datasets.annotations.class_folders import read_class_folders
from datasets.annotations.json_reader import read_annotations
from datasets.augment.mosaic import Mosaic
from datasets.augment.policy import TrainPolicy
from datasets.detection import DetectionDataset
from datasets.image_level import ImageLevel
from datasets.images.reader import ImageFolder
from datasets.images.tar_index import open_tar
from datasets.loader import Collate
from datasets.sample import SampleIndex
from util.pixels import IMAGENET_STD

BATCH = 2
PIL = "pil"
# Of the normalisation, in grey levels.
ROUNDING = 1e-3


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    images: files of each kind.  batches: of each case.  large: (height, width) of the large images.
    members:  of the tar whose members are listed.
    """

    images: int = 40
    batches: int = 60
    large: tuple[int, int] = (1536, 2048)
    members: int = 100_000


QUICK = Scale(images=4, batches=4, large=(960, 1280), members=500)


def policy() -> TrainPolicy:
    """The default one: 480..800 by 1333, crops half of the time."""
    config = Config()
    return TrainPolicy(
        tuple(config.data_aug_scales),
        config.data_aug_max_size,
        tuple(config.data_aug_scales2_resize),
        tuple(config.data_aug_scales2_crop),
    )


def detection(root: Path, number: int, size: tuple[int, int]) -> DetectionDataset:
    """A generated set of `number` images of (height, width) below `root`."""
    store = read_annotations(images.write_detection(root, number, *size))
    classes = ClassTable.from_categories(store.categories)
    return DetectionDataset(store, ImageFolder(root), classes, policy())


def image_level(root: Path, number: int) -> ImageLevel:
    """Mosaics of generated 500x375 images."""
    images.write_image_level(root, number, 375, 500)
    store = read_class_folders(root)
    classes = ClassTable.from_categories(store.categories)
    return ImageLevel(store, ImageFolder(root), classes, store.categories, policy(), mosaic=Mosaic())


def from_tar(data: DetectionDataset, root: Path) -> DetectionDataset:
    """The same set, its images in `root`/train2017.tar."""
    root.mkdir()
    with tarfile.open(root / "train2017.tar", "w") as tar:
        tar.add(data.images.root / "train2017", "train2017")
    same = copy(data)
    same.images = ImageFolder(root)
    same.images.open_archives()
    return same


def drafted(data: DetectionDataset) -> DetectionDataset:
    """The same set, JPEGs decoded at the scale that is needed."""
    same = copy(data)
    same.draft = True
    return same


def draws(data: DetectionDataset | ImageLevel) -> Iterator[list[SampleIndex]]:
    """Batches without end: the images in turn, each time with other random numbers."""
    for start in count(0, BATCH):
        yield [SampleIndex(place % len(data), position=place) for place in range(start, start + BATCH)]


def our_batch(
    data: DetectionDataset | ImageLevel, batch: list[SampleIndex]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised (B, 3, H, W) and the mask, as the model gets them."""
    images = Collate()([data[draw] for draw in batch])[0].normalised()
    return images.tensor, images.mask


def pil_batch(
    data: DetectionDataset | ImageLevel, batch: list[SampleIndex]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same by PIL."""
    sample = (
        pil_pipeline.detection_sample if isinstance(data, DetectionDataset) else pil_pipeline.mosaic_sample
    )
    return pil_pipeline.batch([sample(data, draw) for draw in batch])[:2]


def differences(data: DetectionDataset | ImageLevel, batches: int) -> tuple[float, float]:
    """Grey levels between the two pipelines: the largest of any pixel, and the share of pixels beyond one.

    Raises AssertionError where sizes or paddings differ.
    """
    worst, beyond, pixels = 0.0, 0, 0
    grey = 255 * torch.tensor(IMAGENET_STD).view(3, 1, 1)
    for batch, _ in zip(draws(data), range(batches), strict=False):
        (ours, our_mask), (theirs, their_mask) = our_batch(data, batch), pil_batch(data, batch)
        assert torch.equal(our_mask, their_mask), "the pipelines disagree about sizes"
        difference = ((ours - theirs) * grey).abs()
        worst = max(worst, float(difference.max()))
        beyond += int((difference > 1 + ROUNDING).sum())
        pixels += difference.numel()
    return worst, beyond / pixels


def timed(
    case: str, data: DetectionDataset | ImageLevel, against: DetectionDataset | ImageLevel, batches: int
) -> Row:
    """One row, per image: our pipeline on `data`, PIL's on `against`."""
    ours, theirs = draws(data), draws(against)
    runs: dict[str, Callable[[], Any]] = {
        "ours": lambda: our_batch(data, next(ours)),
        PIL: lambda: pil_batch(against, next(theirs)),
    }
    seconds = interleaved(runs, batches, warmup=2)
    return Row(case, PIL, TIME, seconds["ours"] / BATCH, seconds[PIL] / BATCH)


def listing(path: Path, repeats: int) -> Row:
    """Listing the members of a tar that has no index yet, against Python's tarfile."""

    def ours() -> int:
        Path(f"{path}.index").unlink(missing_ok=True)
        return len(open_tar(path))

    def theirs() -> int:
        with tarfile.open(path, "r:") as tar:
            return len([(m.name, m.offset_data, m.size) for m in tar if m.isfile()])

    assert ours() == theirs()
    seconds = interleaved({"ours": ours, "tarfile": theirs}, repeats)
    return Row("loader/tar_index", "tarfile", TIME, seconds["ours"], seconds["tarfile"])


def compared(case: str, data: DetectionDataset | ImageLevel, resizes: int, batches: int) -> dict[str, str]:
    """The difference in words. Raises SystemExit where it is more than one grey level a resize."""
    worst, beyond = differences(data, batches)
    line = f"at most {worst:.3f}, more than 1 in {beyond:.1e} of all values, over {batches * BATCH} images"
    print(f"{case}: grey levels between ours and PIL's: {line}", flush=True)
    if worst > resizes + ROUNDING:
        raise SystemExit(f"{case}: differs by more than {resizes} grey levels")
    return {f"grey levels, {case}": line}


def main(arguments: list[str] | None = None) -> int:
    parser = argument_parser(__doc__, device=ONLY_REPORTED)
    parser.add_argument("--quick", action="store_true", help="few and small: does it run at all")
    options = parser.parse_args(arguments)
    scale = QUICK if options.quick else Scale()
    torch.set_num_threads(options.threads or 1)
    with tempfile.TemporaryDirectory() as folder:
        rows, notes = measured(Path(folder), scale, options.only)
    packages = ("torchvision", "pillow", "numpy")
    report(rows, device=options.device, packages=packages, json_path=options.json, notes=notes)
    return 0


def measured(root: Path, scale: Scale, only: list[str]) -> tuple[list[Row], dict[str, Any]]:
    """Rows of the wanted cases, and what is to be said about them."""
    rows: list[Row] = []
    notes: dict[str, Any] = {"images": f"JPEG of quality {images.QUALITY}, {scale.images} of each kind"}
    name = "loader/640x480"
    usual = detection(root / "usual", scale.images, (480, 640))
    cases = {name: usual, f"{name}/draft": drafted(usual), f"{name}/tar": from_tar(usual, root / "tar")}
    if any(wanted(case, only) for case in cases):
        notes |= compared(name, usual, 2, scale.batches)
        rows += [timed(c, data, usual, scale.batches) for c, data in cases.items() if wanted(c, only)]
    name = f"loader/{scale.large[1]}x{scale.large[0]}"
    if any(wanted(case, only) for case in (name, f"{name}/draft")):
        large = detection(root / "large", scale.images // 4, scale.large)
        for case, data in ((name, large), (f"{name}/draft", drafted(large))):
            rows += [timed(case, data, large, scale.batches // 2)] if wanted(case, only) else []
    if wanted("loader/mosaic", only):
        mosaics = image_level(root / "mosaic", scale.images)
        notes |= compared("loader/mosaic", mosaics, 3, scale.batches // 4)
        rows.append(timed("loader/mosaic", mosaics, mosaics, scale.batches // 2))
    if wanted("loader/tar_index", only):
        images.write_tar(root / "members.tar", scale.members, 2000)
        notes["tar_index"] = f"{scale.members} members"
        rows.append(listing(root / "members.tar", 3))
    return rows, notes


if __name__ == "__main__":
    sys.exit(main())
