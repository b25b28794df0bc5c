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
    let of =
        |name: &str| pilotfish_envoy::any::unpack::<SecretMessage>(&secret_resource(&secret, name, None).to_any()).unwrap().r#type.unwrap();
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

mod contexts {
    use pilotfish_envoy::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
    use pilotfish_envoy::pb::envoy::extensions::transport_sockets::tls::v3::{CommonTlsContext, DownstreamTlsContext, UpstreamTlsContext};
    use pilotfish_model::proxy::{Node, Proxy};
    use pilotfish_model::tls::{ClientTls, ClientTlsMode, ServerTls, ServerTlsMode};
    use pilotfish_model::{Mesh, MeshConfig};

    use super::*;
    use crate::facts::{self, UnitFacts};
    use crate::world::World;

    fn class(istio: bool) -> UnitFacts {
        let mut node = Node { id: "sidecar~10.0.0.1~a.b~b.svc.cluster.local".into(), ..Node::default() };
        node.metadata.istio_version = istio.then(|| "1.29.1".to_owned());
        facts::of(&World::new(Mesh::default().into()), &Proxy::parse(node, "istio-system", "cluster.local").unwrap()).0.unit
    }

    fn unpacked<M: Message + Name + Default>(socket: TransportSocket) -> M {
        let Some(ConfigType::TypedConfig(config)) = socket.config_type else { panic!("no configuration") };
        assert_eq!(pilotfish_envoy::validate::validate_any(&config), Ok(()));
        pilotfish_envoy::any::unpack(&config).unwrap()
    }

    /// Names of the certificates and of the roots.
    fn sources(common: &CommonTlsContext) -> (Vec<&str>, Option<&str>) {
        let own = common.tls_certificate_sds_secret_configs.iter().map(|c| c.name.as_str()).collect();
        let roots = match &common.validation_context_type {
            Some(ValidationContextType::CombinedValidationContext(c)) => {
                c.validation_context_sds_secret_config.as_ref().map(|c| c.name.as_str())
            }
            Some(ValidationContextType::ValidationContext(c)) if c.system_root_certs.is_some() => Some("of the system"),
            _ => None,
        };
        (own, roots)
    }

    fn upstream_of(istio: bool, tls: &ClientTls) -> Option<UpstreamTlsContext> {
        UpstreamTls::user(&MeshConfig::default(), &class(istio), tls, false).map(|t| unpacked(upstream(&t)))
    }

    #[test]
    fn users_tls_towards_servers() {
        let simple = ClientTls::of_mode(ClientTlsMode::Simple);
        let files = ClientTls {
            client_certificate: "/c".into(),
            private_key: "/k".into(),
            ca_certificates: "/r".into(),
            ..ClientTls::of_mode(ClientTlsMode::Mutual)
        };
        let secret = ClientTls { credential_name: "s".into(), ..ClientTls::of_mode(ClientTlsMode::Mutual) };
        let blind = ClientTls { insecure_skip_verify: true, ..simple.clone() };
        for (tls, istio, own, roots) in [
            (&simple, true, vec![], Some("file-root:system")),
            (&simple, false, vec![], Some("of the system")),
            (&blind, true, vec![], None),
            (&files, true, vec!["file-cert:/c~/k"], Some("file-root:/r")),
            (&files, false, vec!["file-cert:/c~/k"], Some("file-root:/r")),
            (&secret, true, vec!["kubernetes://s"], Some("kubernetes://s-cacert")),
        ] {
            assert_eq!(sources(upstream_of(istio, tls).unwrap().common_tls_context.as_ref().unwrap()), (own, roots), "{tls:?}");
        }
        assert_eq!(upstream_of(true, &ClientTls::of_mode(ClientTlsMode::Mutual)), None, "no certificate to show");
    }

    #[test]
    fn a_plain_envoy_has_mesh_certificates_only_if_it_says_so() {
        assert!(UpstreamTls::mesh(&MeshConfig::default(), &class(false), "sni", Vec::new(), false).is_none());
        let agent = UpstreamTls::mesh(&MeshConfig::default(), &class(true), "sni", Vec::new(), true)
            .map(|t| unpacked::<UpstreamTlsContext>(upstream(&t)))
            .unwrap();
        let common = agent.common_tls_context.unwrap();
        assert_eq!(sources(&common), (vec!["default"], Some("ROOTCA")));
        assert_eq!(common.alpn_protocols, ["istio-peer-exchange", "istio", "h2"]);
    }

    #[test]
    fn inbound_trusts_the_domains_of_the_mesh() {
        let config = MeshConfig { trust_domain_aliases: vec!["old".into()], ..MeshConfig::default() };
        for (istio, alpn) in [(true, vec!["istio-peer-exchange", "h2", "http/1.1"]), (false, vec!["h2", "http/1.1"])] {
            let context: DownstreamTlsContext = unpacked(inbound(&InboundTls::of(&config, &class(istio), InboundAlpn::Tcp)));
            assert_eq!(context.require_client_certificate, Some(true));
            let common = context.common_tls_context.unwrap();
            assert_eq!(sources(&common), (vec!["default"], Some("ROOTCA")));
            assert_eq!(common.alpn_protocols, alpn);
            let Some(ValidationContextType::CombinedValidationContext(combined)) = common.validation_context_type else { panic!() };
            #[allow(deprecated)]
            let names = combined.default_validation_context.unwrap().match_subject_alt_names;
            assert_eq!(names, ["spiffe://cluster.local/", "spiffe://old/"].map(|p| matcher(MatchPattern::Prefix(p.into()))));
        }
    }

    #[test]
    fn gateways_terminate_only_with_a_certificate() {
        let of =
            |tls: &ServerTls| gateway(&GatewayTls::of(&MeshConfig::default(), &class(true), tls)).map(unpacked::<DownstreamTlsContext>);
        assert_eq!(of(&ServerTls::of_mode(ServerTlsMode::Simple)), None);
        assert_eq!(of(&ServerTls::of_mode(ServerTlsMode::Passthrough)), None);
        let secret = ServerTls { credential_names: vec!["web".into()], ..ServerTls::of_mode(ServerTlsMode::Mutual) };
        let own_roots = ServerTls { ca_cert_credential_name: "ca".into(), mode: ServerTlsMode::OptionalMutual, ..secret.clone() };
        for (tls, required, roots) in [(secret, true, "kubernetes://web-cacert"), (own_roots, false, "kubernetes://ca")] {
            let context = of(&tls).unwrap();
            assert_eq!(context.require_client_certificate, Some(required));
            assert_eq!(sources(context.common_tls_context.as_ref().unwrap()), (vec!["kubernetes://web"], Some(roots)));
        }
    }
}
