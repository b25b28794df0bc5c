//! Log files: lines as text or JSON.

use pilotfish_envoy::any;
use pilotfish_envoy::pb::envoy::config::accesslog::v3::AccessLog;
use pilotfish_envoy::pb::envoy::config::core::v3::{
    DataSource, JsonFormatOptions, SubstitutionFormatString, TypedExtensionConfig, data_source, substitution_format_string,
};
use pilotfish_envoy::pb::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log};
use pilotfish_envoy::pb::envoy::extensions::formatter::req_without_query::v3::ReqWithoutQuery;
use pilotfish_model::mesh_config::Json;
use prost_types::Struct;

use super::access_log::{FileLog, LineFormat, access_log};
use crate::extensions;
use crate::metadata;

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
        LineFormat::Json(text) => json_format(text.as_deref().and_then(parse_json).unwrap_or_else(default_json)),
        LineFormat::Labels(labels) => json_format(metadata::object(labels.iter().map(|(k, v)| (k.to_string(), label(v))))),
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
fn json_format(fields: Struct) -> (substitution_format_string::Format, Vec<TypedExtensionConfig>) {
    let texts = fields.fields.values().filter_map(|v| match &v.kind {
        Some(prost_types::value::Kind::StringValue(text)) => Some(text.as_str()),
        _ => None,
    });
    let formatters = formatters(texts);
    (substitution_format_string::Format::JsonFormat(fields), formatters)
}

fn label(json: &Json) -> prost_types::Value {
    match json {
        Json::Null => prost_types::Value { kind: Some(prost_types::value::Kind::NullValue(0)) },
        Json::Bool(b) => metadata::boolean(*b),
        Json::Number(n) => metadata::number(n.get()),
        Json::Text(text) => metadata::text(text.to_string()),
        Json::List(items) => metadata::list(items.iter().map(label)),
        Json::Object(fields) => metadata::object_value(fields.iter().map(|(k, v)| (k.to_string(), label(v)))),
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

fn default_json() -> Struct {
    metadata::object(FIELDS.map(|(k, v)| (k, metadata::text(v))))
}

/// A user's own JSON line; what is not an object is not used.
fn parse_json(text: &str) -> Option<Struct> {
    match serde_json::from_str(text).ok()? {
        serde_json::Value::Object(fields) => Some(metadata::object(fields.into_iter().map(|(k, v)| (k, value(v))))),
        _ => None,
    }
}

fn value(json: serde_json::Value) -> prost_types::Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => prost_types::Value { kind: Some(prost_types::value::Kind::NullValue(0)) },
        Json::Bool(b) => metadata::boolean(b),
        Json::Number(n) => metadata::number(n.as_f64().unwrap_or_default()),
        Json::String(s) => metadata::text(s),
        Json::Array(items) => metadata::list(items.into_iter().map(value)),
        Json::Object(fields) => metadata::object_value(fields.into_iter().map(|(k, v)| (k, value(v)))),
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
        let parsed = parse_json(r#"{"a":"%PROTOCOL%","b":{"c":true}}"#).unwrap();
        let nested = metadata::object_value([("c", metadata::boolean(true))]);
        assert_eq!(parsed, metadata::object([("a", metadata::text("%PROTOCOL%")), ("b", nested)]));
        assert_eq!(parse_json("not json"), None);
    }
}
