//! What a change of a service's endpoints means for those who depend on them.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use pilotfish_model::endpoint::{Endpoint, EndpointAddress, Health};
use pilotfish_model::name::Str;
use pilotfish_model::{EndpointChange, Resolution, Service};

/// How urgent a change is; `None` if nothing differs. Both lists are ordered as the mesh has them, so one pass does.
pub(crate) fn endpoint_change(before: &[Endpoint], after: &[Endpoint]) -> Option<EndpointChange> {
    let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
    let mut change = None;
    while let Some(was) = old.peek() {
        match new.peek().map_or(Ordering::Less, |is| place(was).cmp(&place(is))) {
            Ordering::Less => return Some(EndpointChange::Removed),
            Ordering::Greater => {
                change = Some(EndpointChange::Added);
                new.next();
            }
            Ordering::Equal => {
                if let (Some(was), Some(is)) = (old.next(), new.next())
                    && was != is
                {
                    if reluctance(is.health) > reluctance(was.health) {
                        return Some(EndpointChange::Removed);
                    }
                    change = Some(EndpointChange::Added);
                }
            }
        }
    }
    if new.peek().is_some() { Some(EndpointChange::Added) } else { change }
}

/// Whether a change of endpoints changes more of a service than its assignment: the names that its servers may present,
/// whether all of them speak mesh mTLS, and everything where endpoints are part of clusters, listeners or names.
pub(super) fn reaches_service(service: &Service, before: &[Endpoint], after: &[Endpoint]) -> bool {
    let mtls = |endpoints: &[Endpoint]| !endpoints.is_empty() && endpoints.iter().all(|e| e.workload.mtls);
    service.all().any(|s| s.resolution != Resolution::Static) || mtls(before) != mtls(after) || accounts(before) != accounts(after)
}

fn accounts(endpoints: &[Endpoint]) -> BTreeSet<&Str> {
    let mut accounts = BTreeSet::new();
    let mut last: Option<&Str> = None;
    // Neighbours mostly share one account.
    for account in endpoints.iter().map(|e| &e.workload.service_account) {
        if last != Some(account) && !account.is_empty() {
            accounts.insert(account);
        }
        last = Some(account);
    }
    accounts
}

/// What endpoints of a service are ordered by.
pub(crate) fn place(e: &Endpoint) -> (&EndpointAddress, u16, &Str) {
    (&e.address, e.port, &e.service_port)
}

/// How little an endpoint takes traffic.
fn reluctance(health: Health) -> u8 {
    match health {
        Health::Healthy | Health::Unknown => 0,
        Health::Draining => 1,
        Health::Unhealthy => 2,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pilotfish_model::endpoint::Workload;
    use pretty_assertions::assert_eq;

    use super::*;

    /// Endpoints written as `last octet of the address`, `health`, `weight`.
    fn endpoints(list: &[(u8, Health, u32)]) -> Vec<Endpoint> {
        let workload = Arc::new(Workload::default());
        let one = |&(n, health, weight): &(u8, Health, u32)| Endpoint {
            address: EndpointAddress::Ip([10, 0, 0, n].into()),
            additional_addresses: Box::default(),
            port: 80,
            service_port: "http".into(),
            service_port_number: 0,
            weight,
            health,
            workload: workload.clone(),
        };
        list.iter().map(one).collect()
    }

    #[test]
    fn only_losses_are_urgent() {
        use EndpointChange::{Added, Removed};
        use Health::{Draining, Healthy, Unhealthy, Unknown};
        let two = [(1, Healthy, 1), (2, Healthy, 1)];
        for (before, after, expected) in [
            (&two[..], &two[..], None),
            (&[], &[(1, Healthy, 1)], Some(Added)),
            (&[], &[], None),
            (&two, &[(1, Healthy, 1), (2, Healthy, 1), (3, Healthy, 1)], Some(Added)),
            (&two, &[(0, Healthy, 1), (1, Healthy, 1), (2, Healthy, 1)], Some(Added)),
            (&two, &[(1, Healthy, 1)], Some(Removed)),
            (&two, &[(2, Healthy, 1)], Some(Removed)),
            (&two, &[], Some(Removed)),
            (&two, &[(1, Healthy, 1), (3, Healthy, 1)], Some(Removed)),
            (&two, &[(1, Healthy, 7), (2, Healthy, 1)], Some(Added)),
            (&two, &[(1, Unknown, 1), (2, Healthy, 1)], Some(Added)),
            (&two, &[(1, Draining, 1), (2, Healthy, 1)], Some(Removed)),
            (&[(1, Draining, 1)], &[(1, Unhealthy, 1)], Some(Removed)),
            (&[(1, Unhealthy, 1)], &[(1, Healthy, 1)], Some(Added)),
            (&[(1, Unhealthy, 1)], &[(1, Draining, 1)], Some(Added)),
            // The same endpoint for each address of a ServiceEntry.
            (&[(1, Healthy, 1), (1, Healthy, 1)], &[(1, Healthy, 1)], Some(Removed)),
            (&[(1, Healthy, 1)], &[(1, Healthy, 1), (1, Healthy, 1)], Some(Added)),
        ] {
            assert_eq!(endpoint_change(&endpoints(before), &endpoints(after)), expected, "{before:?} -> {after:?}");
        }
    }
}
