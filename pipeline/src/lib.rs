//! Transforms, datasets, loaders, sliding-window inference and metrics of tomograd.
