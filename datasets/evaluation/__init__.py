"""Detections -> LVIS and COCO box metrics.

evaluator.py runs lvis.py or coco.py; both take predictions.py in detection_batches.py, match them to
ground_truth.py in matching.py, and turn the matches into precision_recall.py and a result.py.
"""
