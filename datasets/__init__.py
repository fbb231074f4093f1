"""From annotation and image files to batches; from detections to metrics. Imports only itself and `util`."""
