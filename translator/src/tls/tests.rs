use pilotfish_envoy::pb::envoy::extensions::transport_sockets::tls::v3::Secret as SecretMessage;

use super::*;

#[test]
fn roots_are_told_from_certificates_by_name() {
    let secret = Secret {
        certificate: b"chain".as_slice().into(),
        private_key: b"key".as_slice().into(),
        ca_certificate: b"roots".as_slice().into(),
        ..Default::default()
    };
    let inline = |data: &str| {
        Some(DataSource { specifier: Some(data_source::Specifier::InlineBytes(data.to_owned().into())), ..Default::default() })
    };
    let of = |name: &str| pilotfish_envoy::any::unpack::<SecretMessage>(&secret_resource(&secret, name).to_any()).unwrap().r#type.unwrap();
    assert_eq!(
        of("kubernetes://web"),
        secret::Type::TlsCertificate(TlsCertificate {
            certificate_chain: inline("chain"),
            private_key: inline("key"),
            ..Default::default()
        })
    );
    assert_eq!(
        of("kubernetes://web-cacert"),
        secret::Type::ValidationContext(CertificateValidationContext { trusted_ca: inline("roots"), ..Default::default() })
    );
}
