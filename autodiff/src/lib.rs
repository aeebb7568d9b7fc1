//! Reverse-mode automatic differentiation for tomograd: variables, the tape, backward, checkpointing and gradient checks.
