//! Medical and tensor file formats of tomograd: NIfTI, safetensors, PNG, and volumes with geometry.
