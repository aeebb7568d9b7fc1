//! tomograd: a deep learning framework for medical images.
