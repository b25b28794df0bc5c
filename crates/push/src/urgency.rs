//! How soon something should happen: [`Urgency`].

/// Classes of work in a control plane, the least urgent first. Queues here are generic over any ordered type; this is their default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urgency {
    /// Somebody edited configuration.
    #[default]
    Config,
    /// There is a new endpoint: capacity is missing until clients know.
    EndpointAdd,
    /// An endpoint is gone: requests fail until clients know.
    EndpointRemoval,
    /// A proxy has nothing at all: its workload cannot start.
    Unconfigured,
}

impl Urgency {
    /// All of them, the least urgent first.
    pub const ALL: [Urgency; 4] = [Urgency::Config, Urgency::EndpointAdd, Urgency::EndpointRemoval, Urgency::Unconfigured];

    /// A word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Urgency::Config => "config",
            Urgency::EndpointAdd => "endpoint-add",
            Urgency::EndpointRemoval => "endpoint-removal",
            Urgency::Unconfigured => "unconfigured",
        }
    }
}
