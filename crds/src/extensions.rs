//! `extensions.istio.io`.

pub mod traffic_extension;
pub mod wasm_plugin;

pub use traffic_extension::TrafficExtensionSpec;
pub use wasm_plugin::WasmPluginSpec;
