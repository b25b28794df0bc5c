//! [`Serving`]: TLS of our own ports. Certificate, trusted clients and revocation lists are exchanged while connections go on;
//! the configuration that a server holds stays the same object.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName as ClientNames, RootCertStore, ServerConfig, SignatureScheme};

use crate::material::{Material, MaterialError};
use crate::root::{SKEW, serial};

/// What connections may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Refuse TLS 1.2.
    pub only_tls13: bool,
    /// Cipher suites of TLS 1.2 by their IANA names; empty for those of the provider. Those of TLS 1.3 are always offered.
    pub cipher_suites: Vec<String>,
}

/// What a server asks for is not there.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A cipher suite that the provider does not know.
    #[error("cipher suite {0:?} is not one of {1}")]
    Cipher(String, String),
    /// Key, certificate or roots are not usable.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
    /// No certificate can be made.
    #[error("no serving certificate: {0}")]
    Certificate(String),
    /// Files of a certificate are not whole.
    #[error(transparent)]
    Files(#[from] MaterialError),
}

/// See the module's documentation. Clones share what is exchanged.
#[derive(Clone, Debug, Default)]
pub struct Serving {
    key: Arc<Key>,
    clients: Arc<Clients>,
}

impl Serving {
    /// For servers whose clients may prove who they are by a certificate. One that does not lead to a trusted root, or is
    /// revoked, ends the connection; none at all is no mistake.
    pub fn for_proxies(&self, options: &Options) -> Result<Arc<ServerConfig>, TlsError> {
        let builder = builder(options)?.with_client_cert_verifier(self.clients.clone());
        let mut config = builder.with_cert_resolver(self.key.clone());
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    /// For servers that ask for no certificate: webhooks.
    pub fn for_anyone(&self, options: &Options) -> Result<Arc<ServerConfig>, TlsError> {
        let mut config = builder(options)?.with_no_client_auth().with_cert_resolver(self.key.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Serves this certificate from now on.
    pub fn set_certificate(&self, chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<(), TlsError> {
        let certified = CertifiedKey::from_der(chain, key, &provider())?;
        *self.key.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(certified));
        Ok(())
    }

    /// Trusts clients of these roots from now on.
    pub fn set_clients(
        &self,
        roots: &[CertificateDer<'static>],
        revoked: Vec<CertificateRevocationListDer<'static>>,
    ) -> Result<(), TlsError> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots.iter().cloned());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider())
            .with_crls(revoked)
            .allow_unknown_revocation_status()
            .allow_unauthenticated()
            .build()
            .map_err(|e| TlsError::Certificate(e.to_string()))?;
        *self.clients.0.write().unwrap_or_else(PoisonError::into_inner) = Some(verifier);
        Ok(())
    }
}

/// A certificate for a server of these names, with a key of its own: what to hand to [`Serving::set_certificate`].
pub fn serving_certificate(
    material: &Material,
    names: &[String],
    ttl: Duration,
    now: SystemTime,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let failed = |e: rcgen::Error| TlsError::Certificate(e.to_string());
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for name in names {
        params.subject_alt_names.push(match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(Ia5String::try_from(name.as_str()).map_err(failed)?),
        });
    }
    params.not_before = (now - SKEW).into();
    params.not_after = (now + ttl).min(material.not_after()).into();
    params.serial_number = Some(serial().ok_or_else(|| TlsError::Certificate("no randomness".into()))?);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.is_ca = rcgen::IsCa::ExplicitNoCa;
    let leaf = params.signed_by(&key, &material.issuer).map_err(failed)?;
    let chain = std::iter::once(leaf.der().clone()).chain(material.chain().iter().cloned()).collect();
    Ok((chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into()))
}

/// One provider for everything.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn builder(options: &Options) -> Result<rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>, TlsError> {
    let mut provider = aws_lc_rs::default_provider();
    if !options.cipher_suites.is_empty() {
        let name = |suite: &rustls::SupportedCipherSuite| format!("{:?}", suite.suite());
        // IANA says TLS_AES_..., the library TLS13_AES_...; those of TLS 1.3 are not to be chosen from.
        let known: Vec<String> = provider.cipher_suites.iter().map(name).collect();
        if let Some(wrong) = options.cipher_suites.iter().find(|s| !known.contains(s) && !known.contains(&s.replacen("TLS_", "TLS13_", 1)))
        {
            return Err(TlsError::Cipher(wrong.clone(), known.join(", ")));
        }
        provider.cipher_suites.retain(|suite| suite.tls13().is_some() || options.cipher_suites.contains(&name(suite)));
    }
    let versions: &[&rustls::SupportedProtocolVersion] =
        if options.only_tls13 { &[&rustls::version::TLS13] } else { &[&rustls::version::TLS12, &rustls::version::TLS13] };
    Ok(ServerConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(versions)?)
}

/// The certificate that is served.
#[derive(Default)]
struct Key(RwLock<Option<Arc<CertifiedKey>>>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl ResolvesServerCert for Key {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Who is trusted. Nobody before the first roots.
#[derive(Debug, Default)]
struct Clients(RwLock<Option<Arc<dyn ClientCertVerifier>>>);

impl Clients {
    fn get(&self) -> Option<Arc<dyn ClientCertVerifier>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[ClientNames] {
        // They change; clients send what they have.
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verifier = self.get().ok_or(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer))?;
        verifier.verify_client_cert(leaf, between, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &aws_lc_rs::default_provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &aws_lc_rs::default_provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
