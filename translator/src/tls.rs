//! TLS contexts: the mesh's own certificates, and those of users.
