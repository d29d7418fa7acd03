"""The gradients room: checkpoints to gradient cosines and log-norms.

gram              the public functions
engine            Gram matrices within a memory budget, from four parts:
  cover           which parameters have a fast path, proved on single examples
  plan            the form of each unit and the grouping of passes, once per architecture
  passes          inputs and output gradients of layers, from shared passes
  sweep           one block of a deep network after another, where not all gradients fit
  multiply        the forms of gradients, and their products
uses              parameters that belong to no layer of a family, by the operators that use them
families/         one file per family of layers: the gradients of one call of a layer
fallback          parameters without a fast path, by vmap or one example at a time
texts           chunks of texts of similar length, without their padding
output_grads      the loss gradient with respect to the outputs, exact where float32 is not
causal_lm         the loss of next tokens, of sequences or of single tokens
memory            what a budget is, and what a pass takes
reference         the obviously correct loop that all of this must equal

measure, layer_gradients, whole_set, rounding and representations write the files of a segment's
checkpoints.
"""
