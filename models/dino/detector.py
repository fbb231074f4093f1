"""The detector: backbone, neck, encoder, query selection, decoder, head."""

from __future__ import annotations

import torch
from torch import nn

from models.dino.backbone import Backbone
from models.dino.decoder import Decoder
from models.dino.denoising import Denoising
from models.dino.encoder import Encoder
from models.dino.heads import DecoderHead
from models.dino.neck import Neck
from models.dino.output import DetectorOutput
from models.dino.pyramid import Pyramid
from models.dino.query_selection import QuerySelection, Selection
from models.dino.sixteen_bit import autocast_type, exact_convolutions, in_sixteen_bit
from util.structures import PaddedImages, Targets


class Detector(nn.Module):
    """DINO: images -> class scores and boxes."""

    def __init__(
        self,
        backbone: Backbone,
        neck: Neck,
        encoder: Encoder,
        query_selection: QuerySelection,
        decoder: Decoder,
        head: DecoderHead,
        denoising: Denoising | None,
    ):
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.encoder = encoder
        self.query_selection = query_selection
        self.decoder = decoder
        self.head = head
        self.denoising = denoising

    def forward(self, images: PaddedImages, targets: Targets | None = None) -> DetectorOutput:
        """images of B images; targets are used by denoising, in training only."""
        memory = self.encode(images)
        return self.decode(memory, self.query_selection(memory), targets)

    def encode(self, images: PaddedImages) -> Pyramid:
        """The images as the decoder sees them."""
        device = images.tensor.device
        # The neck's convolutions are padded: maps of one column come from images of half that width.
        stride = self.backbone.strides[-1] * max(1.0, self.neck.stride / 2)
        with exact_convolutions(images.tensor, stride):
            maps, dtype = self.backbone(images.tensor), autocast_type(device)
            if dtype is not None:
                maps = [m.to(dtype) for m in maps]
            levels = in_sixteen_bit(self.neck, device, maps)
        return self.encoder(levels, images.mask)

    def decode(self, memory: Pyramid, selection: Selection, targets: Targets | None = None) -> DetectorOutput:
        """The predictions of the selected queries, and in training those of denoising."""
        queries, reference_boxes, mask, layout = selection.queries, selection.reference_boxes, None, None
        if self.training and self.denoising is not None and targets is not None:
            noised = self.denoising(targets, queries.shape[1])
            queries = torch.cat((noised.queries.to(queries.dtype), queries), dim=1)
            noised_boxes = noised.reference_boxes.to(reference_boxes.dtype)
            reference_boxes = torch.cat((noised_boxes, reference_boxes), dim=1)
            mask, layout = noised.mask, noised.layout
        # The earlier layers' predictions serve their losses alone.
        states = self.decoder(
            queries, reference_boxes, memory, self.head.box_head, mask, every_layer=self.training
        )
        layers = self.head(states)
        if layout is None:
            return DetectorOutput(layers, selection.encoder)
        denoising, matching = layers.split_queries(layout.num_denoising_queries)
        return DetectorOutput(matching, selection.encoder, denoising, layout)

    @property
    def selections(self) -> tuple[QuerySelection, ...]:
        """The selections of queries, in the order of the output's queries."""
        return (self.query_selection,)

    @property
    def device(self) -> torch.device:
        return self.encoder.level_embed.device
