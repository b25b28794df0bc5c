//! Whatever happens on the way, a client ends up with what there is.

use std::collections::{BTreeMap, BTreeSet};

use pilotfish_envoy::TypeUrl::{self, Cluster, Endpoint, Listener, Route};
use pilotfish_xds_server::Config;
use pretty_assertions::assert_eq;

use crate::fake::{Change, Running, World, resource, start};
use pilotfish_testkit::Random;
use pilotfish_testkit::ads::{Held, Proxy, Sotw, TYPES, sidecar};

/// Routes that the client asks for, whether they exist or not.
const ROUTES: [&str; 4] = ["n0", "n1", "n2", "n3"];
const NAMESPACE: &str = "shop";

async fn connect(replica: &Running, held: Held) -> Proxy {
    Proxy::connect(&replica.url, sidecar(NAMESPACE), &ROUTES, held).await
}

/// What a client of the namespace should hold of a world.
fn expected(world: &World) -> Held {
    let mut all = Held::new();
    for type_url in TYPES {
        let of_type = world.resources.get(&type_url).into_iter().flatten();
        let version = |(n, c): (&String, &String)| (n.clone(), resource(type_url, n, &c.replace("{ns}", NAMESPACE)).version().to_string());
        let wanted = |name: &String| match type_url {
            Endpoint => world.resources.get(&Cluster).is_some_and(|clusters| clusters.contains_key(name)),
            Route => ROUTES.contains(&name.as_str()),
            _ => true,
        };
        all.insert(type_url, of_type.filter(|(n, _)| wanted(n)).map(version).collect());
    }
    all
}

/// What a client of the other protocol gets that has never seen the server.
async fn fresh_state_of_the_world(running: &Running) -> BTreeMap<TypeUrl, BTreeSet<Vec<u8>>> {
    let mut all = BTreeMap::new();
    let mut clusters: Vec<String> = Vec::new();
    for type_url in TYPES {
        let mut client = Sotw::connect(&running.url, sidecar(NAMESPACE)).await;
        let names: Vec<&str> = match type_url {
            Endpoint => clusters.iter().map(String::as_str).collect(),
            Route => ROUTES.to_vec(),
            _ => Vec::new(),
        };
        if type_url == Endpoint && names.is_empty() {
            continue;
        }
        client.ask(type_url, &names).await;
        let response = client.next().await;
        if type_url == Cluster {
            let name = |any: &pilotfish_envoy::pb::google::protobuf::Any| {
                pilotfish_envoy::any::unpack::<pilotfish_envoy::pb::envoy::config::cluster::v3::Cluster>(any).unwrap().name
            };
            clusters = response.resources.iter().map(name).collect();
        }
        all.insert(type_url, response.resources.iter().map(|r| r.value.to_vec()).collect());
    }
    all
}

fn contents(world: &World) -> BTreeMap<TypeUrl, BTreeSet<Vec<u8>>> {
    let held = expected(world);
    let content = |t: TypeUrl, n: &String| resource(t, n, &world.resources[&t][n].replace("{ns}", NAMESPACE)).to_any().value.to_vec();
    let of_type = |(t, names): (TypeUrl, BTreeMap<String, String>)| (t, names.keys().map(|n| content(t, n)).collect());
    held.into_iter().filter(|(t, _)| *t != Endpoint || world.resources.get(&Cluster).is_some_and(|c| !c.is_empty())).map(of_type).collect()
}

fn edit(world: &mut World, type_url: TypeUrl, random: &mut Random, counter: &mut u64) {
    *counter += 1;
    let resources = world.resources.entry(type_url).or_default();
    let name = format!("n{}", random.below(6));
    match random.below(3) {
        0 => drop(resources.remove(&name)),
        _ => drop(resources.insert(name, format!("{counter} of {{ns}}"))),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_any_history_a_delta_client_holds_what_a_fresh_client_gets() {
    for seed in 0..25 {
        let mut random = Random(seed);
        // Two replicas over the same worlds.
        let replicas = [start(Config::default()).await, start(Config::default()).await];
        let (mut world, mut counter) = (World::default(), 0);
        for type_url in TYPES {
            for _ in 0..4 {
                edit(&mut world, type_url, &mut random, &mut counter);
            }
        }
        for replica in &replicas {
            replica.publish(&world).await;
        }
        let mut proxy = connect(&replicas[0], Held::new()).await;
        for step in 0..30 {
            match random.below(10) {
                0..3 => {
                    edit(&mut world, Endpoint, &mut random, &mut counter);
                    for replica in &replicas {
                        replica.publish_endpoints(&world).await;
                    }
                }
                3..7 => {
                    for _ in 0..=random.below(3) {
                        edit(&mut world, TYPES[random.below(4)], &mut random, &mut counter);
                    }
                    for replica in &replicas {
                        // Nobody waits for it.
                        replica.server.publish(world.clone().into());
                        drop(replica.server.push(Change::default(), tokio::time::Instant::now()));
                    }
                }
                7..9 => {
                    // Takes one response, if one comes.
                    if let Ok(response) = tokio::time::timeout(std::time::Duration::from_millis(2), proxy.client.next()).await {
                        proxy.take(response).await;
                    }
                }
                _ => proxy = connect(&replicas[random.below(2)], proxy.held).await,
            }
            if step % 10 == 9 {
                proxy.converge(&expected(&world), &format!("seed {seed}, step {step}")).await;
            }
        }
        for replica in &replicas {
            assert_eq!(fresh_state_of_the_world(replica).await, contents(&world), "seed {seed}");
        }
    }
}

#[tokio::test]
async fn a_client_that_moves_to_another_replica_is_sent_nothing_that_it_holds() {
    let replicas = [start(Config::default()).await, start(Config::default()).await];
    let names: Vec<String> = (0..100).map(|i| format!("n{i}")).collect();
    let all: Vec<(&str, &str)> = names.iter().map(|n| (n.as_str(), "1")).collect();
    let world = World::default().with(Cluster, &all).with(Endpoint, &all).with(Listener, &all).with(Route, &all);
    for replica in &replicas {
        replica.publish(&world).await;
    }
    let mut proxy = connect(&replicas[0], Held::new()).await;
    proxy.converge(&expected(&world), "at first").await;
    let first = replicas[0].server.work();
    let mut proxy = connect(&replicas[1], proxy.held).await;
    proxy.client.expect_silence().await;
    let moved = replicas[1].server.work();
    assert_eq!((first.resources, moved.responses, moved.live_streams), (304, 0, 1));

    // The other protocol: one version stands for everything of a type.
    let mut client = Sotw::connect(&replicas[0].url, sidecar(NAMESPACE)).await;
    client.ask(Cluster, &[]).await;
    let version = client.next().await.version_info;
    let mut client = Sotw::connect(&replicas[1].url, sidecar(NAMESPACE)).await;
    client.resume(Cluster, &version).await;
    client.expect_silence().await;
    let changed = [("n0", "2")];
    replicas[1].publish(&world.with(Cluster, &changed)).await;
    assert_eq!(client.next().await.resources.len(), 1);
}
