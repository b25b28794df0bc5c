//! Log files: lines as text or JSON.

use std::collections::BTreeMap;

use pilotfish_envoy::pb::envoy::config::accesslog::v3::AccessLog;
use pilotfish_envoy::pb::envoy::config::core::v3::{
    DataSource, JsonFormatOptions, SubstitutionFormatString, TypedExtensionConfig, data_source, substitution_format_string,
};
use pilotfish_envoy::pb::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log};
use pilotfish_envoy::pb::envoy::extensions::formatter::req_without_query::v3::ReqWithoutQuery;
use pilotfish_envoy::{Struct, Value, any};
use pilotfish_model::mesh_config::Json;
use pilotfish_model::name::Str;

use super::access_log::{FileLog, LineFormat, access_log};
use crate::extensions;

/// Fields of the default line: the JSON key, and the operator. The text line has the same operators in this order.
const FIELDS: [(&str, &str); 24] = [
    ("start_time", "%START_TIME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("route_name", "%ROUTE_NAME%"),
];

pub(super) fn log(input: &FileLog) -> AccessLog {
    use substitution_format_string::Format;
    let (format, formatters) = match &input.format {
        LineFormat::Text(text) => {
            let text = text.as_deref().map_or_else(default_text, str::to_owned);
            let formatters = formatters([&*text]);
            (Format::TextFormatSource(inline(text)), formatters)
        }
        LineFormat::Json(text) => text.as_deref().and_then(parsed_json).unwrap_or_else(default_json),
        LineFormat::Labels(labels) => labels_json(labels),
    };
    let format = SubstitutionFormatString {
        omit_empty_values: input.omit_empty_values,
        json_format_options: matches!(format, Format::JsonFormat(_)).then(JsonFormatOptions::default),
        format: Some(format),
        formatters,
        ..Default::default()
    };
    let config =
        FileAccessLog { path: input.path.to_string(), access_log_format: Some(file_access_log::AccessLogFormat::LogFormat(format)) };
    access_log(extensions::ACCESS_LOG_FILE, any(&config))
}

/// Only texts at the top say which extensions are needed, as in the reference.
fn json_format<'a>(fields: Struct, texts: impl IntoIterator<Item = &'a str>) -> JsonLine {
    (substitution_format_string::Format::JsonFormat(fields), formatters(texts))
}

type JsonLine = (substitution_format_string::Format, Vec<TypedExtensionConfig>);

fn labels_json(labels: &BTreeMap<Str, Json>) -> JsonLine {
    let texts = labels.values().filter_map(|v| match v {
        Json::Text(text) => Some(&**text),
        _ => None,
    });
    json_format(Struct::new(labels.iter().map(|(k, v)| (k, label(v)))), texts)
}

fn label(json: &Json) -> Value {
    match json {
        Json::Null => Value::null(),
        Json::Bool(b) => Value::boolean(*b),
        Json::Number(n) => Value::number(n.get()),
        Json::Text(text) => Value::text(text),
        Json::List(items) => Value::list(items.iter().map(label)),
        Json::Object(fields) => Value::object(fields.iter().map(|(k, v)| (k, label(v)))),
    }
}

fn inline(text: String) -> DataSource {
    DataSource { specifier: Some(data_source::Specifier::InlineString(text)), ..Default::default() }
}

/// Request line, agents and upstream in quotes, as web servers write them.
pub(super) fn default_text() -> String {
    let mut line = String::with_capacity(640);
    for (i, (key, operator)) in FIELDS.iter().enumerate() {
        let (before, after) = match *key {
            "start_time" => ("[", "]"),
            "method" => ("\"", ""),
            "protocol" => ("", "\""),
            "upstream_transport_failure_reason" | "x_forwarded_for" | "user_agent" | "request_id" | "authority" | "upstream_host" => {
                ("\"", "\"")
            }
            _ => ("", ""),
        };
        let space = if i == 0 { "" } else { " " };
        line.extend([space, before, operator, after]);
    }
    line.push('\n');
    line
}

fn default_json() -> JsonLine {
    json_format(Struct::new(FIELDS.map(|(k, v)| (k, Value::text(v)))), FIELDS.map(|(_, v)| v))
}

/// A user's own JSON line; what is not an object is not used.
fn parsed_json(text: &str) -> Option<JsonLine> {
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    Some(json_format(Struct::new(fields.iter().map(|(k, v)| (k, value(v)))), fields.values().filter_map(|v| v.as_str())))
}

fn value(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::null(),
        Json::Bool(b) => Value::boolean(*b),
        Json::Number(n) => Value::number(n.as_f64().unwrap_or_default()),
        Json::String(s) => Value::text(s),
        Json::Array(items) => Value::list(items.iter().map(value)),
        Json::Object(fields) => Value::object(fields.iter().map(|(k, v)| (k, value(v)))),
    }
}

/// Extensions that a format needs: the texts that it consists of tell.
pub(super) fn formatters<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<TypedExtensionConfig> {
    let without_query = texts.into_iter().any(|t| t.contains("%REQ_WITHOUT_QUERY"));
    let formatter =
        || TypedExtensionConfig { name: extensions::FORMATTER_REQ_WITHOUT_QUERY.to_owned(), typed_config: Some(any(&ReqWithoutQuery {})) };
    without_query.then(formatter).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_line_is_bracketed_and_quoted() {
        let line = default_text();
        assert!(line.starts_with("[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% "));
        assert!(line.ends_with("\"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"));
    }

    #[test]
    fn a_json_line_of_the_user_keeps_its_nesting() {
        let (parsed, _) = parsed_json(r#"{"a":"%PROTOCOL%","b":{"c":true}}"#).unwrap();
        let nested = Value::object([("c", Value::boolean(true))]);
        let expected = Struct::new([("a", Value::text("%PROTOCOL%")), ("b", nested)]);
        assert_eq!(parsed, substitution_format_string::Format::JsonFormat(expected));
        assert_eq!(parsed_json("not json"), None);
    }
}
