//! Parameters, layers, losses, optimizers and schedules of tomograd.
