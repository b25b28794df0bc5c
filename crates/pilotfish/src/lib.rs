//! The control plane: arguments, wiring, supervision, command line.
