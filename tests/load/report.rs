//! What the load client measured: its JSON reports, and the figures that follow from them.
//!
//! A figure that a report does not have is `None`, never 0: a step that did not run must not look good.

use serde_json::Value;

/// The report of one run.
pub(crate) struct Report(pub(crate) Value);

/// One step of a run.
#[derive(Clone, Copy)]
pub(crate) struct Step<'a>(&'a Value);

impl Report {
    /// The first step of this name.
    pub(crate) fn step(&self, name: &str) -> Option<Step<'_>> {
        self.steps().find(|step| step.name() == name)
    }

    fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        self.0["steps"].as_array().into_iter().flatten().map(Step)
    }

    /// A figure of a report without steps.
    pub(crate) fn number(&self, key: &str) -> Option<f64> {
        self.0[key].as_f64()
    }

    /// Responses with nothing new in them. An empty answer to a subscription is none: when streams open it is all that
    /// says that the client has everything already.
    pub(crate) fn unneeded(&self, of: impl Fn(&str) -> bool) -> Option<f64> {
        let mut steps = self.steps().filter(|step| of(step.name())).peekable();
        steps.peek()?;
        steps
            .map(|step| {
                let opens = ["connect", "reconnect"].contains(&step.name());
                Some(step.total("unnecessary_responses")? - if opens { step.total("empty_responses")? } else { 0.0 })
            })
            .sum()
    }

    /// Changes that never arrived at a client that should have seen them.
    pub(crate) fn lost(&self) -> Option<f64> {
        let groups: Vec<&Value> = self.steps().filter_map(|step| step.0["events"].as_object()).flat_map(|events| events.values()).collect();
        let missing = |group: &&Value| Some(group["expected_deliveries"].as_f64()? - group["deliveries"].as_f64()?);
        if groups.is_empty() { None } else { groups.iter().map(missing).sum() }
    }

    /// CPU of an idle server, in ms per second.
    pub(crate) fn idle_ms(&self) -> Option<f64> {
        let hold = self.step("hold")?;
        Some(1000.0 * hold.cpu_s()? / hold.number("/seconds")?)
    }

    /// CPU of one change in ms, without what the server uses anyway.
    pub(crate) fn ms_per_event(&self, step: &str, events: &str) -> Option<f64> {
        let step = self.step(step)?;
        let busy = 1000.0 * step.cpu_s_of(events)? - self.idle_ms()? * step.number("/seconds")?;
        Some(busy.max(0.0) / step.number(&format!("/events/{events}/events"))?)
    }

    /// Bytes of the reconnect as a share of those of the first sync, in percent.
    pub(crate) fn reconnect_percent(&self) -> Option<f64> {
        Some(100.0 * self.step("reconnect")?.total("bytes")? / self.step("connect")?.total("bytes")?)
    }
}

impl<'a> Step<'a> {
    fn name(self) -> &'a str {
        self.0["step"].as_str().unwrap_or_default()
    }

    /// Any number of it, by JSON pointer.
    pub(crate) fn number(self, pointer: &str) -> Option<f64> {
        self.0.pointer(pointer)?.as_f64()
    }

    /// CPU of the server.
    pub(crate) fn cpu_s(self) -> Option<f64> {
        self.number("/server/cpu_s")
    }

    /// CPU of the server during changes that arrived: doing nothing about them would be cheap.
    pub(crate) fn cpu_s_of(self, events: &str) -> Option<f64> {
        (self.number(&format!("/events/{events}/deliveries"))? > 0.0).then(|| self.cpu_s())?
    }

    /// CPU of the server for each proxy.
    pub(crate) fn ms_per_proxy(self) -> Option<f64> {
        Some(1000.0 * self.cpu_s()? / self.number("/proxies")?)
    }

    /// CPU of the server for each response of a type.
    pub(crate) fn ms_per_response(self, typ: &str) -> Option<f64> {
        let responses = self.number(&format!("/traffic/{typ}/responses"))?;
        (responses > 0.0).then_some(1000.0 * self.cpu_s()? / responses)
    }

    /// How much the server's memory grew for each proxy: `rss_peak_mib`, or `rss_after_mib`.
    pub(crate) fn growth_mib(self, to: &str) -> Option<f64> {
        Some((self.number(&format!("/server/{to}"))? - self.number("/server/rss_before_mib")?) / self.number("/proxies")?)
    }

    /// The sum over all types.
    pub(crate) fn total(self, counter: &str) -> Option<f64> {
        let types = self.0["traffic"].as_object()?;
        types.values().map(|t| t[counter].as_f64()).sum()
    }

    /// A quantile of the time until a change arrived, in ms.
    pub(crate) fn latency(self, events: &str, quantile: &str) -> Option<f64> {
        let group = self.0.pointer(&format!("/events/{events}"))?;
        // Nothing delivered is no latency of 0.
        (group["deliveries"].as_f64()? > 0.0).then(|| group["latency"][quantile].as_f64())?
    }

    /// When the last client was in sync, if all were. A server that sends nothing at all to clients whose streams are open says that
    /// they hold everything: they are in sync from the start.
    pub(crate) fn all_synced_s(self) -> Option<f64> {
        if self.total("responses")? == 0.0 && self.number("/sync/stream_errors")? == 0.0 {
            return Some(0.0);
        }
        (self.number("/sync/synced")? >= self.number("/proxies")?).then(|| self.number("/sync/last_receive_s"))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report() -> Report {
        let traffic =
            |n: u64, none: u64, empty: u64| json!({"bytes": n, "responses": n, "unnecessary_responses": none, "empty_responses": empty});
        let group = json!({"events": 4, "expected_deliveries": 8, "deliveries": 7, "latency": {"p50_ms": 5.0}});
        Report(json!({"steps": [
            {"step": "connect", "seconds": 2.0, "proxies": 10, "traffic": {"CDS": traffic(600, 0, 0), "RDS": traffic(400, 1, 1)},
             "server": {"cpu_s": 0.5, "rss_before_mib": 10.0, "rss_after_mib": 11.0, "rss_peak_mib": 12.0}},
            {"step": "hold", "seconds": 10.0, "proxies": 10, "traffic": {}, "server": {"cpu_s": 0.1}},
            {"step": "config-churn", "seconds": 10.0, "proxies": 10, "traffic": {"RDS": traffic(20, 3, 1)}, "server": {"cpu_s": 0.5},
             "events": {"config": group}},
            {"step": "reconnect", "seconds": 3.0, "proxies": 10, "traffic": {"CDS": traffic(10, 2, 1)}, "server": {"cpu_s": 0.2},
             "sync": {"synced": 9, "last_receive_s": 1.0}},
        ]}))
    }

    #[test]
    fn figures_follow_from_the_report() {
        let report = report();
        let connect = report.step("connect").unwrap();
        assert_eq!((connect.ms_per_proxy(), connect.growth_mib("rss_peak_mib")), (Some(50.0), Some(0.2)));
        assert_eq!(connect.total("bytes"), Some(1000.0));
        let churn = report.step("config-churn").unwrap();
        assert_eq!((churn.ms_per_response("RDS"), churn.latency("config", "p50_ms")), (Some(25.0), Some(5.0)));
        assert_eq!((report.idle_ms(), report.ms_per_event("config-churn", "config")), (Some(10.0), Some(100.0)));
        assert_eq!((report.reconnect_percent(), report.lost()), (Some(1.0), Some(1.0)));
        assert_eq!((report.unneeded(|step| step == "config-churn"), report.unneeded(|_| true)), (Some(3.0), Some(4.0)));
    }

    #[test]
    fn what_did_not_happen_has_no_figure() {
        let mut report = report();
        assert_eq!(report.step("reconnect").unwrap().all_synced_s(), None);
        let silent = Report(json!({"steps": [{"step": "reconnect", "proxies": 10, "traffic": {"CDS": {"responses": 0}},
            "sync": {"synced": 0, "last_receive_s": -1.0, "stream_errors": 0}}]}));
        assert_eq!(silent.step("reconnect").unwrap().all_synced_s(), Some(0.0));
        assert!(report.step("noisy").is_none());
        assert_eq!(report.unneeded(|step| step == "noisy"), None);
        assert_eq!(report.ms_per_event("config-churn", "absent"), None);
        report.0["steps"][2]["events"]["config"]["deliveries"] = json!(0);
        assert_eq!((report.ms_per_event("config-churn", "config"), report.lost()), (None, Some(8.0)));
        assert_eq!(report.step("config-churn").unwrap().latency("config", "p50_ms"), None);
    }
}
