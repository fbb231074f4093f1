import torch

from config import Config
from models.dino.detector import Detector
from models.richsem.build import build_model

TINY = {
    "use_language": False,
    "use_visual_distill": False,
    "backbone": "resnet10t",
    "backbone_weights": "none",
    "backbone_args": {"channels": [16, 16, 32, 32], "stem_width": 8},
    "num_feature_levels": 3,
    "hidden_dim": 32,
    "nheads": 2,
    "enc_layers": 1,
    "dec_layers": 1,
    "num_queries": 5,
    "amp": False,
}


def made(config: Config) -> Detector:
    return build_model(config, ("cat", "dog", "oar"), (1, 1, 1)).model.eval()


def test_the_backbone_works_in_channels_last_and_computes_the_same():
    torch.manual_seed(0)
    models = [made(Config(**TINY, channels_last=on)) for on in (False, True)]
    models[1].load_state_dict(models[0].state_dict())
    images = torch.rand(2, 3, 64, 96)
    inside = []
    for model in models:
        model.backbone.body.register_forward_hook(lambda module, inputs, maps: inside.append(maps))
    plain, last = ([level.detach() for level in model.backbone(images)] for model in models)
    assert all(level.is_contiguous(memory_format=torch.channels_last) for level in inside[1])
    assert not any(level.is_contiguous(memory_format=torch.channels_last) for level in inside[0])
    for a, b in zip(plain, last, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        assert b.is_contiguous()


def test_a_vit_in_channels_last_computes_the_same():
    arguments = {"embed_dim": 16, "depth": 3, "num_heads": 2, "img_size": 32}
    changes = {"backbone": "vit_tiny_patch16_224", "backbone_args": arguments}
    torch.manual_seed(0)
    configs = [Config(**{**TINY, **changes, "channels_last": on}) for on in (False, True)]
    models = [made(config) for config in configs]
    models[1].load_state_dict(models[0].state_dict())
    images = torch.rand(2, 3, 40, 56)
    for a, b in zip(*(model.backbone(images) for model in models), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        assert b.is_contiguous()
