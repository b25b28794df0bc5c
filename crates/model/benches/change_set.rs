//! Instruction counts of merging changes (callgrind: repeatable on one machine type).

#![allow(missing_docs)]

use std::hint::black_box;

use gungraun::{library_benchmark, library_benchmark_group, main};
use pilotfish_model::mesh::ServiceKey;
use pilotfish_model::{ChangeSet, EndpointChange, Host, Kind, ObjectId};

/// So many objects, of every other of which the services and endpoints changed too; half of each in both sets.
fn changes(first: usize, n: usize) -> ChangeSet {
    let mut set = ChangeSet::default();
    for i in first..first + n {
        let namespace = format!("namespace-{}", i % 50);
        let name = format!("service-{i}");
        set.objects.insert(ObjectId::new(if i % 2 == 0 { Kind::Service } else { Kind::VirtualService }, namespace.as_str(), name.as_str()));
        if i % 2 == 0 {
            let key =
                ServiceKey { namespace: namespace.as_str().into(), host: Host::new(&format!("{name}.{namespace}.svc.cluster.local")) };
            set.services.insert(key.clone());
            set.endpoints.insert(key, if i % 4 == 0 { EndpointChange::Removed } else { EndpointChange::Added });
        }
    }
    set
}

fn pair(sizes: (usize, usize)) -> (ChangeSet, ChangeSet) {
    (changes(0, sizes.0), changes(sizes.0 / 2, sizes.1))
}

#[library_benchmark]
#[bench::into_1000_of_1000(args = ((1_000, 1_000)), setup = pair)]
#[bench::into_1000_of_1(args = ((1_000, 1)), setup = pair)]
#[bench::into_1_of_1000(args = ((1, 1_000)), setup = pair)]
fn merge_change_sets((mut a, b): (ChangeSet, ChangeSet)) -> ChangeSet {
    a.merge(black_box(b));
    a
}

library_benchmark_group!(name = change_set, benchmarks = merge_change_sets);
main!(library_benchmark_groups = change_set);
