"""The JSON in exactly the form that Detic writes and RichSem reads."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets.annotations.json_stream import write_entries
from tools.imagenet_lvis.scan import Task, finished_part
from util.files import atomic_write


def write_json(
    path: Path,
    categories: Sequence[Mapping[str, Any]],
    tasks: Sequence[tuple[int, Task]],
    image_counts: Mapping[int, int],
) -> None:
    """Writes `categories`, `images`, and `annotations`, which stays empty.

    categories:   LVIS's own; their `image_count` becomes that of the image-level images, 0 for none.
    tasks:        (category id, finished task), in the order of the images, whose ids are 1, 2, ...
    image_counts: category id -> images.
    """
    with atomic_write(path) as file:
        write_entries(file, _entries(categories, tasks, image_counts))


def _entries(
    categories: Sequence[Mapping[str, Any]], tasks: Sequence[tuple[int, Task]], counts: Mapping[int, int]
) -> Iterator[tuple[str, str, bool]]:
    for category in categories:
        entry = {**category, "image_count": counts.get(category["id"], 0)}
        yield "categories", json.dumps(entry), True
    number = 0
    for category_id, task in tasks:
        for image in finished_part(task).images:
            number += 1
            entry = {
                "id": number,
                "file_name": image.name,
                "pos_category_ids": [category_id],
                "width": image.width,
                "height": image.height,
            }
            yield "images", json.dumps(entry), True
    yield "annotations", "[]", False
