//! [`Reports`]: what proxies say, as the server of proxies counts it. Plain data: this crate does not know that server.

use std::collections::BTreeMap;

use pilotfish_model::ObjectId;
use tokio::time::Instant;

use super::condition::{Condition, State};

/// How far one object has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Connected proxies that get something made of it.
    pub proxies: usize,
    /// Those that confirmed all of it.
    pub applied: usize,
    /// Those that refused some of it.
    pub rejected: usize,
    /// Names of some of these with their words, ordered.
    pub words: Vec<(String, String)>,
}

/// How far all objects have come.
#[derive(Clone, Debug)]
pub struct Reports {
    /// When it was begun to be counted.
    pub taken: Instant,
    /// Nothing was waiting to be sent then. If not, what was counted may be older than the object.
    pub settled: bool,
    /// Proxies have had the time to connect, so that none is a fact.
    pub warm: bool,
    /// Objects that some proxy gets something of.
    pub objects: BTreeMap<ObjectId, Applied>,
}

/// The longest part of one proxy's words.
const WORDS: usize = 400;
/// How many proxies are named.
const NAMED: usize = 3;

impl Applied {
    /// Proxies that have not said anything.
    pub fn missing(&self) -> usize {
        self.proxies.saturating_sub(self.applied + self.rejected)
    }

    pub(super) fn condition(&self, generation: u64) -> Condition {
        let Applied { proxies, applied, rejected, words } = self;
        let counts = format!("applied on {applied} of {proxies} proxies");
        match (*proxies, *rejected) {
            (0, _) => {
                let message = "no connected proxy gets anything that was made of it".to_owned();
                Condition::new(State::Unknown, "NoProxies", message, generation)
            }
            (_, 0) if self.missing() == 0 => Condition::new(State::True, "Applied", counts, generation),
            (_, 0) => {
                let message = format!("{counts}; {} have not confirmed it", self.missing());
                Condition::new(State::False, "Pending", message, generation)
            }
            _ => {
                let said =
                    words.iter().take(NAMED).map(|(proxy, words)| format!("{proxy}: {}", words.chars().take(WORDS).collect::<String>()));
                let message = format!("{counts}; rejected by {rejected}: {}", said.collect::<Vec<_>>().join("; "));
                Condition::new(State::False, "Rejected", message, generation)
            }
        }
    }
}
