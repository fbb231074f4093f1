"""Models: `models.dino` is the detector, `models.richsem` what RichSem adds to it."""
