//! What an agent beside a proxy does: asks for a certificate, and keeps it as files. See [`certificate`].

use prost_types::value::Kind;
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::authority::Identity;

const CREATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

#[derive(Clone, PartialEq, prost::Message)]
struct CertificateRequest {
    #[prost(string, tag = "1")]
    csr: String,
    #[prost(int64, tag = "3")]
    validity_duration: i64,
    #[prost(message, optional, tag = "4")]
    metadata: Option<prost_types::Struct>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CertificateResponse {
    #[prost(string, repeated, tag = "1")]
    cert_chain: Vec<String>,
}

/// What to ask for.
#[derive(Clone, Debug, Default)]
pub struct Ask<'a> {
    /// A bearer token.
    pub token: Option<&'a str>,
    /// How long the certificate should hold, in seconds; 0: as long as certificates do.
    pub seconds: i64,
    /// The SPIFFE name that the request asks for, which means nothing.
    pub name: &'a str,
    /// Whom it is for, if that is somebody else.
    pub impersonated: Option<&'a str>,
}

/// Asks for a certificate for a new key (P-256).
pub async fn certificate(channel: Channel, ask: &Ask<'_>) -> Result<Identity, Status> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(ask.name).unwrap())];
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    let chain = sign(channel, ask, csr).await?;
    let (roots, chain) = chain.split_last().expect("a chain");
    Ok(Identity::of(&chain.concat(), roots, &key))
}

/// Asks for a certificate of this request; the answer as it comes.
pub async fn sign(channel: Channel, ask: &Ask<'_>, csr: String) -> Result<Vec<String>, Status> {
    let metadata = ask.impersonated.map(|name| {
        let kind = Some(Kind::StringValue(name.to_owned()));
        prost_types::Struct { fields: [("ImpersonatedIdentity".to_owned(), prost_types::Value { kind })].into() }
    });
    let mut request = Request::new(CertificateRequest { csr, validity_duration: ask.seconds, metadata });
    if let Some(token) = ask.token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let codec = ProstCodec::<CertificateRequest, CertificateResponse>::default();
    Ok(grpc.unary(request, CREATE.parse().unwrap(), codec).await?.into_inner().cert_chain)
}
