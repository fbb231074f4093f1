import torch

from models.dino.output import LayerOutput, LayerStack


def layer(seed: int) -> LayerOutput:
    generator = torch.Generator().manual_seed(seed)
    return LayerOutput(torch.randn(2, 5, 3, generator=generator), torch.rand(2, 5, 4, generator=generator))


def test_a_stack_gives_its_layers_back():
    first, second = layer(0), layer(1)
    stack = LayerStack.of(first, second)
    assert len(stack) == 2 and stack.hidden is None
    for found, expected in zip(stack, (first, second), strict=True):
        assert torch.equal(found.logits, expected.logits)
        assert torch.equal(found.boxes_cxcywh, expected.boxes_cxcywh)
    assert torch.equal(stack[-1].logits, second.logits)


def test_what_only_the_last_layers_have_belongs_to_them():
    stack = LayerStack(torch.zeros(3, 2, 5, 3), torch.zeros(3, 2, 5, 4), embedding=torch.ones(1, 2, 5, 8))
    assert [part.embedding is None for part in stack] == [True, True, False]
    assert stack[-1].embedding.shape == (2, 5, 8)
    cut = stack.slice_queries(1, 3)
    assert cut.logits.shape == (3, 2, 2, 3) and cut.embedding.shape == (1, 2, 2, 8)
