"""RichSem with a ResNet-50 pre-trained on ImageNet-21k (MIIL), all of which trains.

Give the weights' place: `--options resnet_pretrain_path=/path/to/resnet50_miil_21k.pth`.
"""

_base_ = ["richsem_4scale.py"]

resnet_pretrain_path = "weights/resnet50_miil_21k.pth"
