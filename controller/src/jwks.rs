//! JSON Web Key Sets: what tokens are signed with. [`keys`] tells which of them proxies take.

pub mod keys;
