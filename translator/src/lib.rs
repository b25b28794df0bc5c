//! Pure functions from a mesh and a proxy class to Envoy resources.
