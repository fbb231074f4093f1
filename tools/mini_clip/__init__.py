"""A small CLIP trained on image-level images: the teacher where OpenAI's weights cannot be downloaded.

images  the image-level tree, read and kept small
canvas    many images side by side, as RichSem's mosaic does, so that regions are what is learnt
model     the open_clip model, its regions, its two files
loss      the contrastive loss with several images of one class in a batch
muon      the optimizer of its matrices
train     the loop
evaluate  zero-shot accuracy on held-out images, and on boxes (a diagnosis, never a choice)
"""
