//! The API types that users write.
