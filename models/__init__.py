"""Models: `models.dino` is the detector, `models.richsem` what RichSem adds to it.

They import `util`, and models.richsem -> models.dino -> models.dino.ops; only build.py and
load.py import `config`.
"""
