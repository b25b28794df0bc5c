//! Sources of configuration, and the synchronous index that joins them into a mesh.
