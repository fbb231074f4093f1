import pytest
import torch

from models.dino.encoder import Encoder, reference_points
from models.dino.position import SinePosition
from models.dino.pyramid import Pyramid, cells, valid_ratios
from tests.models.tiny import pyramid


def padded_mask() -> torch.Tensor:
    mask = torch.zeros(2, 64, 64, dtype=torch.bool)
    mask[1, 48:] = True
    mask[1, :, 32:] = True
    return mask


def encoder(layers: int = 2) -> Encoder:
    torch.manual_seed(0)
    return Encoder(
        dim=32,
        num_layers=layers,
        levels=2,
        heads=4,
        points=2,
        ffn_dim=48,
        dropout=0.0,
        position=SinePosition(32),
    ).double()


def test_references_against_a_slow_loop():
    """A token looks at its own place, which on another level is scaled by that level's valid share."""
    memory = pyramid([(8, 8), (4, 4)], mask=padded_mask())
    places = reference_points(memory)
    assert places.shape == (2, 80, 2, 2)
    for b in range(2):
        token = 0
        for level, (height, width) in enumerate(memory.shapes):
            valid_w, valid_h = (memory.valid_ratios[b, level] * torch.tensor([width, height])).tolist()
            for row in range(height):
                for column in range(width):
                    own = ((column + 0.5) / valid_w, (row + 0.5) / valid_h)
                    for other in range(2):
                        ratio_w, ratio_h = memory.valid_ratios[b, other].tolist()
                        expected = (own[0] * ratio_w, own[1] * ratio_h)
                        assert places[b, token, other].tolist() == pytest.approx(expected)
                    token += 1


def test_the_token_of_a_cell_looks_at_that_cell():
    """On its own level the place is the cell's centre in 0..1 of the padded level."""
    places = reference_points(pyramid([(8, 8), (4, 4)], mask=padded_mask()))
    assert places[1, 0, 0].tolist() == pytest.approx([0.5 / 8, 0.5 / 8])
    assert places[1, 64 + 4 * 3 + 2, 1].tolist() == pytest.approx([2.5 / 4, 3.5 / 4])


def levels() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 32, n, n, generator=generator).double() for n in (8, 4)]


def test_embedding_adds_position_and_level():
    part = encoder()
    found = part.embed(levels(), padded_mask())
    assert found.shapes == ((8, 8), (4, 4)) and all(type(n) is int for shape in found.shapes for n in shape)
    assert found.mask.sum(1).tolist() == [0, (64 - 6 * 4) + (16 - 3 * 2)]
    where = cells(((4, 4),), torch.device("cpu"), torch.float64)
    coarse = part.position(where, valid_ratios(padded_mask()[:, ::16, ::16].flatten(1), where))
    assert torch.allclose(found.positions[:, 64:], coarse + part.level_embed[1])
    assert torch.equal(found.tokens[:, 64:], levels()[1].flatten(2).transpose(1, 2))


def test_padding_does_not_reach_valid_tokens():
    part = encoder()
    first = levels()
    second = [x.clone() for x in first]
    second[0][1, :, 6:] = 100.0
    second[1][1, :, :, 2:] = -100.0
    a, b = part(first, padded_mask()), part(second, padded_mask())
    assert torch.equal(a.tokens[~a.mask], b.tokens[~b.mask])
    assert not torch.equal(a.tokens[a.mask], b.tokens[b.mask])


def test_images_do_not_reach_each_other():
    part = encoder()
    both = part(levels(), padded_mask())
    alone = part([x[1:] for x in levels()], padded_mask()[1:])
    assert torch.allclose(both.tokens[1:], alone.tokens, atol=1e-10)


def test_layers_are_applied_in_order_on_what_is_known_of_the_tokens():
    part = encoder(layers=2)
    embedded = part.embed(levels(), padded_mask())
    references = reference_points(embedded)
    tokens = embedded.tokens
    for layer in part.layers:
        tokens = layer(tokens, embedded, references)
    encoded = part(levels(), padded_mask())
    assert isinstance(encoded, Pyramid)
    assert torch.equal(encoded.tokens, tokens)
    assert torch.equal(encoded.mask, embedded.mask)
