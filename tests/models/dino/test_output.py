import pytest
import torch

from models.dino.heads import LinearClassifier
from models.dino.output import LayerOutput, LayerStack, QueryLogits, logits_of
from models.richsem.classifier import LanguageClassifier, TextEmbeddings


def test_a_stack_gives_its_layers_back():
    logits, boxes = torch.randn(2, 2, 5, 3), torch.rand(2, 2, 5, 4)
    stack = LayerStack(logits, boxes)
    assert len(stack) == 2 and stack.hidden is None
    for i, layer in enumerate(stack):
        assert torch.equal(layer.logits, logits[i]) and torch.equal(layer.boxes_cxcywh, boxes[i])
    assert torch.equal(stack[-1].logits, logits[1])
    one = LayerStack.of(LayerOutput(logits[0], boxes[0]))
    assert len(one) == 1 and torch.equal(one[0].logits, logits[0])


def test_what_only_the_last_layers_have_belongs_to_them():
    stack = LayerStack(torch.zeros(3, 2, 5, 3), torch.zeros(3, 2, 5, 4), embedding=torch.ones(1, 2, 5, 8))
    assert [part.embedding is None for part in stack] == [True, True, False]
    assert stack[-1].embedding.shape == (2, 5, 8)
    first, rest = stack.split_queries(2)
    assert first.classes.shape == (3, 2, 2, 3) and rest.classes.shape == (3, 2, 3, 3)
    assert rest.embedding.shape == (1, 2, 3, 8) and rest.hidden is None


@pytest.mark.parametrize("kind", ["linear", "language"])
def test_columns_are_those_of_all_classes(kind):
    """Values and gradients, with one row of columns for all and with one for each layer."""
    torch.manual_seed(0)
    classifier = LinearClassifier(8, 11)
    if kind == "language":
        classifier = LanguageClassifier(torch.nn.Linear(8, 6), TextEmbeddings(torch.randn(11, 6), 2.0))
    torch.nn.init.normal_(next(classifier.parameters()))
    classifier.double()
    queries = torch.randn(3, 2, 5, 8).double()
    whole = classifier(queries)
    lazy = QueryLogits(classifier.features(queries), classifier)
    assert torch.equal(logits_of(lazy), whole) and torch.equal(logits_of(lazy[1]), whole[1])
    for columns in (torch.tensor([4, 0, 4]), torch.randint(11, (3, 4))):
        expected, found = logits_of(whole, columns), logits_of(lazy, columns)
        assert torch.allclose(found, expected, atol=1e-12)
        gradients = [
            torch.autograd.grad(x.square().sum(), list(classifier.parameters()), retain_graph=True)
            for x in (expected, found)
        ]
        assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(*gradients, strict=True))
