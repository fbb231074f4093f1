"""From annotation and image files to batches; from detections to metrics. Imports only itself and `util`.

Inside, a file may import what stands to its right: build -> run_data -> detection, image_level, loader,
evaluation -> opening -> augment, sampling, annotations -> images -> sample, columns.
"""
