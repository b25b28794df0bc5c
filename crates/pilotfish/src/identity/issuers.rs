//! Keys of issuers beside the cluster, fetched as keys of users' rules are: by a client that looks at each address, and kept
//! when there is no answer. Enter at [`follow`].

use std::sync::Arc;
use std::time::Duration;

use pilotfish_ca::auth::keys::Keys;
use pilotfish_ca::auth::tokens::Tokens;
use pilotfish_controller::jwks::{Client, Resolver};
use pilotfish_model::request_authentication::JwksSource;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::guard::Callers;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// A token that names an unknown key is a reason to ask again, but not sooner than that.
const AGAIN: Duration = Duration::from_secs(10);

/// An issuer, and where its keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remote {
    pub(super) issuer: String,
    pub(super) source: JwksSource,
}

/// Keeps the keys of an issuer as they are published.
pub(super) async fn follow(callers: Arc<Callers>, client: Client, remote: Remote) {
    let tokens = callers.authenticator.tokens();
    let mut resolver = Resolver::default();
    resolver.want(&[(remote.source.clone(), PATIENCE)].into(), Instant::now());
    let mut asked = Instant::now();
    loop {
        for (source, limit) in resolver.due(Instant::now()) {
            asked = Instant::now();
            fetch(tokens, &client, &mut resolver, &remote, &source, limit).await;
        }
        let next = resolver.next().unwrap_or_else(|| Instant::now() + AGAIN);
        tokio::select! {
            () = sleep_until(next) => {}
            () = tokens.unknown_key() => {
                sleep_until(asked + AGAIN).await;
                asked = Instant::now();
                fetch(tokens, &client, &mut resolver, &remote, &remote.source, PATIENCE).await;
            }
        }
    }
}

async fn fetch(tokens: &Tokens, client: &Client, resolver: &mut Resolver, remote: &Remote, source: &JwksSource, limit: Duration) {
    let fetched = match client.fetch(source, limit).await {
        Ok(text) => Some(text),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            warn!(issuer = remote.issuer, %source, %error, cause, "keys of JWT_RULE could not be fetched; those known before stay");
            None
        }
    };
    let Some(new) = resolver.answered(source, fetched, Instant::now()) else { return };
    match Keys::parse(new.as_bytes()).filter(|keys| !keys.is_empty()) {
        Some(keys) => {
            info!(issuer = remote.issuer, %source, "keys of JWT_RULE");
            tokens.set_keys(&remote.issuer, keys);
        }
        None => warn!(issuer = remote.issuer, %source, "no key of JWT_RULE is usable; those known before stay"),
    }
}
