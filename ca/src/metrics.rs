//! What the certificate authority counts, under the names that dashboards know.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why signing failed, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignError {
    /// There is no key yet.
    NotReady,
    /// The request is bad.
    Csr,
    /// It asks for too long a life.
    Ttl,
    /// Signing failed.
    Generation,
    /// There is nobody to name.
    Unknown,
}

impl SignError {
    /// All of them with their label.
    pub const ALL: [(SignError, &'static str); 5] = [
        (SignError::NotReady, "CA_NOT_READY"),
        (SignError::Csr, "CSR_ERROR"),
        (SignError::Ttl, "TTL_ERROR"),
        (SignError::Generation, "CERT_GEN_ERROR"),
        (SignError::Unknown, "UNKNOWN"),
    ];
}

/// Counters.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: AtomicU64,
    issued: AtomicU64,
    unauthenticated: AtomicU64,
    unparsed: AtomicU64,
    sign_errors: [AtomicU64; 5],
}

impl Metrics {
    pub(crate) fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn success(&self) {
        self.issued.fetch_add(1, Ordering::Relaxed);
    }

    /// A caller was refused.
    pub fn refused(&self) {
        self.unauthenticated.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failure(&self, error: SignError) {
        if error == SignError::Csr {
            self.unparsed.fetch_add(1, Ordering::Relaxed);
        }
        self.sign_errors[error as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Name, help and figure of all counters without labels.
    pub fn counters(&self) -> [(&'static str, &'static str, u64); 5] {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("citadel_server_csr_count", "Requests for certificates", get(&self.requests)),
            ("citadel_server_success_cert_issuance_count", "Certificates that were issued", get(&self.issued)),
            ("citadel_server_authentication_failure_count", "Requests of callers that were refused", get(&self.unauthenticated)),
            ("citadel_server_csr_parsing_err_count", "Requests that are not well formed", get(&self.unparsed)),
            (
                "citadel_server_id_extraction_err_count",
                "Requests of callers without an identity",
                get(&self.sign_errors[SignError::Unknown as usize]),
            ),
        ]
    }

    /// `citadel_server_csr_sign_err_count` by its label `error`.
    pub fn sign_errors(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        SignError::ALL.into_iter().map(|(error, label)| (label, self.sign_errors[error as usize].load(Ordering::Relaxed)))
    }
}
