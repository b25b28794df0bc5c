//! Sequences of answers, and a model: whatever happens, only whole worlds are seen.
