//! What is shipped for those who watch the watcher: rules, dashboards and Datadog's check, against a real Prometheus, Datadog's
//! own code and the running agent. Needs what `cargo xtask test --only monitoring` installs.

mod dashboards;
mod datadog;
mod rules;
mod scrape;
