//! One root after the other, with requests all the time.

use std::time::{Duration, SystemTime};

use pilotfish_ca::chain;
use pilotfish_ca::issue::{Policy, issue};
use pilotfish_ca::material::Files;
use pilotfish_ca::root::Key;
use pilotfish_ca::rotation::{Evidence, Offer, Rotation, STATE, Step, Times};
use pretty_assertions::assert_eq;
use rcgen::PKCS_ECDSA_P256_SHA256;
use rustls::pki_types::CertificateDer;

use super::{csr, der, identity, now, root};

const TIMES: Times = Times { mount: Duration::from_secs(3), longest: Duration::from_secs(6), lag: Duration::from_secs(1) };

fn after(seconds: u64) -> SystemTime {
    now() + Duration::from_secs(seconds)
}

fn first_root(files: &Files) -> CertificateDer<'static> {
    der(std::str::from_utf8(&files["root-cert.pem"]).unwrap())
}

#[test]
fn a_root_signs_only_when_everybody_has_it_and_leaves_when_nobody_needs_it() {
    let (old, new) = (root(Key::P256), root(Key::P256));
    let mut rotation = Rotation::restore(old.clone(), now()).unwrap();
    assert_eq!(rotation.files(), old);
    assert_eq!(rotation.offer(old.clone(), &TIMES, now()), Ok(Offer::Known));
    assert_eq!(rotation.offer(new.clone(), &TIMES, now()), Ok(Offer::Pending));
    assert_eq!(rotation.offer(new.clone(), &TIMES, now()), Ok(Offer::Known));
    let both = vec![first_root(&old), first_root(&new)];
    assert_eq!(rotation.trusted(), both);
    assert_eq!(rotation.signing().certificate(), &both[0]);

    let placed = |seconds| Evidence { placed: Some(after(seconds)), unconfirmed: 0 };
    for (evidence, at) in
        [(Evidence::default(), after(100)), (placed(10), after(12)), (Evidence { unconfirmed: 1, ..placed(10) }, after(100))]
    {
        assert_eq!(rotation.step(&evidence, &TIMES, at), Step::None);
        assert_eq!(rotation.signing().certificate(), &both[0]);
    }
    assert_eq!(rotation.step(&placed(10), &TIMES, after(13)), Step::Switched);
    assert_eq!(rotation.signing().certificate(), &both[1]);
    assert_eq!(rotation.trusted(), [both[1].clone(), both[0].clone()]);

    // 13 + the longest life of a certificate + what other replicas may be behind.
    assert_eq!(rotation.step(&placed(10), &TIMES, after(19)), Step::None);
    assert_eq!(rotation.step(&placed(10), &TIMES, after(20)), Step::Dropped);
    assert_eq!(rotation.trusted(), both[1..]);
    assert_eq!(rotation.files(), new);
}

#[test]
fn a_restart_changes_nothing_in_any_phase() {
    let mut rotation = Rotation::restore(root(Key::P256), now()).unwrap();
    let same = |rotation: &Rotation| {
        let again = Rotation::restore(rotation.files(), now()).unwrap();
        assert_eq!(again.files(), rotation.files());
        assert_eq!(again.trusted(), rotation.trusted());
        assert_eq!(again.next().map(|n| n.certificate().clone()), rotation.next().map(|n| n.certificate().clone()));
        again
    };
    same(&rotation);
    rotation.offer(root(Key::P384), &TIMES, now()).unwrap();
    assert!(rotation.files().contains_key(STATE));
    rotation = same(&rotation);
    rotation.step(&Evidence { placed: Some(now()), unconfirmed: 0 }, &TIMES, after(3));
    let mut rotation = same(&rotation);
    assert_eq!(rotation.trusted().len(), 2);
    assert_eq!(rotation.step(&Evidence::default(), &TIMES, after(10)), Step::Dropped);
    same(&rotation);
}

#[test]
fn a_key_that_cannot_sign_any_more_is_no_reason_to_wait() {
    let mut rotation = Rotation::restore(root(Key::P256), now()).unwrap();
    let over = rotation.signing().not_after();
    let new = pilotfish_ca::root::generate("td", &Default::default(), over - Duration::from_secs(60)).unwrap();
    rotation.offer(new, &TIMES, over - Duration::from_secs(60)).unwrap();
    assert_eq!(rotation.step(&Evidence::default(), &TIMES, over - Duration::from_secs(1)), Step::None);
    assert_eq!(rotation.step(&Evidence::default(), &TIMES, over), Step::Switched);
}

#[test]
fn what_is_broken_is_not_taken() {
    let good = root(Key::P256);
    let mut rotation = Rotation::restore(good.clone(), now()).unwrap();
    let mut bad = root(Key::P256);
    bad.insert("ca-key.pem".into(), good["ca-key.pem"].clone());
    assert!(rotation.offer(bad, &TIMES, now()).is_err());
    assert_eq!(rotation.files(), good);
    let mut files = good.clone();
    files.insert(STATE.into(), b"{".to_vec());
    assert_eq!(Rotation::restore(files, now()).unwrap().files(), good);
}

/// Three rotations in sixty seconds: each second, workloads that renewed at any time of the last six talk to each other,
/// each with the roots that it had mounted up to three seconds ago.
#[test]
fn three_rotations_in_a_minute_fail_nobody() {
    let mut rotation = Rotation::restore(root(Key::P256), now()).unwrap();
    let policy = Policy { default_ttl: TIMES.longest, max_ttl: TIMES.longest };
    let (request, _) = csr(&PKCS_ECDSA_P256_SHA256, "spiffe://x/ns/a/sa/b");
    // Per second: what was trusted, and a certificate of that second.
    let mut history: Vec<(Vec<CertificateDer<'static>>, CertificateDer<'static>)> = Vec::new();
    let (mut placed, mut bundle, mut switched) = (now(), Vec::new(), 0);
    for second in 0..60 {
        let at = after(second);
        if [5, 22, 39].contains(&second) {
            assert_eq!(rotation.offer(root(Key::P256), &TIMES, at), Ok(Offer::Pending));
        }
        if rotation.trusted() != bundle {
            (bundle, placed) = (rotation.trusted(), at);
        }
        let evidence = Evidence { placed: Some(placed), unconfirmed: 0 };
        switched += usize::from(rotation.step(&evidence, &TIMES, at) == Step::Switched);
        let issued = issue(rotation.signing(), &policy, &request, &[identity("a", "b")], 0, at).unwrap();
        history.push((rotation.trusted(), der(&issued.chain[0])));
        let seen = &history[history.len().saturating_sub(4)..];
        let held = &history[history.len().saturating_sub(6)..];
        for (roots, _) in seen {
            for (_, leaf) in held {
                chain::verify(leaf, &[], roots, at).unwrap_or_else(|e| panic!("second {second}: {e}"));
            }
        }
    }
    assert_eq!(switched, 3);
    assert_eq!(rotation.trusted().len(), 1);
}
