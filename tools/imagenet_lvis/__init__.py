"""From ImageNet's images to imagenet_lvis_image_info.json.

scan      names and sizes of one class's images, kept in a file of its own once they are complete
coverage  what is there of LVIS's classes, and what could not be used
"""
