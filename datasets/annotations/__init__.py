"""Annotations in every format (LVIS, COCO, YOLO, a folder per class) -> columns."""
