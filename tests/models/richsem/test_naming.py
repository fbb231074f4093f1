import logging

import pytest
import torch

from models.richsem.classifier import TextEmbeddings
from models.richsem.naming import check_sides, own_class_ranks
from models.richsem.teacher import Teacher
from tests.models.tiny import batch_of, target, tiny_clip
from util.errors import UserError
from util.structures import PaddedImages

WHOLE = [0.5, 0.5, 1.0, 1.0]
CLASSES = 4


@pytest.fixture(scope="module")
def shown():
    """(teacher, batches of one image of each class, the text embeddings that are what the teacher sees)."""
    teacher, colours = Teacher(tiny_clip().visual), [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 250)]
    batches = [
        (
            PaddedImages.from_list([torch.tensor(colours[label]).byte().view(3, 1, 1).expand(3, 64, 64)]),
            batch_of(target([WHOLE], [label])),
        )
        for label in range(CLASSES)
    ]
    seen = torch.cat([teacher(images.normalised(), targets).ground_truth for images, targets in batches])
    return teacher, batches, seen


def test_ranks_count_the_classes_that_are_nearer(shown):
    teacher, batches, seen = shown
    # What the teacher sees is the text of class 1; of the others, class 0 is nearer than only class 3.
    order = torch.stack((-seen[0] - 0.1 * seen[1], seen[0], seen[0] + 0.1 * seen[1], -seen[0]))
    assert own_class_ranks(teacher, TextEmbeddings(order, 1.0), *batches[0]).tolist() == [2]
    assert own_class_ranks(teacher, TextEmbeddings(seen, 1.0), *batches[2]).tolist() == [0]
    same = TextEmbeddings(torch.ones(CLASSES, seen.shape[1]), 1.0)
    assert own_class_ranks(teacher, same, *batches[0]).tolist() == [CLASSES - 1]
    assert own_class_ranks(teacher, TextEmbeddings(seen * torch.nan, 1.0), *batches[0]).tolist() == [
        CLASSES - 1
    ]


def test_matching_sides_are_logged_and_others_refused_with_their_numbers(shown, caplog):
    teacher, batches, seen = shown
    with caplog.at_level(logging.INFO):
        check_sides(teacher, TextEmbeddings(seen, 1.0), batches, "cpu", "PAIR")
    assert "the teacher names 4 of 4 image-level images right (chance: 1.0)" in caplog.text
    turned = TextEmbeddings(seen.roll(1, 0), 1.0)
    with pytest.raises(
        UserError, match=r"PAIR: names 0 of 4 .*\(chance: 1.0\): its image and text sides do not"
    ):
        check_sides(teacher, turned, batches, "cpu", "PAIR")
    check_sides(teacher, turned, [], "cpu", "PAIR")  # no images to ask about
    one = TextEmbeddings(seen[:1], 1.0)
    check_sides(teacher, one, batches[:1], "cpu", "PAIR")  # a single class: nothing to confuse
