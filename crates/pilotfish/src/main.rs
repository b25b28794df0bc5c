//! The `pilotfish` program; everything is in the library.

fn main() -> std::process::ExitCode {
    pilotfish::run()
}
