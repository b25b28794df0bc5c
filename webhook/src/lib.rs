//! Sidecar injection and validation.
