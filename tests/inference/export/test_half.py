import torch
from torch import nn

from inference.export.half import to_half
from models.dino.heads import LinearClassifier


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.inner = nn.Sequential(nn.Linear(8, 16, bias=False), nn.LayerNorm(16))
        self.classifier = LinearClassifier(16, 3)

    def forward(self, x):
        x = self.conv(x).flatten(2).transpose(1, 2)
        return self.classifier(self.inner(self.attention(x, x, x)[0]))


@torch.no_grad()
def test_linear_layers_and_convolutions_are_float16_between_float32():
    torch.manual_seed(0)
    net, x = Net().eval(), torch.randn(2, 4, 16, 12)
    before = net(x)
    after = to_half(net)(x)
    assert after.dtype == torch.float32
    assert 0 < float((after - before).abs().max()) < 1e-2
    halves = {name for name, tensor in net.state_dict().items() if tensor.dtype == torch.float16}
    assert halves == {"conv.weight", "conv.bias", "inner.0.weight"}


def test_a_number_beyond_float16_is_not_hidden():
    layer = to_half(nn.Sequential(nn.Linear(1, 1)))
    assert not torch.isfinite(layer(torch.tensor([[1e6]]))).all()
