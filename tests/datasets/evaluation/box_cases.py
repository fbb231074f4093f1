"""Random annotations and predictions, full of edge cases of box evaluation.

Coordinates and scores are coarse: equal IoUs, IoUs on a threshold and equal scores are common. There are
images and classes without boxes, boxes without area, crowded images and absent classes.
"""

import numpy as np


def lvis_case(seed: int) -> tuple[dict, list[dict]]:
    """(annotations, results): federated, not exhaustive, ignored boxes, some images with more than 300."""
    rng = np.random.default_rng(seed)
    content, results = _case(rng, max_per_image=340)
    num_classes = len(content["categories"])
    for image in content["images"]:
        lists = rng.random((2, num_classes)) < rng.choice([0.1, 0.5, 0.9])
        image["neg_category_ids"] = (np.flatnonzero(lists[0]) * 3 + 2).tolist()
        image["not_exhaustive_category_ids"] = (np.flatnonzero(lists[1]) * 3 + 2).tolist()
    for annotation in content["annotations"]:
        annotation |= {"ignore": 1} if rng.random() < 0.15 else {}
    return content, results


def coco_case(seed: int) -> tuple[dict, list[dict]]:
    """(annotations, results): crowds, some images with more than 100 detections of a class."""
    rng = np.random.default_rng(seed)
    content, results = _case(rng, max_per_image=int(rng.choice([100, 700])))
    for annotation in content["annotations"]:
        annotation["iscrowd"] = int(rng.random() < 0.2)
    return content, results


def _case(rng: np.random.Generator, max_per_image: int) -> tuple[dict, list[dict]]:
    num_images, num_classes = int(rng.integers(1, 8)), int(rng.integers(1, 7))
    # Detections have one class more, which only uses up max_dets. One annotated class may have no box at all.
    shown = max(1, num_classes - int(rng.integers(2)))
    grid = int(rng.choice([4, 16, 40]))
    first_id = int(rng.choice([1, 2, 50]))
    images, annotations, results = [], [], []

    def box(smallest: int) -> list[float]:
        corner, size = rng.integers(0, 6, 2) * grid, rng.integers(smallest, 6, 2) * grid
        return [*map(float, corner), *map(float, size)]

    for image_id in map(int, rng.permutation(100)[:num_images]):
        images.append({"id": image_id, "width": 640, "height": 480, "file_name": f"{image_id}.jpg"})
        for _ in range(int(rng.integers(0, 12)) * int(rng.random() < 0.9)):
            xywh = box(1)
            fill = float(rng.choice([0, 0.5, 1], p=[0.05, 0.25, 0.7]))
            annotations.append(
                {
                    "id": first_id + len(annotations),
                    "image_id": image_id,
                    "bbox": xywh,
                    "area": xywh[2] * xywh[3] * fill,
                    "category_id": int(rng.integers(shown)) * 3 + 2,
                }
            )
        count = max_per_image if rng.random() < 0.15 else int(rng.integers(0, 60))
        for _ in range(count):
            results.append(
                {
                    "image_id": image_id,
                    "category_id": int(rng.integers(num_classes + 1)) * 3 + 2,
                    "bbox": box(int(rng.random() < 0.95)),
                    "score": float(rng.integers(0, 20)) / 20,
                }
            )
    frequencies = rng.choice(["r", "c", "f"], num_classes).tolist()
    categories = [
        {"id": i * 3 + 2, "name": f"class {i}", "frequency": f, "image_count": 1}
        for i, f in enumerate(frequencies)
    ]
    annotated = [annotations[i] for i in rng.permutation(len(annotations))]
    content = {"images": images, "annotations": annotated, "categories": categories}
    return content, [results[i] for i in rng.permutation(len(results))]


def perfect(annotations):
    """Results that are every box of an `AnnotationTable`, with score 0.5."""
    columns = zip(
        annotations.image_ids[annotations.image_index].tolist(),
        annotations.category_ids[annotations.category_index].tolist(),
        annotations.boxes_xywh.tolist(),
        strict=True,
    )
    return [detection(*c) for c in columns]


def detection(image_id=1, category_id=1, bbox=(10.0, 8.0, 20.0, 16.0), score=0.5):
    """One entry of results. bbox: x, y, width, height in pixels."""
    return {"image_id": image_id, "category_id": category_id, "bbox": list(bbox), "score": score}
