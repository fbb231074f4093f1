import numpy as np
import pytest
from PIL import Image

from inference.drawing import LabelledBox, class_colour, draw_boxes

GREY = (90, 90, 90)


def grey(width: int = 200, height: int = 150) -> Image.Image:
    return Image.new("RGB", (width, height), GREY)


def changed(drawn: Image.Image) -> np.ndarray:
    """(h, w) bool: where something was drawn on a grey image."""
    return (np.asarray(drawn) != GREY).any(axis=2)


def test_the_image_itself_is_left_alone():
    image = grey()
    drawn = draw_boxes(image, [LabelledBox((10, 40, 60, 90), "cat", 0.5)])
    assert not changed(image).any()
    assert changed(drawn).any() and drawn.size == image.size


def test_the_rectangle_is_where_the_box_is():
    drawn = draw_boxes(grey(), [LabelledBox((20, 50, 80, 110), "cat")])
    colour = class_colour("cat")
    pixels = np.asarray(drawn)
    for x, y in ((20, 80), (79, 80), (50, 109)):
        assert tuple(pixels[y, x]) == colour
    for x, y in ((19, 80), (80, 80), (50, 110), (50, 80)):
        assert tuple(pixels[y, x]) == GREY


@pytest.mark.parametrize(
    "box", [(0, 0, 30, 30), (170, 0, 200, 20), (150, 130, 199, 149), (-50, -50, 400, 400), (60, 60, 61, 61)]
)
def test_the_name_stays_inside_the_image(box):
    names = ["a_rather_long_class_name", "b"]
    for name in names:
        drawn = draw_boxes(grey(), [LabelledBox(box, name, 0.25)])
        filled = (np.asarray(drawn) == class_colour(name)).all(axis=2)
        # A name cut at an edge would have its filled label touch that edge with less than its own height.
        rows = (
            np.flatnonzero(filled.sum(axis=1) > 20) if len(name) > 5 else np.flatnonzero(filled.any(axis=1))
        )
        assert len(rows) >= 8
        assert changed(drawn).any()


def test_a_name_wider_than_the_image_is_cut_not_lost():
    drawn = draw_boxes(grey(40, 60), [LabelledBox((5, 20, 30, 50), "an_endless_name_" * 5, 0.9)])
    assert drawn.size == (40, 60)
    assert changed(drawn)[:, 0].any()


def test_names_of_boxes_in_one_place_do_not_cover_each_other():
    boxes = [LabelledBox((60, 60, 120, 120), name, 0.5) for name in ("first", "second", "third")]
    pixels = np.asarray(draw_boxes(grey(), boxes))
    areas = [(pixels == class_colour(b.name)).all(axis=2).sum() for b in boxes]
    alone = [(np.asarray(draw_boxes(grey(), [b])) == class_colour(b.name)).all(axis=2).sum() for b in boxes]
    # The rectangles lie on one another; the labels do not.
    outline = 4 * 60
    assert all(area > whole - outline - 10 for area, whole in zip(areas, alone, strict=True))


def test_a_box_outside_the_image_does_not_fail():
    far, inverted = LabelledBox((500, 500, 600, 600), "far"), LabelledBox((50, 50, 20, 20), "inverted")
    assert draw_boxes(grey(), [far, inverted]).size == grey().size


def test_colours_are_stable_and_differ():
    assert class_colour("cat") == class_colour("cat")
    assert len({class_colour(f"class_{i}") for i in range(40)}) > 35
    assert all(0 <= v <= 255 for v in class_colour("x"))


def test_small_images_are_enlarged_by_a_whole_number():
    drawn = draw_boxes(grey(160, 120), [LabelledBox((20, 50, 80, 110), "cat")], min_side=300)
    assert drawn.size == (480, 360)
    assert tuple(np.asarray(drawn)[240, 60]) == class_colour("cat")


def test_no_box_gives_the_image():
    assert not changed(draw_boxes(grey(), [])).any()


def test_a_grey_scale_image_becomes_rgb():
    drawn = draw_boxes(Image.new("L", (60, 60)), [LabelledBox((5, 20, 40, 50), "cat")])
    assert drawn.mode == "RGB"
