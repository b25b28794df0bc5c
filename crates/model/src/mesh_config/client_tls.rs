//! TLS towards hosts outside of the mesh, as mesh settings write it.

use serde::{Deserialize, Deserializer};

use crate::name::Str;
use crate::tls::{ClientTls, ClientTlsMode};

#[derive(Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Mode {
    Disable,
    Simple,
    Mutual,
    IstioMutual,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    #[serde(default = "disable")]
    mode: Mode,
    #[serde(default)]
    client_certificate: Str,
    #[serde(default)]
    private_key: Str,
    #[serde(default)]
    ca_certificates: Str,
    #[serde(default)]
    ca_crl: Str,
    #[serde(default)]
    credential_name: Str,
    #[serde(default)]
    subject_alt_names: Vec<Str>,
    #[serde(default)]
    sni: Str,
    insecure_skip_verify: Option<bool>,
}

/// The API's zero value.
fn disable() -> Mode {
    Mode::Disable
}

/// `None` for clear text.
pub(super) fn read<'de, D: Deserializer<'de>>(d: D) -> Result<Option<ClientTls>, D::Error> {
    let Some(w) = Option::<Written>::deserialize(d)? else { return Ok(None) };
    let mode = match w.mode {
        Mode::Disable => return Ok(None),
        Mode::Simple => ClientTlsMode::Simple,
        Mode::Mutual => ClientTlsMode::Mutual,
        Mode::IstioMutual => ClientTlsMode::IstioMutual,
    };
    Ok(Some(ClientTls {
        mode,
        client_certificate: w.client_certificate,
        private_key: w.private_key,
        ca_certificates: w.ca_certificates,
        ca_crl: w.ca_crl,
        credential_name: w.credential_name,
        subject_alt_names: w.subject_alt_names,
        sni: w.sni,
        insecure_skip_verify: w.insecure_skip_verify == Some(true),
    }))
}
