"""Better 4-bit weights than those rounded to nearest, and what single layers lose by them; without torch.

`search.py` fits the scales of blocks, `gptq.py` also chooses the steps so that errors cancel on real inputs.
Those inputs come from `walk.py`, which takes rows of text, pictures and recordings through the decoder one
layer at a time, in float32 and in the memory of one layer. `sensitivity.py` tells how far the next-token
distributions move when one layer is quantised, `mixed.py` gives the worst ones 8 bits.
"""
