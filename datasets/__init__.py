"""Annotations, images, augmentation, sampling, mixing and LVIS evaluation. Imports only itself and
`util`."""
