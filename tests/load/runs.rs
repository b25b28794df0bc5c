//! What is run. The shapes are those of the recorded runs of the reference, so that the figures compare.

/// One run of the load client against a fresh server.
pub(crate) struct Run {
    pub(crate) name: &'static str,
    pub(crate) mesh: Mesh,
    pub(crate) what: What,
}

/// What the load client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Every kind of change, and a reconnect, with so many proxies.
    Full(u32),
    /// Changes that are alone in their debounce window, with so many proxies.
    EditCost(u32),
    /// From the start of the process until it is ready.
    ColdStart,
}

/// The size of a mesh: five pods for each service, and as much per namespace in every size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mesh {
    pub(crate) services: u32,
    /// Whether a Sidecar in each namespace limits what its proxies see to that namespace.
    pub(crate) isolated: bool,
}

const VISIBLE: Mesh = Mesh { services: 1000, isolated: false };
const ISOLATED: Mesh = Mesh { services: 1000, isolated: true };
const LARGE: Mesh = Mesh { services: 5000, isolated: true };

/// All runs. Those that leave a mesh as it was come before those that change it.
pub(crate) const RUNS: &[Run] = &[
    Run { name: "w9-1000svc", mesh: ISOLATED, what: What::ColdStart },
    Run { name: "w8-1000svc", mesh: ISOLATED, what: What::EditCost(50) },
    Run { name: "w2-1000", mesh: ISOLATED, what: What::Full(1000) },
    Run { name: "w2-2000", mesh: ISOLATED, what: What::Full(2000) },
    Run { name: "w1-200", mesh: VISIBLE, what: What::Full(200) },
    Run { name: "w1-500", mesh: VISIBLE, what: What::Full(500) },
    Run { name: "w9-5000svc", mesh: LARGE, what: What::ColdStart },
    Run { name: "w8-5000svc", mesh: LARGE, what: What::EditCost(50) },
];

/// The meshes of these runs, each once, in their order.
pub(crate) fn meshes<'a>(runs: &[&'a Run]) -> Vec<&'a Mesh> {
    let mut meshes: Vec<&Mesh> = runs.iter().map(|run| &run.mesh).collect();
    meshes.dedup();
    meshes
}

impl Mesh {
    /// The flags of the load client that make this mesh and tell it which mesh it is.
    pub(crate) fn flags(&self) -> Vec<String> {
        let numbers = [
            ("--services", self.services),
            ("--pods-per-service", 5),
            ("--namespaces", self.services / 20),
            ("--virtualservices", self.services),
            ("--destinationrules", self.services / 5),
        ];
        let mut flags: Vec<String> = numbers.iter().flat_map(|(flag, n)| [(*flag).to_owned(), n.to_string()]).collect();
        flags.extend(self.isolated.then(|| "--sidecar-isolation".to_owned()));
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mesh_is_filled_once() {
        let all: Vec<&Run> = RUNS.iter().collect();
        assert_eq!(meshes(&all), [&ISOLATED, &VISIBLE, &LARGE]);
    }

    #[test]
    fn sizes_per_namespace_are_equal() {
        let per = |flags: &[String]| flags[1].parse::<u32>().unwrap() / flags[5].parse::<u32>().unwrap();
        assert_eq!((per(&VISIBLE.flags()), per(&LARGE.flags())), (20, 20));
        assert_eq!(
            LARGE.flags().join(" "),
            "--services 5000 --pods-per-service 5 --namespaces 250 --virtualservices 5000 --destinationrules 1000 --sidecar-isolation"
        );
    }
}
