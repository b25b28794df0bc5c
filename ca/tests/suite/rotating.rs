//! One root after the other, with requests all the time.

use std::time::{Duration, SystemTime};

use pilotfish_ca::issue::{Policy, issue};
use pilotfish_ca::material::Files;
use pilotfish_ca::root::Key;
use pilotfish_ca::rotation::{Ends, Evidence, Offer, Rotation, STATE, Step, Times};
use pilotfish_ca::{chain, pem};
use pretty_assertions::assert_eq;
use rcgen::PKCS_ECDSA_P256_SHA256;
use rustls::pki_types::CertificateDer;

use super::{csr, der, identity, now, root};

const TIMES: Times = Times { mount: Duration::from_secs(3), longest: Duration::from_secs(6), lag: Duration::from_secs(1) };

fn after(seconds: u64) -> SystemTime {
    now() + Duration::from_secs(seconds)
}

/// Of the roots that are trusted now.
fn placed(rotation: &Rotation, at: SystemTime) -> Evidence {
    Evidence { bundle: pem::bundle(&rotation.trusted()).into(), placed: Some(at), unconfirmed: 0 }
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
    assert_eq!(rotation.signing().unwrap().certificate(), &both[0]);

    let all = placed(&rotation, after(1));
    let before = Evidence { bundle: pem::bundle(&both[..1]).into(), ..all.clone() };
    for (evidence, at) in
        [(Evidence::default(), 6), (placed(&rotation, after(1)), 3), (Evidence { unconfirmed: 1, ..all.clone() }, 6), (before, 6)]
    {
        assert_eq!(rotation.step(&evidence, &TIMES, after(at)), Step::None);
        assert_eq!(rotation.signing().unwrap().certificate(), &both[0]);
    }
    assert_eq!(rotation.step(&all, &TIMES, after(4)), Step::Switched);
    assert_eq!(rotation.signing().unwrap().certificate(), &both[1]);
    assert_eq!(rotation.trusted(), [both[1].clone(), both[0].clone()]);

    // 4 + the longest life of a certificate + what other replicas may be behind.
    assert_eq!(rotation.step(&all, &TIMES, after(10)), Step::None);
    assert_eq!(rotation.step(&all, &TIMES, after(11)), Step::Dropped);
    assert_eq!(rotation.trusted(), both[1..]);
    assert_eq!(rotation.files(), new);
}

#[test]
fn who_was_certified_since_the_offer_has_the_root() {
    let mut rotation = Rotation::restore(root(Key::P256), now()).unwrap();
    rotation.offer(root(Key::P256), &TIMES, after(10)).unwrap();
    // Nothing is mounted anywhere, and somebody never answers.
    let silent = Evidence { unconfirmed: 1, ..Evidence::default() };
    assert_eq!(rotation.step(&silent, &TIMES, after(16)), Step::None);
    let mut restarted = Rotation::restore(rotation.files(), after(16)).unwrap();
    for rotation in [&mut rotation, &mut restarted] {
        assert_eq!(rotation.step(&silent, &TIMES, after(17)), Step::Switched);
    }
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
    rotation.step(&placed(&rotation, now()), &TIMES, after(3));
    let mut rotation = same(&rotation);
    assert_eq!(rotation.trusted().len(), 2);
    assert_eq!(rotation.step(&Evidence::default(), &TIMES, after(10)), Step::Dropped);
    same(&rotation);
}

/// The folder is exchanged while nobody looks: what signed is gone, what was handed out is known.
#[test]
fn another_key_after_a_restart_waits_until_everybody_has_its_root() {
    let (old, new) = (root(Key::P256), root(Key::P256));
    let (old_root, new_root) = (first_root(&old), first_root(&new));
    let handed_out = old["root-cert.pem"].clone();
    let mut rotation = Rotation::resume(new.clone(), &handed_out, &Ends::default(), &TIMES, now()).unwrap();
    assert!(rotation.signing().is_none());
    assert_eq!(rotation.trusted(), [new_root.clone(), old_root.clone()]);
    // It is offered again each time somebody looks.
    assert_eq!(rotation.offer(new.clone(), &TIMES, now()), Ok(Offer::Known));
    assert_eq!(rotation.step(&Evidence::default(), &TIMES, after(3)), Step::None);
    let evidence = placed(&rotation, after(1));
    assert_eq!(rotation.step(&evidence, &TIMES, after(4)), Step::Switched);
    assert_eq!(rotation.signing().unwrap().certificate(), &new_root);
    assert_eq!(rotation.trusted(), [new_root.clone(), old_root.clone()]);
    // Another replica may have signed by the old one a moment ago.
    assert_eq!(rotation.step(&Evidence::default(), &TIMES, after(10)), Step::None);
    // A restart in between forgets nothing, and makes nothing longer.
    let mut again = Rotation::resume(new.clone(), pem::bundle(&rotation.trusted()).as_bytes(), &rotation.ends(), &TIMES, after(9)).unwrap();
    for rotation in [&mut rotation, &mut again] {
        assert_eq!(rotation.signing().unwrap().certificate(), &new_root);
        assert_eq!(rotation.step(&Evidence::default(), &TIMES, after(11)), Step::Dropped);
        assert_eq!(rotation.trusted(), std::slice::from_ref(&new_root));
    }
}

#[test]
fn the_same_key_after_a_restart_signs_at_once() {
    let files = root(Key::P256);
    for known in [files["root-cert.pem"].clone(), Vec::new()] {
        let rotation = Rotation::resume(files.clone(), &known, &Ends::default(), &TIMES, now()).unwrap();
        assert_eq!((rotation.signing().unwrap().certificate(), rotation.trusted().len()), (&first_root(&files), 1));
    }
    // One that nobody remembers is trusted for as long as its last certificate may hold.
    let other = root(Key::P256);
    let both = [files["root-cert.pem"].clone(), other["root-cert.pem"].clone()].concat();
    let mut rotation = Rotation::resume(files.clone(), &both, &Ends::default(), &TIMES, now()).unwrap();
    assert_eq!(rotation.trusted(), [first_root(&files), first_root(&other)]);
    assert_eq!(rotation.step(&Evidence::default(), &TIMES, after(6)), Step::None);
    assert_eq!(rotation.step(&Evidence::default(), &TIMES, after(7)), Step::Dropped);
    // A bundle of two roots in the folder does not make the signer's a known one.
    let mut combined = other.clone();
    combined.insert("root-cert.pem".into(), both);
    let rotation = Rotation::resume(combined, &files["root-cert.pem"], &Ends::default(), &TIMES, now()).unwrap();
    assert!(rotation.signing().is_none());
}

#[test]
fn a_key_that_cannot_sign_any_more_is_no_reason_to_wait() {
    let mut rotation = Rotation::restore(root(Key::P256), now()).unwrap();
    let over = rotation.signing().unwrap().not_after();
    let times = Times { longest: Duration::from_secs(3600), ..TIMES };
    let new = pilotfish_ca::root::generate("td", &Default::default(), over - Duration::from_secs(60)).unwrap();
    rotation.offer(new, &times, over - Duration::from_secs(60)).unwrap();
    assert_eq!(rotation.step(&Evidence::default(), &times, over - Duration::from_secs(1)), Step::None);
    assert_eq!(rotation.step(&Evidence::default(), &times, over), Step::Switched);
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
    let (mut since, mut bundle, mut switched) = (now(), Vec::new(), 0);
    for second in 0..60 {
        let at = after(second);
        if [5, 22, 39].contains(&second) {
            assert_eq!(rotation.offer(root(Key::P256), &TIMES, at), Ok(Offer::Pending));
        }
        if rotation.trusted() != bundle {
            (bundle, since) = (rotation.trusted(), at);
        }
        let evidence = placed(&rotation, since);
        switched += usize::from(rotation.step(&evidence, &TIMES, at) == Step::Switched);
        let issued = issue(rotation.signing().unwrap(), &policy, &request, &[identity("a", "b")], 0, at).unwrap();
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
