//! Suites that run the real binary against real clients.
