//! Objects that the schemas of their kinds allow, at random, with names that are likely to meet.

mod mend;

use pilotfish_testkit::Random;
use serde_json::{Map, Value, json};

/// One kind, as its CustomResourceDefinition describes it.
pub(crate) struct Kind {
    pub(crate) name: String,
    api_version: String,
    spec: Value,
}

/// All kinds of Istio.
pub(crate) fn kinds() -> Vec<Kind> {
    let of = |crd: Value| {
        let spec = &crd["spec"];
        let version = &spec["versions"][0];
        Kind {
            name: spec["names"]["kind"].as_str().unwrap().to_owned(),
            api_version: format!("{}/{}", spec["group"].as_str().unwrap(), version["name"].as_str().unwrap()),
            spec: version["schema"]["openAPIV3Schema"]["properties"]["spec"].clone(),
        }
    };
    pilotfish_crds::definition::definitions().into_iter().map(of).collect()
}

impl Kind {
    /// An object of it.
    pub(crate) fn object(&self, random: &mut Random, number: usize) -> Value {
        let namespace = pick(random, &["shop", "edge", "istio-system"]);
        let mut spec = value(&self.spec, "spec", random, 0);
        // What schemas cannot say, most objects keep to: or whole kinds would hardly ever be accepted.
        if random.below(4) > 0 {
            mend::mend(&self.name, &mut spec, random);
        }
        json!({
            "apiVersion": self.api_version,
            "kind": self.name,
            "metadata": {"name": format!("{}-{number}", pick(random, &["a", "web", "gw"])), "namespace": namespace},
            "spec": spec,
        })
    }
}

fn pick<'a>(random: &mut Random, from: &[&'a str]) -> &'a str {
    from[random.below(from.len())]
}

fn value(schema: &Value, field: &str, random: &mut Random, depth: usize) -> Value {
    if let Some(values) = schema["enum"].as_array() {
        return values[random.below(values.len())].clone();
    }
    if schema["x-kubernetes-int-or-string"] == true {
        return json!(number(field, random));
    }
    match schema["type"].as_str() {
        Some("object") => object(schema, field, random, depth),
        Some("array") => {
            let most = if depth > 6 { 2 } else { 4 };
            (0..random.below(most)).map(|_| value(&schema["items"], field, random, depth + 1)).collect()
        }
        Some("boolean") => json!(random.below(2) == 0),
        Some("integer") => json!(number(field, random)),
        Some("number") => json!([0.0, 0.5, 1.0, 33.3, 100.0][random.below(5)]),
        Some("string") => json!(text(field, random)),
        _ => json!({}),
    }
}

fn object(schema: &Value, field: &str, random: &mut Random, depth: usize) -> Value {
    let mut map = Map::new();
    if let Some(properties) = schema["properties"].as_object() {
        let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
        // Of a oneof one member, else most objects would be refused.
        let chosen = schema["oneOf"].as_array().filter(|o| !o.is_empty()).map(|o| o[random.below(o.len())]["required"][0].clone());
        let members: Vec<&Value> = schema["oneOf"].as_array().into_iter().flatten().map(|o| &o["required"][0]).collect();
        for (name, of) in properties {
            let is_member = members.iter().any(|m| *m == name);
            let is_needed = required.iter().any(|r| r == name) || chosen.as_ref().is_some_and(|c| c == name);
            // The upper levels are full, or hardly anything would ever be deep.
            let likely = if depth < 2 { 2 } else { 3 };
            if is_needed || (!is_member && random.below(likely) == 0) {
                map.insert(name.clone(), value(of, name, random, depth + 1));
            }
        }
    } else if schema["additionalProperties"].is_object() {
        for _ in 0..random.below(3) {
            let key = if field.to_lowercase().contains("port") { number("port", random).to_string() } else { text("key", random) };
            map.insert(key, value(&schema["additionalProperties"], "value", random, depth + 1));
        }
    } else if field == "value" {
        // What a patch says is Envoy's affair.
        return patch(random);
    }
    Value::Object(map)
}

fn patch(random: &mut Random) -> Value {
    let all = [
        json!({"name": "added"}),
        json!({"connect_timeout": "3s"}),
        json!({"name": "envoy.filters.http.router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}),
        json!({"route": {"timeout": "7s"}}),
        json!({"typed_config": {"@type": "type.googleapis.com/no.such.Type"}}),
        json!({"no_such_field": 1}),
        json!({"stat_prefix": ""}),
        json!([]),
        json!(7),
    ];
    all[random.below(all.len())].clone()
}

fn number(field: &str, random: &mut Random) -> u64 {
    match field.to_lowercase() {
        name if name.contains("port") || name == "number" => [80, 443, 8080, 9000, 15006, 0][random.below(6)],
        name if name.contains("status") || name.contains("code") => [200, 301, 404, 503][random.below(4)],
        _ => [0, 1, 2, 10, 100, 65535, 4_294_967_295][random.below(7)],
    }
}

const HOSTS: &[&str] = &["web", "api", "web.shop.svc.cluster.local", "*.example.com", "out.example.com", "*", "gone"];
const DURATIONS: &[&str] = &["1s", "0s", "250ms", "1h", "10s"];
const NAMES: &[&str] = &["v1", "v2", "http", "a", "web", "gw"];
const ANYTHING: &[&str] =
    &["", "web", "a", "/", "/x", "x-user", "10.0.0.0/8", "*", "shop", "1", "a b", "(", "%REQ(x)%", "é", "https://out.example.com/keys"];

fn text(field: &str, random: &mut Random) -> String {
    let field = field.to_lowercase();
    // Now and then what nobody expects there.
    let pool = match field.as_str() {
        _ if random.below(12) == 0 => ANYTHING,
        name if ["host", "snihost", "authorit", "sni"].iter().any(|h| name.starts_with(h)) => HOSTS,
        name if ["timeout", "interval", "delay", "duration", "time", "maxage", "ttl", "refresh", "fixed"]
            .iter()
            .any(|d| name.contains(d)) =>
        {
            DURATIONS
        }
        "gateways" => &["mesh", "gw", "edge/gw-1", "shop/a-1"],
        "exportto" | "namespaces" | "namespace" => &["*", ".", "shop", "edge"],
        "regex" => &[".*", "/x.*", "(", "[a-z]+"],
        "prefix" | "exact" | "uri" | "paths" => &["/", "/x", "/x/y", "web"],
        "ipblocks" | "notipblocks" | "address" | "addresses" | "destinationsubnets" => {
            &["10.0.0.1", "10.0.0.0/8", "2001:db8::1", "out.example.com"]
        }
        "protocol" => &["HTTP", "HTTPS", "TCP", "TLS", "GRPC", "HTTP2", "MONGO"],
        "methods" => &["GET", "POST", "*"],
        "name" | "subset" => NAMES,
        "key" => &["app", "request.headers[x-user]", "source.ip", "istio", "http"],
        "value" | "values" => &["web", "gw", "http", "8080"],
        "url" | "jwksuri" => &["oci://out.example.com/x:1", "https://out.example.com/keys", "http://out.example.com/x.wasm"],
        _ => ANYTHING,
    };
    pick(random, pool).to_owned()
}
