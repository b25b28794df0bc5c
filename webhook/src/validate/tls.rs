//! TLS settings of servers.

use super::cursor::{At, Findings};

/// A server's TLS settings.
pub(crate) fn server(f: &mut Findings, tls: &At<'_>) {
    let mode = match tls.str("mode") {
        "" => "PASSTHROUGH",
        mode => mode,
    };
    let mut seen = std::collections::BTreeSet::new();
    let twice: Vec<_> = tls.texts("cipherSuites").into_iter().filter(|s| !seen.insert(*s)).collect();
    if !twice.is_empty() {
        f.warning(&tls.get("cipherSuites"), format!("ignoring duplicate cipher suites: {twice:?}"));
    }
    let set = |key: &str| tls.get(key).is_set();
    let sources = [set("credentialName"), set("credentialNames"), set("serverCertificate"), set("tlsCertificates")];
    let count = sources.iter().filter(|s| **s).count();
    match mode {
        "PASSTHROUGH" | "AUTO_PASSTHROUGH" => {
            if count > 0 || set("caCertificates") {
                f.warning(tls, format!("{mode} mode does not use certificates, they will be ignored"));
            }
            return;
        }
        "ISTIO_MUTUAL" => {
            for key in
                ["serverCertificate", "privateKey", "caCertificates", "credentialName", "credentialNames", "tlsCertificates", "caCrl"]
            {
                f.require(!set(key), &tls.get(key), format!("ISTIO_MUTUAL TLS cannot have associated {key}"));
            }
            return;
        }
        _ => {}
    }
    if count > 1 {
        return f
            .error(tls, "only one of credentialName, credentialNames, serverCertificate/privateKey, tlsCertificates should be specified");
    }
    let mutual = matches!(mode, "MUTUAL" | "OPTIONAL_MUTUAL");
    let name = if mutual { "MUTUAL" } else { mode };
    for key in ["credentialNames", "tlsCertificates"] {
        if tls.items(key).len() > 2 {
            f.warning(&tls.get(key), format!("{name} TLS can support up to 2 server certificates"));
        }
    }
    if set("credentialName") || set("credentialNames") {
        return;
    }
    f.require(mutual || !set("caCrl"), &tls.get("caCrl"), "CRL is not supported with SIMPLE TLS");
    let certificates = tls.items("tlsCertificates");
    let holders = if certificates.is_empty() { vec![tls.clone()] } else { certificates };
    for holder in &holders {
        if mutual && !set("caCertCredentialName") {
            let given = holder.get("caCertificates").is_set() || set("caCertificates");
            f.require(given, &holder.get("caCertificates"), format!("{name} TLS requires a client CA bundle"));
        }
        f.require(
            holder.get("serverCertificate").is_set(),
            &holder.get("serverCertificate"),
            format!("{name} TLS requires a server certificate"),
        );
        f.require(holder.get("privateKey").is_set(), &holder.get("privateKey"), format!("{name} TLS requires a private key"));
    }
}

/// A client's TLS settings.
pub(crate) fn client(f: &mut Findings, tls: &At<'_>) {
    if !tls.exists() {
        return;
    }
    let set = |key: &str| tls.get(key).is_set();
    let mode = tls.str("mode");
    if tls.flag("insecureSkipVerify") {
        let forbidden: &[&str] = match mode {
            "SIMPLE" => &["caCertificates", "credentialName", "subjectAltNames"],
            "MUTUAL" => &["caCertificates", "subjectAltNames"],
            _ => &[],
        };
        for key in forbidden {
            f.require(!set(key), &tls.get(key), "cannot be specified when insecureSkipVerify is set");
        }
    }
    if set("credentialName") && matches!(mode, "SIMPLE" | "MUTUAL") {
        for key in ["clientCertificate", "privateKey", "caCertificates", "caCrl"] {
            f.require(!set(key), &tls.get(key), "cannot specify client certificates or CA certificate or CA CRL if credentialName is set");
        }
        return;
    }
    if mode == "MUTUAL" {
        f.require(set("clientCertificate"), &tls.get("clientCertificate"), "client certificate required for mutual tls");
        f.require(set("privateKey"), &tls.get("privateKey"), "private key required for mutual tls");
    }
}
