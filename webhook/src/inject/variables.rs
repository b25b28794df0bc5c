//! Variables in the path of the webhook, by which one control plane tells clusters and networks apart.

use std::collections::BTreeMap;

/// Reads what follows `/inject`: `/key/value/...`, or the old form `/:ENV:key=value:ENV:key=value`.
pub fn parse(path: &str) -> BTreeMap<String, String> {
    let path = path.trim_start_matches('/');
    if let Some(old) = path.strip_prefix(":ENV:") {
        return old.split(":ENV:").filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    }
    let parts: Vec<&str> = path.split('/').collect();
    let pairs = parts.chunks_exact(2).filter(|p| !p[0].is_empty());
    pairs
        .map(|pair| {
            let key = match pair[0] {
                "cluster" => "ISTIO_META_CLUSTER_ID".to_owned(),
                "net" => "ISTIO_META_NETWORK".to_owned(),
                other => other.to_uppercase(),
            };
            (key, pair[1].replace("--slash--", "/"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn forms() {
        let read = |path| parse(path).into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ");
        assert_eq!(read("/cluster/c1/net/n--slash--1/foo/bar/last"), "FOO=bar ISTIO_META_CLUSTER_ID=c1 ISTIO_META_NETWORK=n/1");
        assert_eq!(read("/:ENV:A=1:ENV:B=2=3"), "A=1 B=2=3");
        assert_eq!(read(""), "");
        assert_eq!(read("/"), "");
    }
}
