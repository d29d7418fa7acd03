"""The gradients room: checkpoints to gradient cosines and log-norms.

seeds     the loss gradient with respect to the outputs, exact where float32 is not
gram      the public functions
engine    which units share a pass, within the memory budget; sums over units
layered   which layers have a fast path, proved on single examples; capture runs their passes
layers/   one file a family of layers: what is kept of an example's gradient
kept      the forms of what is kept, and their products
fallback  everything else, by vmap or one example at a time
reference the obviously correct loop that all of this must equal
"""
