//! Kubernetes' own kinds out of protobuf, which the API server writes and we read several times faster than JSON. Field
//! numbers are those of the `generated.proto` files of `k8s.io/api` and `k8s.io/apimachinery`.

use std::ops::ControlFlow;

use pilotfish_crds::Num;
use pilotfish_crds::core::{EndpointSlice, Pod, Service, endpoint_slice, pod, service};
use pilotfish_model::name::{Labels, Str};
use pilotfish_model::time::Timestamp;
use pilotfish_model::{Kind, Meta, ObjectId};

use super::wire::{Content, Malformed, fields, pair, text};
use crate::object::{Body, Object};
use crate::strings::Strings;

/// What the API server writes before each object.
const MAGIC: &[u8] = b"k8s\0";

/// What stands around an object, or instead of one.
#[derive(Default)]
pub(super) struct Head {
    pub(super) namespace: Str,
    pub(super) name: Str,
    pub(super) version: String,
    created: Timestamp,
    pub(super) labels: Labels,
    pub(super) annotations: Labels,
    owner: Option<(String, String)>,
}

/// The object inside the API server's envelope.
pub(super) fn unwrap(envelope: &[u8]) -> Result<&[u8], Malformed> {
    let mut raw = &[][..];
    for field in fields(envelope.strip_prefix(MAGIC).ok_or(Malformed)?) {
        if let (2, Content::Bytes(b)) = field? {
            raw = b;
        }
    }
    Ok(raw)
}

/// Type and object of a watch event.
pub(super) fn event(frame: &[u8]) -> Result<(&str, &[u8]), Malformed> {
    let (mut kind, mut object) = ("", &[][..]);
    for field in fields(frame) {
        match field? {
            (1, Content::Bytes(b)) => kind = text(b)?,
            (2, Content::Bytes(extension)) => object = unwrap(message(extension, 1)?)?,
            _ => {}
        }
    }
    Ok((kind, object))
}

/// A page of a list: its version, the token of the next page, and its items.
pub(super) fn list(message: &[u8]) -> Result<(String, String, Vec<&[u8]>), Malformed> {
    let (mut version, mut token, mut items) = (String::new(), String::new(), Vec::new());
    for field in fields(message) {
        match field? {
            (1, Content::Bytes(meta)) => each(meta, |number, b| match number {
                2 => set(&mut version, b),
                3 => set(&mut token, b),
                _ => Ok(()),
            })?,
            (2, Content::Bytes(item)) => items.push(item),
            _ => {}
        }
    }
    Ok((version, token, items))
}

/// Code and message of a `Status`.
pub(super) fn status(object: &[u8]) -> Result<(u16, String), Malformed> {
    let (mut code, mut said) = (0, String::new());
    for field in fields(object) {
        match field? {
            (3, Content::Bytes(b)) => set(&mut said, b)?,
            (6, Content::Number(n)) => code = u16::try_from(n).unwrap_or(0),
            _ => {}
        }
    }
    Ok((code, said))
}

/// Metadata of an object of any kind.
pub(super) fn head(object: &[u8], strings: &Strings) -> Result<Head, Malformed> {
    let mut head = Head::default();
    let mut controller = false;
    each(message(object, 1)?, |number, b| {
        match number {
            1 => head.name = text(b)?.into(),
            3 => head.namespace = strings.share(text(b)?),
            6 => set(&mut head.version, b)?,
            8 => head.created = Timestamp(seconds(b)?),
            11 | 12 => {
                let (key, value) = pair(b)?;
                let map = if number == 11 { &mut head.labels } else { &mut head.annotations };
                map.insert(strings.share(key), strings.share(value));
            }
            13 if !controller => {
                let mut owner = (String::new(), String::new());
                let mut controls = false;
                for field in fields(b) {
                    match field? {
                        (1, Content::Bytes(b)) => set(&mut owner.0, b)?,
                        (3, Content::Bytes(b)) => set(&mut owner.1, b)?,
                        (6, Content::Number(n)) => controls = n != 0,
                        _ => {}
                    }
                }
                // The controller among the owners, else the first.
                if controls || head.owner.is_none() {
                    (head.owner, controller) = (Some(owner), controls);
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(head)
}

/// Namespace, name and version of an object of any kind.
pub(super) fn identity(object: &[u8]) -> Result<(&str, &str, &str), Malformed> {
    let (mut namespace, mut name, mut version) = ("", "", "");
    each(message(object, 1)?, |number, b| {
        match number {
            1 => name = text(b)?,
            3 => namespace = text(b)?,
            6 => version = text(b)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok((namespace, name, version))
}

/// An object of one of the kinds that are read this way.
pub(super) fn object(kind: Kind, head: Head, object: &[u8]) -> Result<Object, Malformed> {
    let body = match kind {
        Kind::Namespace => Body::Namespace,
        Kind::Node => Body::Node,
        Kind::Service => Body::Service(Box::new(read_service(object)?)),
        Kind::EndpointSlice => Body::EndpointSlice(Box::new(read_slice(object)?)),
        Kind::Pod => Body::Pod(Box::new(read_pod(object)?)),
        _ => return Err(Malformed),
    };
    let Head { namespace, name, created, labels, annotations, owner, .. } = head;
    let id = ObjectId { kind, namespace: namespace.clone(), name: name.clone() };
    Ok(Object { id, meta: Meta { namespace, name, created, labels, annotations }, owner, body, raw: None })
}

fn read_service(object: &[u8]) -> Result<Service, Malformed> {
    let mut s = Service::default();
    each(message(object, 2)?, |number, b| {
        match number {
            1 => s.spec.ports.push(service_port(b)?),
            2 => drop(pair(b).map(|(k, v)| s.spec.selector.insert(k.to_owned(), v.to_owned()))?),
            3 => set(&mut s.spec.cluster_ip, b)?,
            18 => push(&mut s.spec.cluster_ips, b)?,
            4 => set(&mut s.spec.kind, b)?,
            5 => push(&mut s.spec.external_ips, b)?,
            10 => set(&mut s.spec.external_name, b)?,
            22 => set(&mut s.spec.internal_traffic_policy, b)?,
            23 => set(&mut s.spec.traffic_distribution, b)?,
            _ => {}
        }
        Ok(())
    })?;
    s.spec.publish_not_ready_addresses = number(message(object, 2)?, 13)? == Some(1);
    each(message(message(object, 3)?, 1)?, |n, b| {
        if n == 1 {
            let mut ingress = service::LoadBalancerIngress::default();
            each(b, |n, b| match n {
                1 => set(&mut ingress.ip, b),
                2 => set(&mut ingress.hostname, b),
                _ => Ok(()),
            })?;
            s.status.load_balancer.ingress.push(ingress);
        }
        Ok(())
    })?;
    Ok(s)
}

fn service_port(b: &[u8]) -> Result<service::ServicePort, Malformed> {
    let mut port = service::ServicePort::default();
    for field in fields(b) {
        match field? {
            (1, Content::Bytes(b)) => set(&mut port.name, b)?,
            (2, Content::Bytes(b)) => set(&mut port.protocol, b)?,
            (6, Content::Bytes(b)) => port.app_protocol = Some(text(b)?.to_owned()),
            (3, Content::Number(n)) => port.port = number16(n)?,
            (4, Content::Bytes(b)) => port.target_port = target_port(b)?,
            _ => {}
        }
    }
    Ok(port)
}

fn target_port(b: &[u8]) -> Result<Option<service::TargetPort>, Malformed> {
    let name = text(message(b, 3)?)?;
    Ok(match number(b, 1)? {
        Some(1) => Some(service::TargetPort::Name(name.to_owned())),
        _ => number(b, 2)?.map(number16).transpose()?.map(|n| service::TargetPort::Number(n.0)),
    })
}

fn read_slice(object: &[u8]) -> Result<EndpointSlice, Malformed> {
    let mut s = EndpointSlice::default();
    each(object, |number, b| {
        match number {
            4 => set(&mut s.address_type, b)?,
            2 => s.endpoints.push(endpoint(b)?),
            3 => {
                let mut port = endpoint_slice::EndpointPort::default();
                for field in fields(b) {
                    match field? {
                        (1, Content::Bytes(b)) => set(&mut port.name, b)?,
                        (2, Content::Bytes(b)) => set(&mut port.protocol, b)?,
                        (3, Content::Number(n)) => port.port = Some(number16(n)?),
                        _ => {}
                    }
                }
                s.ports.push(port);
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(s)
}

fn endpoint(b: &[u8]) -> Result<endpoint_slice::Endpoint, Malformed> {
    let mut e = endpoint_slice::Endpoint::default();
    each(b, |number, b| {
        match number {
            1 => push(&mut e.addresses, b)?,
            2 => {
                for field in fields(b) {
                    match field? {
                        (1, Content::Number(n)) => e.conditions.ready = Some(n != 0),
                        (2, Content::Number(n)) => e.conditions.serving = Some(n != 0),
                        (3, Content::Number(n)) => e.conditions.terminating = Some(n != 0),
                        _ => {}
                    }
                }
            }
            3 => set(&mut e.hostname, b)?,
            4 => {
                let mut target = endpoint_slice::ObjectReference::default();
                each(b, |number, b| match number {
                    1 => set(&mut target.kind, b),
                    2 => set(&mut target.namespace, b),
                    3 => set(&mut target.name, b),
                    _ => Ok(()),
                })?;
                e.target_ref = Some(target);
            }
            6 => set(&mut e.node_name, b)?,
            7 => set(&mut e.zone, b)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(e)
}

fn read_pod(object: &[u8]) -> Result<Pod, Malformed> {
    let mut p = Pod::default();
    each(message(object, 2)?, |number, b| match number {
        2 => container(b).map(|c| p.spec.containers.push(c)),
        20 => container(b).map(|c| p.spec.init_containers.push(c)),
        8 => set(&mut p.spec.service_account_name, b),
        10 => set(&mut p.spec.node_name, b),
        16 => set(&mut p.spec.hostname, b),
        17 => set(&mut p.spec.subdomain, b),
        _ => Ok(()),
    })?;
    each(message(object, 3)?, |number, b| {
        match number {
            1 => set(&mut p.status.phase, b)?,
            2 => {
                let mut condition = pod::PodCondition::default();
                each(b, |number, b| match number {
                    1 => set(&mut condition.kind, b),
                    2 => set(&mut condition.status, b),
                    _ => Ok(()),
                })?;
                p.status.conditions.push(condition);
            }
            6 => set(&mut p.status.pod_ip, b)?,
            12 => p.status.pod_ips.push(pod::PodIp { ip: text(message(b, 1)?)?.to_owned() }),
            _ => {}
        }
        Ok(())
    })?;
    Ok(p)
}

fn container(b: &[u8]) -> Result<pod::Container, Malformed> {
    let mut c = pod::Container::default();
    each(b, |number, b| {
        match number {
            1 => set(&mut c.name, b)?,
            6 => {
                let mut port = pod::ContainerPort::default();
                for field in fields(b) {
                    match field? {
                        (1, Content::Bytes(b)) => set(&mut port.name, b)?,
                        (3, Content::Number(n)) => port.container_port = number16(n)?,
                        (4, Content::Bytes(b)) => set(&mut port.protocol, b)?,
                        _ => {}
                    }
                }
                c.ports.push(port);
            }
            24 => set(&mut c.restart_policy, b)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(c)
}

/// Goes through the texts and messages among the fields.
fn each<'a>(bytes: &'a [u8], mut f: impl FnMut(u64, &'a [u8]) -> Result<(), Malformed>) -> Result<(), Malformed> {
    for field in fields(bytes) {
        if let (number, Content::Bytes(b)) = field? {
            f(number, b)?;
        }
    }
    Ok(())
}

/// The text or message of a field; empty if it is not there.
fn message(bytes: &[u8], number: u64) -> Result<&[u8], Malformed> {
    let found = fields(bytes).try_for_each(|field| match field {
        Ok((n, Content::Bytes(b))) if n == number => ControlFlow::Break(Ok(b)),
        Ok(_) => ControlFlow::Continue(()),
        Err(e) => ControlFlow::Break(Err(e)),
    });
    found.break_value().unwrap_or(Ok(&[]))
}

fn number(bytes: &[u8], number: u64) -> Result<Option<u64>, Malformed> {
    let found = fields(bytes).try_for_each(|field| match field {
        Ok((n, Content::Number(v))) if n == number => ControlFlow::Break(Ok(Some(v))),
        Ok(_) => ControlFlow::Continue(()),
        Err(e) => ControlFlow::Break(Err(e)),
    });
    found.break_value().unwrap_or(Ok(None))
}

fn seconds(b: &[u8]) -> Result<i64, Malformed> {
    // Times before 1970 are written as their two's complement.
    Ok(number(b, 1)?.unwrap_or(0) as i64)
}

fn number16(n: u64) -> Result<Num<u16>, Malformed> {
    u16::try_from(n).map(Num).map_err(|_| Malformed)
}

fn set(place: &mut String, b: &[u8]) -> Result<(), Malformed> {
    text(b)?.clone_into(place);
    Ok(())
}

fn push(list: &mut Vec<String>, b: &[u8]) -> Result<(), Malformed> {
    list.push(text(b)?.to_owned());
    Ok(())
}
