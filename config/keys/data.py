"""Keys of the data: images, augmentation, sampling, the image-level stream."""

from __future__ import annotations

from dataclasses import dataclass

from config.values import config_field


@dataclass(frozen=True, kw_only=True)
class DataKeys:
    """Which images are read, how they are augmented, and in which order."""

    num_classes: int = config_field(
        0,
        "0 = derived from the data; the official value (largest category id + 1) is accepted",
        minimum=0,
    )
    dn_labelbook_size: int = config_field(
        0, "0 = derived; the official value must be at least `num_classes`", minimum=0
    )
    batch_size: int | str = config_field(
        2,
        "Box-annotated images per process and step; `auto`: the most whose forecast memory fits the device",
        minimum=1,
    )
    sub_batch_size: int = config_field(
        0,
        "Image-level images per process and step (a mosaic counts as one); 0 = `batch_size`",
        minimum=0,
        official=False,
    )

    classes: tuple[str, ...] = config_field(
        (),
        "Classes to keep, by their names after `merge` and `rename`; empty = all",
        official=False,
    )
    rename: dict[str, str] = config_field(  # noqa: RUF009
        {}, "Other names for classes: `{'old': 'new'}`; after `merge`", official=False
    )
    merge: dict[str, tuple[str, ...]] = config_field(  # noqa: RUF009
        {}, "Classes that become one: `{'vehicle': ['car', 'truck']}`", official=False
    )
    labelled_classes: dict[str, tuple[str, ...]] = config_field(  # noqa: RUF009
        {},
        "Data sets in which only some of their classes were labelled: `{'street': ['car', 'bus']}`; a set is "
        "named after its folder",
        official=False,
    )
    set_weights: tuple[float, ...] = config_field(
        (),
        "How often an image of each data set of `--data_path` is seen, relative to 1; empty = 1 each",
        minimum=0,
        official=False,
    )

    data_aug_scales: tuple[int, ...] = config_field(
        (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800),
        "Short sides in pixels: training samples one per image, evaluation uses the largest",
        minimum=1,
        maximum=8192,
    )
    data_aug_max_size: int = config_field(
        1333, "Maximum long side in pixels after resizing", minimum=1, maximum=16384
    )
    data_aug_scales2_resize: tuple[int, ...] = config_field(
        (400, 500, 600), "Short sides in pixels of the resize before a random crop", minimum=1, maximum=8192
    )
    data_aug_scales2_crop: tuple[int, int] = config_field(
        (384, 600), "Smallest and largest side of that crop in pixels", minimum=1, maximum=8192
    )
    val_share: float = config_field(
        0.0,
        "Share of the training images that is for validation, where the data has no validation split; "
        "0 = none",
        minimum=0,
        maximum=0.9,
        official=False,
    )
    max_damaged_share: float = config_field(
        0.1,
        "Share of a stream's images that may be damaged; more end the run. Others are drawn in their place",
        minimum=0,
        maximum=1,
        official=False,
    )
    decode_draft: bool = config_field(
        True,
        "Decode JPEGs at 1/2, 1/4 or 1/8 of their size if the first resize at least halves them",
        official=False,
    )
    color_jitter: float = config_field(
        0.0,
        "Strength of brightness, contrast and saturation jitter in training",
        minimum=0,
        maximum=1,
        official=False,
    )
    photometric: tuple[str, ...] = config_field(
        (),
        "Photometric transforms of torchvision v2, written as calls, applied last in training: "
        "`['GaussianBlur(5)', 'RandomApply([ColorJitter(hue=0.1)], p=0.3)']`",
        official=False,
    )
    pad_size_divisor: int = config_field(
        1,
        "Batches are padded to a multiple of this in height and width",
        minimum=1,
        maximum=4096,
        official=False,
    )

    group_by_aspect: bool = config_field(
        False,
        "Build box-annotated batches from images of similar aspect ratio: less padding",
        official=False,
    )

    use_rfs: bool = config_field(
        True, "Repeat-factor sampling of the box-annotated images (Gupta et al., 2019)"
    )
    rfs_repeat_sh: float = config_field(
        0.001, "Repeat-factor threshold: classes in a smaller fraction of the images are repeated", minimum=0
    )
    use_cas: bool = config_field(False, "Class-aware sampling instead: pick a class, then one of its images")

    use_imagenet: bool = config_field(True, "Also train on the image-level stream (ImageNet-LVIS)")
    imagenet_path: str = config_field(
        "",
        "Folder with `imagenet_lvis_image_info.json` and `images/`, or with a folder or tar per class; empty "
        "(or the official placeholder) = `imagenet-lvis` inside `--data_path`",
    )
    imagenet_use_mosaic: bool = config_field(True, "Combine image-level images into 2x2 mosaics")
    mosaic_size: int = config_field(
        1280, "Side of the square mosaic canvas in pixels", minimum=2, maximum=8192, official=False
    )
    mosaic_centre: tuple[float, float] = config_field(
        (0.5, 1.5),
        "Range of the mosaic centre in half canvas sides (1 = the middle)",
        minimum=0,
        maximum=2,
        official=False,
    )
    mosaic_fill: int = config_field(
        114, "Grey level of the empty canvas", minimum=0, maximum=255, official=False
    )
    main_weight: int = config_field(
        1, "Box-annotated batches per cycle of the two streams", minimum=1, maximum=10_000
    )
    sub_weight: int = config_field(
        1, "Image-level batches per cycle of the two streams", minimum=1, maximum=1000
    )
    image_level_repeat_sh: float = config_field(
        0.0,
        "Image-level images of classes in a smaller fraction of the box-annotated images come more often, by "
        "the repeat factors of `rfs_repeat_sh`; 0 = all alike",
        minimum=0,
        official=False,
    )
    image_level_start: float = config_field(
        0.0,
        "Epochs without image-level batches at the beginning, below 1 their share of `epochs`; box-annotated "
        "batches take their places",
        minimum=0,
        official=False,
    )
    image_level_end: int = config_field(
        0,
        "Epochs after which there are no image-level batches any more; 0 = to the end",
        minimum=0,
        official=False,
    )
    image_level_weight: float = config_field(
        1.0,
        "Weight of an image-level batch: of its losses, and of `clip_max_norm` in its step, which clipping "
        "would else make as long as any other (Detic weighs its image loss 0.1)",
        minimum=0,
        official=False,
    )
