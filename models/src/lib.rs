//! The model zoo of tomograd and its registry.
