//! Leaves that are made some at a time, step by step: found, made, encoded, checked, kept. A step is more code than the
//! processor keeps at hand beside the others, so each is done for all before the next.

use std::ptr;
use std::sync::Arc;

use bytes::Bytes;
use pilotfish_envoy::encoded::{Fragment, Sources};
use pilotfish_envoy::validate::{self, Violation};
use pilotfish_envoy::{Assignment, Layer, Resource, TypeUrl};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use prost::{Message, Name};

use super::{Built, Entry, Key, Leaves, contained};
use crate::endpoint::AssignmentInput;
use crate::unit::Unit;

/// How many are made together: enough that a step pays, few enough that what they are between two steps stays at hand as well.
pub(crate) const AT_ONCE: usize = 8;
/// Room for a fragment in bytes, as most need it.
const USUAL_FRAGMENT: usize = 2048;

/// What a resource is to be made of.
pub(crate) struct Wanted<I> {
    pub(crate) name: Arc<str>,
    pub(crate) key: Key,
    pub(crate) input: I,
}

/// What is kept under a key, or else how far what is made anew has come.
enum Found<K, T> {
    Kept(Result<K, Arc<[Violation]>>),
    New(Result<T, Vec<Violation>>),
}

impl<K: Clone, T> Found<K, T> {
    /// The next step. What is made in one is large, and stays where it is.
    fn next<U>(&self, then: impl FnOnce(&T) -> U) -> Found<K, U> {
        match self {
            Found::Kept(kept) => Found::Kept(kept.clone()),
            Found::New(Ok(made)) => Found::New(Ok(then(made))),
            Found::New(Err(violations)) => Found::New(Err(violations.clone())),
        }
    }

    /// Holds what is new to the validation rules of its type.
    fn check(&mut self, type_name: &str, bytes: impl FnOnce(&T) -> &[u8]) {
        if let Found::New(made) = self
            && let Ok(new) = made
            && let Err(violations) = validate::validate(type_name, bytes(new))
        {
            *made = Err(violations);
        }
    }
}

/// What an assignment is to be made of.
pub(crate) type AssignmentWanted<'u> = Wanted<(AssignmentInput, &'u Arc<Unit>)>;

/// A message that is no field yet, and what it was made of.
type Unbound = (Vec<u8>, Sources);

impl Leaves {
    /// Several resources, all of which clients hold to the validation rules, in their order.
    pub(crate) fn resources<I, M: Message + Name>(
        &self,
        type_url: TypeUrl,
        wanted: Vec<Wanted<I>>,
        make: impl Fn(&I) -> (M, Sources),
    ) -> Vec<Built> {
        let make = |w: &Wanted<I>| self.find_resource(&w.key).map_or_else(|| Found::New(contained(|| make(&w.input))), Found::Kept);
        let made: Vec<Found<Resource, (M, Sources)>> = wanted.iter().map(make).collect();
        let encode = |(found, w): (&Found<Resource, (M, Sources)>, &Wanted<I>)| {
            found.next(|(message, sources)| {
                self.work.leaves_built.add(1);
                Resource::new(w.name.clone(), message).with_sources(sources.clone())
            })
        };
        let mut encoded: Vec<Found<Resource, Resource>> = made.iter().zip(&wanted).map(encode).collect();
        drop(made);
        encoded.iter_mut().for_each(|found| found.check(type_url.as_str(), Resource::value));
        let keep = |(found, w): (Found<Resource, Resource>, Wanted<I>)| {
            let made = match found {
                Found::Kept(kept) => kept,
                Found::New(made) => made.map_err(|v| self.refuse(&w.key, v)).inspect(|resource| {
                    self.work.bytes_encoded.add(resource.delta_len() as u64);
                    self.put(&w.key, Entry::Resource(resource.downgrade()));
                }),
            };
            Built::of(type_url, w.name, made)
        };
        encoded.into_iter().zip(wanted).map(keep).collect()
    }

    /// Assignments, which the keys tell by the address of their endpoints. `checked`, `served`: as of [`Leaves::resource`].
    pub(crate) fn assignments(
        &self,
        wanted: Vec<AssignmentWanted<'_>>,
        checked: bool,
        served: Option<&Arc<Layer>>,
        make: impl Fn(&AssignmentInput, &Unit) -> (Assignment, Sources),
    ) -> Vec<Built> {
        let type_url = TypeUrl::Endpoint;
        let make = |w: &AssignmentWanted<'_>| {
            let (input, unit) = &w.input;
            let found = self.find(&w.key, |entry| match entry {
                Entry::Assignment(resource, of) if ptr::eq(of.as_ptr(), Arc::as_ptr(&input.endpoints)) => resource.upgrade(),
                _ => None,
            });
            found.map_or_else(|| Found::New(contained(|| make(input, unit))), Found::Kept)
        };
        let made: Vec<Found<Resource, (Assignment, Sources)>> = wanted.iter().map(make).collect();
        let mut built = Vec::with_capacity(wanted.len());
        for (found, w) in made.into_iter().zip(wanted) {
            let made = match found {
                Found::Kept(kept) => kept,
                Found::New(made) => made
                    .and_then(|(assignment, sources)| {
                        let is_sound = assignment.is_surely_sound();
                        let checked = checked && (!is_sound || cfg!(debug_assertions));
                        let encoded = self.encode(type_url, &w.name, checked, served, assignment.message(), sources);
                        debug_assert!(!is_sound || encoded.is_ok(), "{}: surely sound, but {encoded:?}", w.name);
                        encoded
                    })
                    // Why one is broken is not kept here: that would outlive the endpoints.
                    .map_err(|v| self.refused(v))
                    .inspect(|resource| {
                        self.put(&w.key, Entry::Assignment(resource.downgrade(), Arc::downgrade(&w.input.0.endpoints)));
                    }),
            };
            built.push(Built::of(type_url, w.name, made));
        }
        built
    }

    /// Fields of a message, tag and length included: under `tag` the messages of type `name` that `make` writes.
    pub(crate) fn fragments<I>(
        &self,
        tag: u32,
        name: &str,
        wanted: &[(Key, I)],
        make: impl Fn(&I, &mut Vec<u8>) -> Sources,
    ) -> Vec<Result<Fragment, Arc<[Violation]>>> {
        let find = |key: &Key| {
            self.find(key, |entry| match entry {
                Entry::Fragment(fragment) => fragment.upgrade(),
                _ => None,
            })
        };
        let make = |(key, input): &(Key, I)| {
            let new = || {
                let mut message = Vec::with_capacity(USUAL_FRAGMENT);
                contained(|| make(input, &mut message)).map(|sources| (message, sources))
            };
            find(key).map_or_else(|| Found::New(new()), Found::Kept)
        };
        let mut made: Vec<Found<Fragment, Unbound>> = wanted.iter().map(make).collect();
        made.iter_mut().for_each(|found| found.check(name, |(message, _)| message));
        let keep = |(found, key): (Found<Fragment, Unbound>, &Key)| match found {
            Found::Kept(kept) => kept,
            Found::New(made) => made.map_err(|v| self.refuse(key, v)).map(|(message, sources)| {
                self.work.leaves_built.add(1);
                let fragment = Fragment::new(field(tag, &message), sources);
                self.work.bytes_encoded.add(fragment.bytes().len() as u64);
                self.put(key, Entry::Fragment(fragment.downgrade()));
                fragment
            }),
        };
        made.into_iter().zip(wanted.iter().map(|(key, _)| key)).map(keep).collect()
    }
}

fn field(tag: u32, message: &[u8]) -> Bytes {
    let len = message.len() as u64;
    let mut field = Vec::with_capacity(key_len(tag) + encoded_len_varint(len) + message.len());
    encode_key(tag, WireType::LengthDelimited, &mut field);
    encode_varint(len, &mut field);
    field.extend_from_slice(message);
    field.into()
}

/// What is in a field that was just written.
pub(crate) fn payload(field: &[u8]) -> &[u8] {
    let mut rest = field;
    let _tag = prost::encoding::decode_varint(&mut rest);
    let _len = prost::encoding::decode_varint(&mut rest);
    rest
}
