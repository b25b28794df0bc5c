//! What the stages did so far, as metrics: it shows whether an edit costs what it should.

use std::sync::atomic::Ordering::Relaxed;

use pilotfish_controller::jwks;
use pilotfish_xds_server::Server;

use crate::metrics::Count;
use crate::pipeline::MeshTranslator;

/// All counts.
pub fn counts(server: &Server<MeshTranslator>, translator: &MeshTranslator) -> Vec<Count> {
    let (served, made) = (server.work(), translator.translator().work());
    let (waiting, age) = server.queue();
    vec![
        Count::counter("pilotfish_scopes_made", "Scopes made anew or out of what they were", served.views),
        Count::counter("pilotfish_scopes_untouched", "Changes that did not touch a scope, per scope", served.untouched),
        Count::counter("pilotfish_endpoint_steps", "Times that only the endpoints of a scope were made", served.endpoint_steps),
        Count::counter("pilotfish_failed_translations", "Translations that panicked", served.failed),
        Count::counter("pilotfish_units_made", "Services of scopes that were translated", made.units_computed),
        Count::counter("pilotfish_units_reused", "Services of scopes that were taken from the scope before", made.units_reused),
        Count::counter("pilotfish_leaves_built", "Resources, or parts of them, that were built and encoded", made.leaves_built),
        Count::counter("pilotfish_leaves_reused", "Resources, or parts of them, that the cache had", made.leaf_hits),
        Count::counter("pilotfish_bytes_encoded", "Bytes that were encoded", made.bytes_encoded),
        Count::counter("pilotfish_resources_refused", "Resources that break Envoy's rules and were kept in", made.refused),
        Count::counter("pilotfish_names_compared", "Names that were compared in order to find out what a stream is owed", served.compared),
        Count::counter("pilotfish_resources_sent", "Resources in responses", served.resources),
        Count::counter("pilotfish_bytes_sent", "Bytes in responses", served.bytes),
        Count::counter("pilotfish_bytes_copied", "Bytes of responses that were copied on the way out", served.copied),
        Count::gauge("pilotfish_live_scopes", "Scopes with a stream", served.live_scopes as f64),
        Count::gauge("pilotfish_live_classes", "Classes with a stream", served.live_classes as f64),
        Count::gauge("pilotfish_push_queue_length", "Scopes that wait to be made", waiting as f64),
        Count::gauge("pilotfish_push_queue_age_seconds", "How long the first of them has waited", age.as_secs_f64()),
    ]
}

/// What came of fetching keys of tokens. The first two are called as the reference calls them.
pub fn keys(counts: &jwks::Counts) -> Vec<Count> {
    let failed = "Fetches of keys that got no answer, or another status than 200";
    let missing = "Sources of keys that are wanted and were never reached: tokens of their issuers are refused";
    vec![
        Count::counter("pilot_jwks_resolver_network_fetch_success", "Fetches that brought keys", counts.fetched.load(Relaxed)),
        Count::counter("pilot_jwks_resolver_network_fetch_fail", failed, counts.failed.load(Relaxed)),
        Count::counter("pilotfish_jwks_invalid", "Fetches that brought something else than keys", counts.invalid.load(Relaxed)),
        Count::gauge("pilotfish_jwks_missing", missing, counts.missing.load(Relaxed) as f64),
    ]
}
