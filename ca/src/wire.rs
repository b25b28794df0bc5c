//! Messages of `istio.v1.auth.IstioCertificateService`, which every agent of the mesh speaks. Written down by hand: two
//! messages are less than a code generator.

/// Path of the one method.
pub const CREATE_CERTIFICATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// `IstioCertificateRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateRequest {
    /// PKCS#10 as PEM.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// Wanted lifetime in seconds.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    /// Whom it is for, if that is somebody else.
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<prost_types::Struct>,
}

/// `IstioCertificateResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateResponse {
    /// PEM: leaf, what leads to a root one per element, all trusted roots as the last element.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}
